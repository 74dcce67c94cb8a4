"""Factors: the settings that a block varies, by their names in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cemobam_core.errors import InputError
from cemobam_core.systems.search import Value

PAIR = ("k_audio", "k_text")
"""Names of the two K of the graph."""

_DISPLAYED = {
    **{"k_audio": "K_audio", "k_text": "K_text", "system": "System", "profile": "Configuration"},
    **{"fusion": "Fusion", "modules": "Model", "lr": "learning rate"},
}


def displayed(name: str) -> str:
    """Return the name that tables and figures show for a setting."""
    return _DISPLAYED.get(name, name)


@dataclass(frozen=True, order=True)
class Pair:
    """A pair of K_audio and K_text."""

    k_audio: int
    k_text: int

    def __str__(self) -> str:
        """Return the pair in the form of ``--at``: ``8,7``."""
        return f"{self.k_audio},{self.k_text}"


@dataclass(frozen=True)
class Factor:
    """One setting that a block varies, with its values.

    Args:
        name: Name of the setting: a field of the system's, the graph's or the training's configuration, or
            ``system``.
        values: Values of the setting: at least one, all different, all of one kind.

    Raises:
        InputError: If there is no value, a value is given twice, or the values are of different kinds.
    """

    name: str
    values: tuple[Value, ...]

    def __init__(self, name: str, values: Iterable[Value]) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InputError(f"factor {name!r}: give the name of a setting, such as hidden_dim or lr")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InputError(f"factor {name}: its values must be a list, not {values!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "values", tuple(values))
        if not self.values:
            raise InputError(f"factor {name}: give it at least one value")
        twice = [value for i, value in enumerate(self.values) if value in self.values[:i]]
        if twice:
            raise InputError(f"factor {name}: the value {twice[0]!r} is given twice")
        kinds = {_kind(value) for value in self.values}
        if len(kinds) > 1 or None in kinds:
            raise InputError(
                f"factor {name}: its values must be all numbers, all names, or True and False, not {list(self.values)}"
            )

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, which have an order."""
        return _kind(self.values[0]) == "number"


def _kind(value: object) -> str | None:
    """Return the kind of a value, or `None` if a setting cannot have such a value."""
    kinds = {bool: "choice", int: "number", float: "number", str: "name"}  # bool first: a bool is an int as well
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), None)

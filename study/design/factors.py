"""Factors: the settings that a block varies, by their names in the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cemobam_core.errors import InputError
from cemobam_core.systems.search import Value

PAIR = ("k_audio", "k_text")
"""The two K of the graph."""

_DISPLAYED = {
    **{"k_audio": "K_audio", "k_text": "K_text", "system": "System", "profile": "Configuration"},
    **{"fusion": "Fusion", "modules": "Model", "lr": "learning rate"},
}


def displayed(name: str) -> str:
    """Return a setting's name as tables and figures show it."""
    return _DISPLAYED.get(name, name)


@dataclass(frozen=True, order=True)
class Pair:
    """One pair of K."""

    k_audio: int
    k_text: int

    def __str__(self) -> str:
        """Return it as a user types it: ``8,7``."""
        return f"{self.k_audio},{self.k_text}"


@dataclass(frozen=True)
class Factor:
    """One setting that a block varies, with its values.

    Args:
        name: of the setting: a field of the system's, the graph's or the training's configuration, or ``system``.
        values: at least one, all different, of one kind.

    Raises:
        InputError: no value, a value twice, values of different kinds.
    """

    name: str
    values: tuple[Value, ...]

    def __init__(self, name: str, values: Iterable[Value]) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InputError(f"factor {name!r}: give the name of a setting, as hidden_dim or lr")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InputError(f"factor {name}: its values must be a list, not {values!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "values", tuple(values))
        if not self.values:
            raise InputError(f"factor {name}: it has no value")
        twice = [value for i, value in enumerate(self.values) if value in self.values[:i]]
        if twice:
            raise InputError(f"factor {name}: {twice[0]!r} is named twice")
        kinds = {_kind(value) for value in self.values}
        if len(kinds) > 1 or None in kinds:
            raise InputError(
                f"factor {name}: its values must be all numbers, all names, or True and False: {list(self.values)}"
            )

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers, so that they have an order."""
        return _kind(self.values[0]) == "number"


def _kind(value: object) -> str | None:
    """Return what a value is; None: a setting cannot be that."""
    kinds = {bool: "choice", int: "number", float: "number", str: "name"}  # a bool is an int as well
    return next((kind for of, kind in kinds.items() if isinstance(value, of)), None)

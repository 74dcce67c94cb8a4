"""Blocks: named questions, each with the configurations that answer it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cemobam_core.errors import InputError
from cemobam_core.systems.search import Between, OneOf, Value
from study.design.factors import PAIR, Factor

Kind = Literal["plane", "line", "names"]

Changes = Mapping[str, Value]
"""The settings, by name, that a configuration of a block changes. All other settings are those of the study."""


@dataclass(frozen=True)
class Block:
    """A named question: the factors that it varies, its reference and how it is drawn.

    Give one of these: ``factors``, whose values are crossed; ``systems``; or named ``configurations``.

    Args:
        name: Name of the block, as ``--blocks`` takes it: letters, digits, ``-`` and ``_``.
        question: Question that the block answers.
        factors: Factors that the block varies.
        systems: Systems that the block compares, by the names that ``--system`` takes. Short for a factor ``system``.
        configurations: Changed settings of each configuration, by the configuration's name. The setting ``profile``
            names the profile that the configuration starts from.
        reference: Value of the block's only factor, or name of a configuration, that the others are compared with.
            `None` means the study's own setting if the block has it, else the first. A block of several factors has
            no reference.
        title: Title of the block's table and figure. Empty means the question.
        chooses: Whether the other blocks run at the best pair of K in this block. Such a block varies both K.
        fresh: Whether the block runs with seeds that took no part in any choice, because its configurations were
            chosen.
        tunes: System whose configurations validation chooses from in this block. Empty means that the block does not
            tune.
        search: Values that a tuning block tries for each setting.
        labels: Names that tables and figures show for the values of the block's only factor, or for its
            configurations.
        table: Name of the table's files. Empty means the block's name.
        drawing: Name of the figure. Empty means the block's name.
        file: Name of the figure's files. Empty means the name of the figure.
        published: Function that returns the results that a paper reports for the block: it takes a data set and
            returns a frame with a row per value, in percent.
        make_table: Function that makes the block's table. `None` means the usual table.
        make_figure: Function that makes the block's figure. `None` means the usual figure.
        make_page: Function that makes the block's figure for a browser. `None` means the usual figure.
        caption: Caption of the figure that ``make_figure`` returns, after the title: its marks and how to read them.

    Raises:
        InputError: If the name is not valid, the block varies nothing, the block does not have its reference, or the
            block chooses the pair of K and does not vary it.
    """

    name: str
    question: str = ""
    factors: tuple[Factor, ...] = ()
    systems: tuple[str, ...] = ()
    configurations: Mapping[str, Changes] = field(default_factory=dict)
    reference: Value | None = None
    title: str = ""
    chooses: bool = False
    after_choice: bool = False
    fresh: bool = False
    tunes: str = ""
    search: Mapping[str, Between | OneOf] = field(default_factory=dict)
    labels: Mapping[Any, str] = field(default_factory=dict)
    table: str = ""
    drawing: str = ""
    file: str = ""
    published: Callable[[str], Any] | None = field(default=None, compare=False)
    make_table: Callable[..., Any] | None = field(default=None, compare=False)
    make_figure: Callable[..., Any] | None = field(default=None, compare=False)
    make_page: Callable[..., Any] | None = field(default=None, compare=False)
    caption: str = ""

    __hash__ = object.__hash__

    def __post_init__(self) -> None:  # noqa: D105
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,40}", str(self.name)):
            raise InputError(
                f"block {self.name!r}: a block's name must start with a letter and have at most 41 letters, digits, - "
                "and _"
            )
        factors = list(self._sequence("factors", self.factors, Factor))
        if self.systems:
            factors.insert(0, Factor("system", self._sequence("systems", self.systems, str)))
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "systems", ())  # they are a factor now: a copy of the block must not add it again
        self._check_configurations()
        if bool(self.factors) == bool(self.configurations):
            raise InputError(f"block {self.name!r}: give either factors or systems, or configurations")
        names = [factor.name for factor in self.factors]
        if len(set(names)) < len(names):
            raise InputError(f"block {self.name!r}: two of its factors have the same name")
        if self.reference is not None and len(names) > 1:
            raise InputError(f"block {self.name!r}: a block of several factors has no reference; leave it out")
        if self.reference is not None and self.reference not in self.names:
            raise InputError(
                f"block {self.name!r}: its reference {self.reference!r} is not one of its values {list(self.names)}"
            )
        if self.chooses and set(names) != set(PAIR):
            raise InputError(
                f"block {self.name!r}: only a block whose factors are k_audio and k_text can choose the pair of K"
            )

    def _check_configurations(self) -> None:
        if not isinstance(self.configurations, Mapping):
            raise InputError(
                f"block {self.name!r}: its configurations must be a dict from a name to a dict of changed settings"
            )
        for name, changes in self.configurations.items():
            if not isinstance(name, str) or not name.strip():
                raise InputError(f"block {self.name!r}: the name of a configuration must be a text, not {name!r}")
            if not isinstance(changes, Mapping):
                raise InputError(
                    f"block {self.name!r}: its configuration {name!r} must be a dict of settings, not {changes!r}"
                )

    def _sequence(self, argument: str, given: Any, kind: type) -> Iterable[Any]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"block {self.name!r}: its {argument} must be a list, not {given!r}")
        items = list(given)
        for item in items:
            if not isinstance(item, kind):
                raise InputError(f"block {self.name!r}: {item!r} in its {argument} is not a {kind.__name__}")
        return items

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of ``trials.csv`` that distinguish the block's configurations."""
        return tuple(factor.name for factor in self.factors) or ("profile",)

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that ``trials.csv`` and the ledger record for each trial: those it varies, or searches."""
        return tuple(self.search) if self.tunes else self.columns

    @property
    def names(self) -> tuple[Value, ...]:
        """The values of the only factor, or the names of the configurations. Empty if there are several factors."""
        if len(self.factors) > 1:
            return ()
        return self.factors[0].values if self.factors else tuple(self.configurations)

    @property
    def kind(self) -> Kind:
        """The kind of figure: a ``plane`` over two ordered factors, a ``line`` over one, else ``names``."""
        if self.factors and all(factor.ordered for factor in self.factors):
            return {1: "line", 2: "plane"}.get(len(self.factors), "names")  # type: ignore[return-value]
        return "names"

    @property
    def compared(self) -> bool:
        """Whether each configuration is compared with the reference."""
        return self.make_table is None and not self.chooses and not self.tunes

    @property
    def varies_pair(self) -> bool:
        """Whether the block varies both K, so that it needs no chosen pair."""
        return set(PAIR) <= set(self.columns)

    def changes(self) -> Iterator[tuple[str, Changes]]:
        """Yield each configuration's name (empty in a block of factors) and the settings that it changes."""
        if self.configurations:
            yield from self.configurations.items()
            return
        for values in itertools.product(*(factor.values for factor in self.factors)):
            yield "", dict(zip(self.columns, values, strict=True))

    def label(self, value: Any) -> str:
        """Return the text that tables and figures show for a value of the block's factor."""
        return self.labels.get(value, shown(value))


def shown(value: Any) -> str:
    """Return the text that tables and figures show for a setting's value."""
    return f"{value:g}" if isinstance(value, float) else str(value)

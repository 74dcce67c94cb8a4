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
"""Settings by name, beside those that a block shares with the study."""


@dataclass(frozen=True)
class Block:
    """A named question: what is varied, what it is compared with, what it is drawn as.

    Give ``factors``, whose values are crossed; or ``systems``; or a list of ``configurations`` with names of their own.

    Args:
        name: of the block, as ``--blocks`` takes it: letters, digits, ``-`` and ``_``.
        question: that it answers.
        factors: what it varies.
        systems: what it compares, by the names that ``--system`` takes; short for a factor ``system``.
        configurations: by name, the settings that it changes; ``profile`` names the profile that it starts from.
        reference: what the others are compared with: a value of its only factor, or the name of a configuration; None:
            the study's own setting if the block has it, else the first. A block of several factors has none.
        title: of its table and its figure; empty: the question.
        chooses: whether the best pair of K in it is the one at which other blocks run; it varies both K then.
        after_choice: whether it needs a pair that another block chooses, or the user.
        fresh: whether it runs with seeds that took no part in any choice, because its configurations were chosen.
        tunes: the system among whose configurations validation chooses here; empty: it does not tune.
        search: of a block that tunes, the values that were tried of each setting.
        labels: how tables and figures show the values of its only factor, or its configurations.
        table: the name of its table's files; empty: the block's.
        drawing: the name of its figure; empty: the block's.
        file: the name of its figure's files; empty: that of the figure.
        published: the figures that a paper reports for it: by data set, a frame with a row per value, in percent.
        make_table: returns its table, if it is not the usual one.
        make_figure: returns its figure, likewise.
        make_page: returns its figure for a browser, likewise.
        caption: of the figure that ``make_figure`` returns, after the title: its marks and how to read them.

    Raises:
        InputError: a name that is none, nothing to vary, a reference that the block has not, or a block that chooses
            the pair and does not vary it.
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
            raise InputError(f"block {self.name!r}: its name must be letters, digits, - and _, and start with a letter")
        factors = list(self._sequence("factors", self.factors, Factor))
        if self.systems:
            factors.insert(0, Factor("system", self._sequence("systems", self.systems, str)))
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "systems", ())  # now a factor: a copy with other values must not get two of them
        self._check_configurations()
        if bool(self.factors) == bool(self.configurations):
            raise InputError(f"block {self.name!r}: give it factors, or systems, or configurations")
        names = [factor.name for factor in self.factors]
        if len(set(names)) < len(names):
            raise InputError(f"block {self.name!r}: two of its factors have the same name")
        if self.reference is not None and len(names) > 1:
            raise InputError(f"block {self.name!r}: it has several factors, so leave its reference out")
        if self.reference is not None and self.reference not in self.names:
            raise InputError(f"block {self.name!r}: its reference {self.reference!r} is not among {list(self.names)}")
        if self.chooses and set(names) != set(PAIR):
            raise InputError(f"block {self.name!r}: only a block whose factors are k_audio and k_text can choose them")

    def _check_configurations(self) -> None:
        if not isinstance(self.configurations, Mapping):
            raise InputError(f"block {self.name!r}: its configurations must be a dict: by name, the settings changed")
        for name, changes in self.configurations.items():
            if not isinstance(name, str) or not name.strip():
                raise InputError(f"block {self.name!r}: {name!r} is no name for a configuration")
            if not isinstance(changes, Mapping):
                raise InputError(
                    f"block {self.name!r}: its configuration {name!r} must be a dict of settings, not {changes!r}"
                )

    def _sequence(self, what: str, given: Any, kind: type) -> Iterable[Any]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"block {self.name!r}: its {what} must be a list")
        listed = list(given)
        for one in listed:
            if not isinstance(one, kind):
                raise InputError(f"block {self.name!r}: {one!r} in its {what} is not a {kind.__name__}")
        return listed

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of ``trials.csv`` that tell its configurations apart."""
        return tuple(factor.name for factor in self.factors) or ("profile",)

    @property
    def told(self) -> tuple[str, ...]:
        """The settings that ``trials.csv`` and the ledger tell of its trials: what it varies, or searches."""
        return tuple(self.search) if self.tunes else self.columns

    @property
    def names(self) -> tuple[Value, ...]:
        """The values of its only factor, or the names of its configurations; empty: it has several factors."""
        if len(self.factors) > 1:
            return ()
        return self.factors[0].values if self.factors else tuple(self.configurations)

    @property
    def kind(self) -> Kind:
        """What it is drawn as: a ``plane`` over two ordered factors, a ``line`` over one, else by ``names``."""
        if self.factors and all(factor.ordered for factor in self.factors):
            return {1: "line", 2: "plane"}.get(len(self.factors), "names")  # type: ignore[return-value]
        return "names"

    @property
    def compared(self) -> bool:
        """Whether each of its configurations is compared with its reference."""
        return self.make_table is None and not self.chooses and not self.tunes

    @property
    def varies_pair(self) -> bool:
        """Whether it varies both K, so that no pair has to be chosen for it."""
        return set(PAIR) <= set(self.columns)

    def changes(self) -> Iterator[tuple[str, Changes]]:
        """Yield each configuration's name (empty for those of factors) and the settings that it changes."""
        if self.configurations:
            yield from self.configurations.items()
            return
        for values in itertools.product(*(factor.values for factor in self.factors)):
            yield "", dict(zip(self.columns, values, strict=True))

    def label(self, value: Any) -> str:
        """Return how tables and figures show a value of its factor."""
        return self.labels.get(value, shown(value))


def shown(value: Any) -> str:
    """Return a setting's value as tables and figures show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)

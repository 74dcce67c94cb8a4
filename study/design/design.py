"""A design: blocks over what all trials share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from cemobam_core.graph import GraphConfig
from cemobam_core.systems import FittedSystem, System, name_of, system_class
from cemobam_core.systems.files import file_of
from cemobam_core.systems.search import Value
from cemobam_core.training.config import TrainingConfig
from study.design.block import Block
from study.design.configuration import Configuration, Trial, check_known
from study.design.factors import Factor, Pair
from study.design.seeds import fresh_seeds
from study.papers.cemobam.profiles import PROFILES

ANY_PAIR, _OTHER_PAIR = Pair(1, 1), Pair(2, 2)
"""For blocks that vary the pair themselves, and systems that use no graph: there is no difference between them."""

_UNSHARED = ("k_audio", "k_text", "fusion", "modules")
"""Settings that are told of each trial, and not of the study."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a user asks for: blocks, the settings that all trials share, seeds and folds.

    Seeds that choose are not those that confirm: what was best on some seeds is partly their luck.

    Attributes:
        blocks: by name.
        profile: the reading of the method that trials start from.
        system: the name of the system that the blocks vary.
        settings: of system, graph and training, where they are not the profile's.
        dataset: whose own settings come before these.
        seeds: one trial of each configuration for each; those that choose the pair, where one is chosen.
        confirm: how many fresh seeds run at a pair that was chosen; 0: as many as ``seeds``.
        folds: how many assignments to train, val and test the features come in.
    """

    blocks: Mapping[str, Block]
    profile: str = "paper"
    system: str = "cemobam"
    settings: Mapping[str, Value] = field(default_factory=dict)
    dataset: str = "demo"
    seeds: tuple[int, ...] = tuple(range(5))
    confirm: int = 0
    folds: int = 1
    _made: dict[tuple[str, Pair], list[Configuration]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    _classes: dict[str, type[System]] = field(default_factory=dict, init=False, compare=False, repr=False)

    __hash__ = object.__hash__

    @cached_property
    def base(self) -> Configuration:
        """The configuration that the blocks vary; its K are not used."""
        return self.configuration({}, ANY_PAIR)

    def configuration(self, changes: Mapping[str, Value], at: Pair, *, name: str = "") -> Configuration:
        """Return one configuration.

        Args:
            changes: what it changes of the study's settings.
            at: its K, if these are not changed.
            name: it has in its block; empty: that of its profile.

        Raises:
            InputError: an unknown system or profile, a value out of range.
        """
        changes = dict(changes)
        start = str(changes.pop("profile", self.profile))
        if start not in PROFILES:
            raise InputError(f"profile {start!r}: choose from {', '.join(PROFILES)}")
        profile, kind = PROFILES[start], self._class(str(changes.pop("system", self.system)))
        corpus = CORPORA.get(self.dataset)
        given: dict[str, Value] = dict(corpus.settings) if corpus else {}
        if isinstance(profile.system, kind):
            system = profile.system
        else:
            system = kind()  # type: ignore[assignment]
            given = {**{name: value for name, value in given.items() if name in TRAINING}, **kind.prescribed}
            if corpus and file_of(kind) is None:
                given |= corpus.of_others
        made = Configuration(
            profile=name or start,
            system=system,
            graph=replace(profile.graph, k_audio=at.k_audio, k_text=at.k_text) if kind.uses_graph else None,
            training=None if issubclass(kind, FittedSystem) else profile.training,
        )
        made = made.having({**given, **self.settings, **changes})
        if made.graph:
            made.system.check_graph(made.graph)
        return made

    def _class(self, name: str) -> type[System]:
        """Return the system of a name, the same at each call: a user's file may be edited while its study runs."""
        if name not in self._classes:
            self._classes[name] = system_class(name)
        return self._classes[name]

    def configurations(self, block: str, at: Pair) -> list[Configuration]:
        """Return the configurations of a block, each once, in its order.

        Args:
            block: its name.
            at: the pair for a block that does not vary it.
        """
        if (block, at) not in self._made:
            of = self.blocks[block]
            made = [self.configuration(changes, at, name=name) for name, changes in of.changes()]
            varied = dict.fromkeys(name for _, changes in of.changes() for name in changes)
            check_known(varied, made, f"block {block!r}")
            self._check_names(of)
            self._made[block, at] = list(dict.fromkeys(made))
        return self._made[block, at]

    def having(self, block: Block) -> Design:
        """Return the design with one block more, or another one of its name."""
        made = replace(self, blocks={**self.blocks, block.name: block})
        made._classes.update(self._classes)  # a file that was edited since is not read again
        return made

    def _check_names(self, block: Block) -> None:
        """Raise InputError for two systems of one name: the folder of a file is no part of it."""
        named: dict[str, str] = {}
        for value in (str(changes["system"]) for _, changes in block.changes() if "system" in changes):
            other = named.setdefault(name_of(self._class(value)), value)
            if other != value:
                raise InputError(
                    f"block {block.name!r}: {other} and {value} have the same name; rename one of the classes or files"
                )

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """The seeds that run at a pair that was chosen: those that follow the largest of :attr:`seeds`."""
        return fresh_seeds(self.seeds, self.confirm or len(self.seeds))

    def trials(
        self, block: str, at: Pair, seeds: Mapping[Configuration, Sequence[int]] | Sequence[int] | None = None
    ) -> list[Trial]:
        """Return the trials of a block, seed by seed, so that an early stop leaves all configurations with few seeds.

        Args:
            block: its name.
            at: the pair for a block that does not vary it.
            seeds: of all of its configurations, or of each; None: :attr:`seeds`.
        """
        configurations = self.configurations(block, at)
        given = self.seeds if seeds is None else seeds
        of = given if isinstance(given, Mapping) else dict.fromkeys(configurations, given)
        return [
            Trial(configuration=configuration, seed=seed, fold=fold)
            for seed in dict.fromkeys(seed for one in configurations for seed in of[one])
            for fold in range(self.folds)
            for configuration in configurations
            if seed in of[configuration]
        ]

    def needs_pair(self, block: str) -> bool:
        """Return whether a pair of K must be known before the block can run."""
        return self.configurations(block, ANY_PAIR) != self.configurations(block, _OTHER_PAIR)

    def check_names(self) -> None:
        """Raise InputError if two different configurations have one name: no table could tell them apart."""
        known = {name: ("the profile", self.configuration({"profile": name}, ANY_PAIR)) for name in PROFILES}
        for block, of in self.blocks.items():
            for name, changes in of.configurations.items():
                made = self.configuration(changes, ANY_PAIR, name=name)
                owner, other = known.setdefault(name, (f"block {block!r}", made))
                if made != other:
                    raise InputError(
                        f"block {block!r}: its configuration {name!r} is another than that of {owner}; give it another "
                        "name"
                    )

    @property
    def choosing(self) -> str | None:
        """The block whose best pair the others run at; None: there is none."""
        return next((name for name, block in self.blocks.items() if block.chooses), None)

    @property
    def factors(self) -> tuple[str, ...]:
        """What any of its blocks varies, beside what is told of every trial."""
        names = dict.fromkeys(name for block in self.blocks.values() for name in block.told)
        return tuple(name for name in names if name not in {"profile", "system", *_UNSHARED})

    def values(self, name: str) -> tuple[Any, ...]:
        """Return the values that the choosing block gives a factor; empty: there is no such block."""
        factors = self.blocks[self.choosing].factors if self.choosing else ()
        return next((factor.values for factor in factors if factor.name == name), ())

    def shared(self) -> dict[str, Any]:
        """Return what all trials share, for the record; what features bring is not a setting."""
        base = self.base
        shared = {"profile": base.profile, "system": name_of(base.system), **base.settings()}
        return {name: value for name, value in shared.items() if name not in _UNSHARED}


TRAINING = {f.name for f in fields(TrainingConfig)} | {f.name for f in fields(GraphConfig)}
"""Settings of the training and the graph; all others are a system's own."""


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Return each trial once, in the order of first mention."""
    return list(dict.fromkeys(trials))


def with_values(block: Block, values: Mapping[str, tuple[Value, ...]]) -> Block:
    """Return a block with other values for some of its factors."""
    if not any(factor.name in values for factor in block.factors):
        return block
    factors = [Factor(f.name, values[f.name]) if f.name in values else f for f in block.factors]
    return replace(block, factors=tuple(factors))

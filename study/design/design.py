"""A design: the blocks, and the settings that all trials share."""

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
"""Two placeholder pairs, for blocks that vary the pair themselves and systems that use no graph.

A block needs a pair if its configurations at one of them differ from those at the other.
"""

_UNSHARED = ("k_audio", "k_text", "fusion", "modules")
"""Settings that are recorded for each trial, not for the study."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The design of a study: its blocks, the settings that all trials share, its seeds and its folds.

    The seeds that choose a configuration never confirm it: a configuration that was best on some seeds was partly
    lucky.

    Attributes:
        blocks: Blocks by name.
        profile: Reading of the method that trials start from.
        system: Name of the system that the blocks vary.
        settings: Settings of system, graph and training that differ from the profile's.
        dataset: Data set. Its own settings apply first, then ``settings``.
        seeds: Seeds of each configuration. If a block chooses the pair of K, it chooses by these seeds.
        confirm: Number of fresh seeds that run at a chosen pair. 0 means as many as ``seeds``.
        folds: Number of folds of the features.
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
        """The configuration that the blocks vary. Its K are placeholders."""
        return self.configuration({}, ANY_PAIR)

    def configuration(self, changes: Mapping[str, Value], at: Pair, *, name: str = "") -> Configuration:
        """Return one configuration.

        Args:
            changes: Settings that differ from the study's.
            at: K_audio and K_text, unless ``changes`` sets them.
            name: Name of the configuration in its block. Empty means the name of its profile.

        Raises:
            InputError: If the system or profile is unknown, or a value is out of range.
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
        """Return the system of a name, the same class at each call even if a user edits its file during the run."""
        if name not in self._classes:
            self._classes[name] = system_class(name)
        return self._classes[name]

    def configurations(self, block: str, at: Pair) -> list[Configuration]:
        """Return the distinct configurations of a block, in its order.

        Args:
            block: Name of the block.
            at: Pair of K for a block that does not vary it.
        """
        if (block, at) not in self._made:
            asked = self.blocks[block]
            made = [self.configuration(changes, at, name=name) for name, changes in asked.changes()]
            varied = dict.fromkeys(name for _, changes in asked.changes() for name in changes)
            check_known(varied, made, f"block {block!r}")
            self._check_names(asked)
            self._made[block, at] = list(dict.fromkeys(made))
        return self._made[block, at]

    def having(self, block: Block) -> Design:
        """Return the design with a block added, or replaced if the name is already there."""
        made = replace(self, blocks={**self.blocks, block.name: block})
        made._classes.update(self._classes)  # a user's file that was edited since is not read again
        return made

    def _check_names(self, block: Block) -> None:
        """Raise InputError if two systems have one name. The folder of a user's file is not part of the name."""
        named: dict[str, str] = {}
        for value in (str(changes["system"]) for _, changes in block.changes() if "system" in changes):
            other = named.setdefault(name_of(self._class(value)), value)
            if other != value:
                raise InputError(
                    f"block {block.name!r}: {other} and {value} have the same name; rename one of the classes or files"
                )

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """The seeds that run at a chosen pair: those that follow the largest of :attr:`seeds`."""
        return fresh_seeds(self.seeds, self.confirm or len(self.seeds))

    def trials(
        self, block: str, at: Pair, seeds: Mapping[Configuration, Sequence[int]] | Sequence[int] | None = None
    ) -> list[Trial]:
        """Return the trials of a block, seed by seed.

        If the run stops early, every configuration has some seeds, rather than some configurations all of them.

        Args:
            block: Name of the block.
            at: Pair of K for a block that does not vary it.
            seeds: Seeds of all configurations, or of each. `None` means :attr:`seeds`.
        """
        configurations = self.configurations(block, at)
        given = self.seeds if seeds is None else seeds
        seeds_of = given if isinstance(given, Mapping) else dict.fromkeys(configurations, given)
        return [
            Trial(configuration=configuration, seed=seed, fold=fold)
            for seed in dict.fromkeys(seed for one in configurations for seed in seeds_of[one])
            for fold in range(self.folds)
            for configuration in configurations
            if seed in seeds_of[configuration]
        ]

    def needs_pair(self, block: str) -> bool:
        """Return whether the block can only run once a pair of K is known."""
        return self.configurations(block, ANY_PAIR) != self.configurations(block, _OTHER_PAIR)

    def check_names(self) -> None:
        """Raise InputError if two different configurations have one name, because tables could not separate them."""
        known = {name: ("the profile", self.configuration({"profile": name}, ANY_PAIR)) for name in PROFILES}
        for block_name, block in self.blocks.items():
            for name, changes in block.configurations.items():
                made = self.configuration(changes, ANY_PAIR, name=name)
                owner, other = known.setdefault(name, (f"block {block_name!r}", made))
                if made != other:
                    raise InputError(
                        f"block {block_name!r}: its configuration {name!r} differs from the one of {owner} with the "
                        "same name; give it another name"
                    )

    @property
    def choosing(self) -> str | None:
        """The block that chooses the pair at which the others run. `None` if there is no such block."""
        return next((name for name, block in self.blocks.items() if block.chooses), None)

    @property
    def factors(self) -> tuple[str, ...]:
        """The settings that any block varies, without those that are recorded for every trial."""
        names = dict.fromkeys(name for block in self.blocks.values() for name in block.varied)
        return tuple(name for name in names if name not in {"profile", "system", *_UNSHARED})

    def values(self, name: str) -> tuple[Any, ...]:
        """Return the values that the choosing block gives a factor. Empty if no block chooses."""
        factors = self.blocks[self.choosing].factors if self.choosing else ()
        return next((factor.values for factor in factors if factor.name == name), ())

    def shared(self) -> dict[str, Any]:
        """Return the settings that all trials share, for the record. Properties of the features are not settings."""
        base = self.base
        shared = {"profile": base.profile, "system": name_of(base.system), **base.settings()}
        return {name: value for name, value in shared.items() if name not in _UNSHARED}


TRAINING = {f.name for f in fields(TrainingConfig)} | {f.name for f in fields(GraphConfig)}
"""Names of the settings of the training and the graph. All other settings belong to a system."""


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Return the distinct trials, in the order in which they first appear."""
    return list(dict.fromkeys(trials))


def with_values(block: Block, values: Mapping[str, tuple[Value, ...]]) -> Block:
    """Return a block with other values for some of its factors."""
    if not any(factor.name in values for factor in block.factors):
        return block
    factors = [Factor(f.name, values[f.name]) if f.name in values else f for f in block.factors]
    return replace(block, factors=tuple(factors))

"""The experiment: blocks of configurations, and the trials that they come to.

A block is plain Python that gives a list of configurations; reading it is reading the experiment. A trial is a
configuration with a seed on a fold, and has a signature: asking for it twice, in whatever block, trains it once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

from cemobam_core.config import (
    FUSIONS,
    METHOD_VERSION,
    MODULES,
    PROFILES,
    CemoBAMConfig,
    GraphConfig,
    Profile,
    TrainingConfig,
)


@dataclass(frozen=True, order=True)
class Pair:
    """One pair of K."""

    k_audio: int
    k_text: int

    def __str__(self) -> str:
        """As a user types it: ``8,7``."""
        return f"{self.k_audio},{self.k_text}"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Every setting of one training but its seed.

    Attributes:
        profile: the name of the reading of the method; ``paper+schedule`` is ``paper`` with the other's schedule.
        pair: K_audio and K_text of the graph.
        graph: its other choices.
        model: sizes and choices of the model, the fusion and the ablation among them.
        training: how it is trained.
    """

    profile: str
    pair: Pair
    graph: GraphConfig
    model: CemoBAMConfig
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed on one fold: the unit that is run, recorded, resumed."""

    configuration: Configuration
    seed: int
    fold: int

    @property
    def parameters(self) -> dict[str, Any]:
        """What tells this trial from the others of its study, by the names a researcher knows."""
        configuration = self.configuration
        return {
            **asdict(configuration.pair),
            "fusion": configuration.model.fusion,
            "modules": configuration.model.modules,
            "fold": self.fold,
            "seed": self.seed,
        }

    def signature(self, fingerprint: str) -> str:
        """16 hexadecimal digits for everything that may change the result.

        Args:
            fingerprint: of the features in their splits.
        """
        return _signature(self, fingerprint)


@cache  # asked for many times, and worth a tenth of a millisecond
def _signature(trial: Trial, fingerprint: str) -> str:
    everything = {**asdict(trial), "features": fingerprint, "method": METHOD_VERSION}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a user asks for: the K grid, the settings that all trials share, seeds and folds.

    Attributes:
        readings: the configuration that every profile comes to with the user's settings; their pairs are not used.
        profile: which of them the blocks vary.
        k_audio: the grid's K_audio.
        k_text: the grid's K_text.
        seeds: one trial of each configuration for each.
        folds: how many assignments to train, val and test the features come in.
    """

    readings: dict[str, Configuration]
    profile: str
    k_audio: tuple[int, ...]
    k_text: tuple[int, ...]
    seeds: tuple[int, ...]
    folds: int = 1

    @property
    def base(self) -> Configuration:
        """The configuration that the blocks vary."""
        return self.readings[self.profile]

    def trials(self, block: str, at: Pair) -> list[Trial]:
        """The trials of a block, seed by seed, so that an early stop leaves all configurations with few seeds.

        Args:
            block: a name in :data:`BLOCKS`.
            at: the pair for blocks that vary something else than K.
        """
        configurations = BLOCKS[block](self, at)
        return [
            Trial(configuration=configuration, seed=seed, fold=fold)
            for seed in self.seeds
            for fold in range(self.folds)
            for configuration in configurations
        ]

    def settings(self) -> dict[str, Any]:
        """What all trials share, for the record; the sizes that features bring are not a setting."""
        base = self.base
        shared = {"profile": base.profile, **asdict(base.graph), **asdict(base.model), **asdict(base.training)}
        apart = ("fusion", "modules", "num_classes", "audio_dim", "text_dim")
        return {name: value for name, value in shared.items() if name not in apart}


def grid(design: Design, _at: Pair) -> list[Configuration]:
    """Fig. 2: every pair of K."""
    return [replace(design.base, pair=Pair(k_audio, k_text)) for k_audio in design.k_audio for k_text in design.k_text]


def fusion(design: Design, at: Pair) -> list[Configuration]:
    """Table I: every fusion strategy, at one pair."""
    return [_variant(design, at, fusion=strategy) for strategy in FUSIONS]


def ablation(design: Design, at: Pair) -> list[Configuration]:
    """Table II: the full model, without xCBAM, without CH-GAT, at one pair."""
    return [_variant(design, at, modules=modules) for modules in MODULES]


GAPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "graph direction": ("graph", ("gather_from",)),
    "last GAT layer": ("model", ("gat_last",)),
    "GAT batch norm": ("model", ("gat_norm",)),
    "first GAT dropout": ("model", ("gat_first_dropout",)),
    "stream output": ("model", ("stream_output",)),
    "channel gate": ("model", ("channel_gate",)),
    "spatial axis": ("model", ("spatial_axis",)),
    "training mode": ("training", ("train_mode",)),
    "schedule": ("training", ("schedule", "lr_gamma", "lr_patience")),
    "evaluation statistics": ("training", ("batch_norm",)),
}
"""Where the paper's text and the released code differ in what a trial computes: the part and its fields."""


def gaps(design: Design, at: Pair) -> list[Configuration]:
    """What each gap costs: either profile as it is, and with one choice of the other's."""
    paper, released = (replace(design.readings[name], pair=at) for name in ("paper", "released"))
    return [
        *(paper, released),
        *(switched(paper, released, gap) for gap in GAPS),
        *(switched(released, paper, gap) for gap in GAPS),
    ]


def switched(base: Configuration, other: Configuration, gap: str) -> Configuration:
    """``base`` with the ``other``'s choice in one of :data:`GAPS`."""
    part, names = GAPS[gap]
    choices = {name: getattr(getattr(other, part), name) for name in names}
    parts: dict[str, Any] = {part: replace(getattr(base, part), **choices)}
    return replace(base, profile=f"{base.profile}+{gap}", **parts)


BLOCKS: dict[str, Callable[[Design, Pair], list[Configuration]]] = {
    "grid": grid,
    "fusion": fusion,
    "ablation": ablation,
    "gaps": gaps,
}

DEFAULT_BLOCKS = ("grid", "fusion", "ablation")
"""The paper's own study."""


def _variant(design: Design, at: Pair, **changes: Any) -> Configuration:
    return replace(design.base, pair=at, model=replace(design.base.model, **changes))


def base_configuration(profile: Profile, **settings: Any) -> Configuration:
    """A profile with some settings replaced.

    Args:
        profile: the reading of the method to start from.
        settings: fields of :class:`CemoBAMConfig` and :class:`TrainingConfig`.

    Raises:
        InputError: a value out of range.
    """
    names = {f.name for f in fields(CemoBAMConfig)}
    model = {name: value for name, value in settings.items() if name in names}
    training = {name: value for name, value in settings.items() if name not in names}
    return Configuration(
        profile=profile.name,
        pair=Pair(1, 1),
        graph=profile.graph,
        model=replace(profile.model, **model),
        training=replace(profile.training, **training),
    )


def readings(**settings: Any) -> dict[str, Configuration]:
    """Every profile with the same settings replaced.

    Raises:
        InputError: a value out of range.
    """
    return {name: base_configuration(profile, **settings) for name, profile in PROFILES.items()}


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Each trial once, in the order of first mention."""
    return list(dict.fromkeys(trials))


def largest_k(design: Design, at: Sequence[Pair]) -> int:
    """The largest K that any trial of the design needs ranked."""
    pairs = [k for pair in at for k in (pair.k_audio, pair.k_text)]
    return max((*design.k_audio, *design.k_text, *pairs))

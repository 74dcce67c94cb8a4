"""Tuning with one budget: the configurations of each system that are tried before validation chooses one.

Every system tries the same number of configurations. Otherwise a comparison would show which system was tuned longer.
The first configuration is the system's defaults. Optuna draws the others, and they depend only on the configurations
that were tried before.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cemobam_core.systems import NeuralSystem, System, name_of
from cemobam_core.systems.search import GRAPH, TRAINING, Between, OneOf, Space
from study.design.block import Block, Changes

Search = Literal["sobol", "tpe"]

TUNED = "tuned"
"""Name of the block that compares the configurations that validation chose."""

DEFAULTS = "systems"
"""Name of the block that compares the systems with their defaults."""

_FIRST_ROUND, _ROUND = 10, 5
"""Number of configurations in TPE's first round, which come from a Sobol sequence, and in each later round."""

_DIGITS = 2
"""Significant digits of a drawn number. More digits would make no measurable difference."""

Tried = tuple[Changes, float | None]
"""The changes of a configuration and its validation score. The score is `None` if the configuration failed."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The systems to tune, the budget and the search method.

    Attributes:
        systems: Classes of the systems, by name.
        budget: Number of configurations that each system tries, including its defaults.
        search: ``sobol``, a quasi-random list that is known beforehand (Sobol, 1967; scrambled), or ``tpe``, rounds
            that each depend on the rounds before (Bergstra et al., 2011).
        pinned: Settings that the user gave. They are not tuned.
    """

    systems: Mapping[str, type[System]]
    budget: int
    search: Search = "sobol"
    pinned: frozenset[str] = frozenset()

    def space(self, system: str) -> dict[str, Any]:
        """Return the search space of a system.

        That is the space that the system declares. A neural system that declares none is tuned over its training
        settings, and over its graph settings if it uses a graph.
        """
        kind = self.systems[system]
        space: Space = kind.search
        if not space and issubclass(kind, NeuralSystem):
            space = {**TRAINING, **(GRAPH if kind.uses_graph else {})}
        return {name: values for name, values in space.items() if name not in self.pinned}

    def block(self, system: str, tried: Sequence[Tried] = ()) -> Block:
        """Return the block of those configurations of a system that are known so far.

        Args:
            system: One of :attr:`systems`.
            tried: Configurations of the finished rounds of ``tpe``. Empty means the first round.
        """
        space, name = self.space(system), name_of(self.systems[system])
        changes = self._changes(system, space, tried)
        drawn = {"sobol": "Sobol", "tpe": "TPE"}[self.search]
        named = {f"{name}, {f'{drawn} {i}' if i else 'defaults'}": one for i, one in enumerate(changes)}
        return Block(
            block_name(self.search, name),
            question=f"Which of {len(named)} configurations of {name} is best on validation?",
            title=f"Tuning {name}",
            configurations=named,
            tunes=name,
            search=space,
        )

    def _changes(self, system: str, space: Space, tried: Sequence[Tried]) -> list[Changes]:
        defaults: Changes = {"system": system}
        if not space:
            return [defaults]
        if tried:
            more = min(_ROUND, self.budget - len(tried))
            drawn = [*(one for one, _ in tried[1:]), *({**defaults, **x} for x in _by_tpe(space, tried, more))]
        else:
            first = self.budget if self.search == "sobol" else min(self.budget, _FIRST_ROUND)
            drawn = [{**defaults, **one} for one in _by_sobol(space, first - 1)]
        return [defaults, *drawn]

    def goes_on(self, system: str, tried: int) -> bool:
        """Return whether another round follows after ``tried`` configurations of a system."""
        return self.search == "tpe" and bool(self.space(system)) and tried < self.budget

    def left(self, system: str, tried: int) -> int:
        """Return how many configurations a system will still try after the first ``tried``."""
        return self.budget - tried if self.goes_on(system, tried) else 0

    @property
    def k_max(self) -> int:
        """The largest K that is tried. 0 if no system tunes the K of its graph."""
        spaces = [self.space(system) for system, kind in self.systems.items() if kind.uses_graph]
        ranges = [space[name] for space in spaces for name in GRAPH if name in space]
        return max((int(one.high if isinstance(one, Between) else max(one.values)) for one in ranges), default=0)


def block_name(search: Search, system: str) -> str:
    """Return the name of the block that tunes a system, given the system's name in trials."""
    return re.sub(r"\W+", "-", f"{'tpe' if search == 'tpe' else 'tune'}-{system.replace('.py:', '-')}")[:41]


def tuned_block(chosen: Mapping[str, Changes], *, budget: int) -> Block:
    """Return the block that compares the configurations that validation chose.

    Args:
        chosen: Changes of the chosen configuration, by the name of the system.
        budget: Number of configurations that each system was tuned over.
    """
    return Block(
        TUNED,
        question=f"Which system is best, each tuned over {budget} configurations?",
        title=f"Systems, each tuned over {budget} configurations",
        configurations=chosen,
        reference="cemobam" if "cemobam" in chosen else None,
        fresh=True,
    )


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a search space as Optuna distributions. Consecutive whole numbers keep their order."""
    return {name: _distribution(values) for name, values in space.items()}


def _distribution(values: Between | OneOf) -> BaseDistribution:
    if isinstance(values, Between):
        return FloatDistribution(values.low, values.high, log=values.log)
    whole = [value for value in values.values if type(value) is int]
    if whole and whole == list(values.values) == list(range(whole[0], whole[-1] + 1)):
        return IntDistribution(whole[0], whole[-1])
    return CategoricalDistribution(values.values)


def _by_sobol(space: Space, n: int) -> list[Changes]:
    """Return the first ``n`` configurations of a scrambled Sobol sequence, without duplicates.

    The configurations for a smaller ``n`` are the first of these. In a small space the sequence repeats
    configurations, and each is returned once.
    """
    with _without_warnings():
        study = _study(optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=0))
    # The sampler learns the settings from its first trial.
    first = {name: one.low if isinstance(one, Between) else one.values[0] for name, one in space.items()}
    study.add_trial(optuna.trial.create_trial(params=first, distributions=distributions(space), value=0.0))
    return list({tuple(one.items()): one for one in (_asked(study, space) for _ in range(n))}.values())


def _by_tpe(space: Space, tried: Sequence[Tried], n: int) -> list[Changes]:
    """Return the ``n`` configurations that a Tree-structured Parzen Estimator tries next after those in ``tried``."""
    with _without_warnings():  # without constant_liar, the configurations of one round are very similar
        sampler = optuna.samplers.TPESampler(seed=len(tried), n_startup_trials=0, constant_liar=True)
    study, known = _study(sampler), distributions(space)
    for changes, score in tried:
        params = {name: changes[name] for name in known if name in changes}
        if len(params) < len(known):  # the defaults, which need not lie in the space
            continue
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=score, state=state))
    return [_asked(study, space) for _ in range(n)]


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Optuna's warnings about experimental samplers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(sampler=sampler, direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)


def _asked(study: optuna.Study, space: Space) -> Changes:
    drawn = study.ask(distributions(space)).params
    return {name: _rounded(drawn[name], values) for name, values in space.items()}


def _rounded(value: Any, values: Between | OneOf) -> Any:
    """Return a drawn number rounded to few digits, within its range."""
    if isinstance(values, OneOf):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), values.low), values.high)

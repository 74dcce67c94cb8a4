"""Tuning with one budget: which configurations of each system are tried before validation chooses one.

Every system may try as many configurations as any other, or a comparison says who was tuned longer. The first is the
system's own defaults; the others are drawn by Optuna, and depend on nothing but what was tried before them.
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
"""The block that compares the configurations which validation chose."""

DEFAULTS = "systems"
"""The block that compares the systems as they come."""

_FIRST_ROUND, _ROUND = 10, 5
"""Configurations of TPE's first round, which are those of a Sobol sequence, and of each round after it."""

_DIGITS = 2
"""Significant digits of a number that is drawn: more could not be told apart."""

Tried = tuple[Changes, float | None]
"""What a configuration changed, and its validation score; None: it failed."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tuned, and how.

    Attributes:
        systems: by name, their classes.
        budget: how many configurations each may try, its defaults among them.
        search: ``sobol``, a quasi-random list that is known beforehand (Sobol, 1967; scrambled), or ``tpe``, rounds
            that each depend on the rounds before (Bergstra et al., 2011).
        pinned: settings that the user gave, which are not tuned.
    """

    systems: Mapping[str, type[System]]
    budget: int
    search: Search = "sobol"
    pinned: frozenset[str] = frozenset()

    def space(self, system: str) -> dict[str, Any]:
        """Return what is tuned of a system: what it declares; of a neural one that declares nothing, its training."""
        kind = self.systems[system]
        space: Space = kind.search
        if not space and issubclass(kind, NeuralSystem):
            space = {**TRAINING, **(GRAPH if kind.uses_graph else {})}
        return {name: of for name, of in space.items() if name not in self.pinned}

    def block(self, system: str, tried: Sequence[Tried] = ()) -> Block:
        """Return the block of a system's configurations, as far as they are known.

        Args:
            system: one of :attr:`systems`.
            tried: of ``tpe``, the rounds that are over; empty: the first round.
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
        """Return whether a system that has tried so many configurations has another round."""
        return self.search == "tpe" and bool(self.space(system)) and tried < self.budget

    def left(self, system: str, tried: int) -> int:
        """Return how many configurations a system that has tried so many will still try."""
        return self.budget - tried if self.goes_on(system, tried) else 0

    @property
    def k_max(self) -> int:
        """The largest K that is tried; 0: no system with a graph tunes it."""
        spaces = [self.space(system) for system, kind in self.systems.items() if kind.uses_graph]
        wanted = [space[name] for space in spaces for name in GRAPH if name in space]
        return max((int(of.high if isinstance(of, Between) else max(of.values)) for of in wanted), default=0)


def block_name(search: Search, system: str) -> str:
    """Return the name of the block that tunes a system, given the name that trials have of it."""
    return re.sub(r"\W+", "-", f"{'tpe' if search == 'tpe' else 'tune'}-{system.replace('.py:', '-')}")[:41]


def tuned_block(chosen: Mapping[str, Changes], *, budget: int) -> Block:
    """Return the block that compares what validation chose.

    Args:
        chosen: by the name of the system, what its chosen configuration changes.
        budget: over how many configurations each was tuned.
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
    """Return a search space as Optuna has it; whole numbers without a gap keep their order."""
    return {name: _distribution(of) for name, of in space.items()}


def _distribution(of: Between | OneOf) -> BaseDistribution:
    if isinstance(of, Between):
        return FloatDistribution(of.low, of.high, log=of.log)
    whole = [value for value in of.values if type(value) is int]
    if whole and whole == list(of.values) == list(range(whole[0], whole[-1] + 1)):
        return IntDistribution(whole[0], whole[-1])
    return CategoricalDistribution(of.values)


def _by_sobol(space: Space, n: int) -> list[Changes]:
    """Return the first configurations of a scrambled Sobol sequence; those of a smaller ``n`` are the first of these.

    A small space gives the same configuration more than once: each is returned once.
    """
    with _without_warnings():
        study = _study(optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=0))
    of = distributions(space)
    # From its first trial the sampler learns which settings there are.
    first = {name: one.low if isinstance(one, Between) else one.values[0] for name, one in space.items()}
    study.add_trial(optuna.trial.create_trial(params=first, distributions=of, value=0.0))
    return list({tuple(one.items()): one for one in (_asked(study, space) for _ in range(n))}.values())


def _by_tpe(space: Space, tried: Sequence[Tried], n: int) -> list[Changes]:
    """Return the configurations that a Tree-structured Parzen Estimator tries next, given all that were tried."""
    with _without_warnings():  # without the liar, a round's configurations are much alike
        sampler = optuna.samplers.TPESampler(seed=len(tried), n_startup_trials=0, constant_liar=True)
    study, of = _study(sampler), distributions(space)
    for changes, score in tried:
        params = {name: changes[name] for name in of if name in changes}
        if len(params) < len(of):  # the defaults, which the space need not have
            continue
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=params, distributions=of, value=score, state=state))
    return [_asked(study, space) for _ in range(n)]


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence what Optuna says of samplers that it calls experimental."""
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
    return {name: _rounded(drawn[name], of) for name, of in space.items()}


def _rounded(value: Any, of: Any) -> Any:
    """Return a drawn number with few digits, within its ends."""
    return min(max(float(f"{value:.{_DIGITS}g}"), of.low), of.high) if isinstance(of, Between) else value

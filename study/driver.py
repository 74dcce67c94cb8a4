"""Running a study: what is designed, less what the ledger holds, through an engine, into the ledger."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cemobam_core.config import Metric, Split
from study.design import BLOCKS, Design, Pair, Trial, distinct
from study.engines import Engine
from study.findings.aggregate import aggregate_grid, chosen_pair, trials_frame
from study.ledger.leases import Leases
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts

_ANY_PAIR = Pair(1, 1)
"""For the grid, which varies the pair itself."""

_POLL_S = 1.0
"""Seconds between looks at what other runs have done, when they have all that is left."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a user asked for.

    Attributes:
        design: the configurations to draw on.
        blocks: the blocks to run.
        at: the pair for the blocks after the grid; None: the one that the grid chooses.
        select_by: the metric that chooses.
        select_on: the split that chooses.
    """

    design: Design
    blocks: tuple[str, ...]
    at: Pair | None
    select_by: Metric
    select_on: Split


class StudyRun:
    """A plan against a ledger: what is asked for, what is known, what is missing.

    Args:
        plan: what was asked for.
        ledger: what has been run.
        facts: what the ledger keeps of the study.
    """

    def __init__(self, plan: Plan, ledger: Ledger, facts: StudyFacts) -> None:
        self.plan = plan
        self.facts = facts
        self.ledger = ledger
        self._recorded: dict[str, dict[str, Outcome]] = {block: {} for block in BLOCKS}
        self._known: dict[str, Outcome] = {}
        self._pair: tuple[Pair | None] | None = None  # as it was last worked out; None: something was learnt since
        self._awaited: dict[str, Trial] = {}  # what this run has asked for and not heard of yet
        self._told: set[str] = set()  # what this run knew as done when it began, or has been told of since
        self._on_outcome: Callable[[Trial, Outcome], None] = lambda *_: None
        self.listen()

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """All that is known, by signature; of a trial that failed in one block and is done in another, the latter."""
        return self._known

    def listen(self) -> None:
        """Learn what has been recorded since, by this run or another."""
        # A trial that blocks share is trained once, whichever block it was trained for: all are looked into.
        for block in BLOCKS:
            self._hear(block, self.ledger.news(block))

    def _hear(self, block: str, news: Mapping[str, Outcome]) -> None:
        for signature, outcome in news.items():
            for known in (self._recorded[block], self._known):
                if outcome.status == "done" or signature not in known or known[signature].status == "failed":
                    known[signature] = outcome
            self._pair = None
            if trial := self._awaited.pop(signature, None):
                self._tell(trial, outcome)

    def _tell(self, trial: Trial, outcome: Outcome) -> None:
        self._told.add(self._signature(trial))
        self._on_outcome(trial, outcome)

    def pair(self) -> Pair | None:
        """The pair for the blocks after the grid; None: the grid is not complete, or no pair has all its seeds."""
        if self._pair is None:
            self._pair = (self.plan.at or self._chosen(),)
        return self._pair[0]

    def _chosen(self) -> Pair | None:
        trials = self.plan.design.trials("grid", _ANY_PAIR)
        frame = trials_frame(trials, self.outcomes, self.facts)
        if len(frame) < len(trials):
            return None
        return chosen_pair(
            aggregate_grid(frame, self.facts.folds),
            select_by=self.plan.select_by,
            select_on=self.plan.select_on,
            seeds=len(self.plan.design.seeds),
        )

    def trials(self, block: str) -> list[Trial]:
        """The trials of a block; none while the pair that it needs is not known."""
        pair = _ANY_PAIR if block == "grid" else self.pair()
        return self.plan.design.trials(block, pair) if pair else []

    def concerns(self, block: str) -> bool:
        """Whether the block is asked for now or has been run before."""
        return block in self.plan.blocks or bool(self._recorded[block])

    def known(self, trials: Iterable[Trial]) -> dict[Trial, Outcome]:
        """Those that have an outcome, with it."""
        outcomes = self.outcomes
        signatures = {trial: self._signature(trial) for trial in trials}
        return {trial: outcomes[signature] for trial, signature in signatures.items() if signature in outcomes}

    def knows_any(self) -> bool:
        """Whether the ledger has any trial of the design, whatever its block."""
        return bool(self.known(trial for block in BLOCKS for trial in self.trials(block)))

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those that are not done."""
        trials = list(trials)
        known = self.known(trials)
        return [trial for trial in trials if trial not in known or known[trial].status == "failed"]

    def counts(self) -> tuple[int, int]:
        """How many trials are asked for and how many of them are done.

        Before the grid has chosen a pair, the blocks that wait for it count as if it were the grid's first.
        """
        design = self.plan.design
        pair = self.pair() or Pair(design.k_audio[0], design.k_text[0])
        asked = distinct(trial for block in self.plan.blocks for trial in design.trials(block, pair))
        known = distinct(trial for block in self.plan.blocks for trial in self.trials(block))
        return len(asked), len(known) - len(self.missing(known))

    def run(self, engine: Engine, on_outcome: Callable[[Trial, Outcome], None], *, log: str = "") -> None:
        """Run what is missing: the grid, then the blocks at the pair that it chose.

        Where the storage is shared, so is the work: other runs take what this one has not, and what they have when
        nothing else is left is waited for, and taken over if they die.

        Args:
            engine: executes trials.
            on_outcome: called after a trial has been recorded, by this run or by another.
            log: the file that has what is logged, for failed trials to name.

        Raises:
            LedgerFailed: the storage refused to be written.
        """
        self._on_outcome = on_outcome
        self._told = {signature for signature, outcome in self.outcomes.items() if outcome.status == "done"}
        with ExitStack() as stack:
            leases = stack.enter_context(self.ledger.leases()) if self.ledger.shared else None
            for stage in ("grid",), tuple(block for block in self.plan.blocks if block != "grid"):
                blocks = {block: dict.fromkeys(self.trials(block)) for block in stage if block in self.plan.blocks}
                self.share()
                asked = distinct(trial for trials in blocks.values() for trial in trials)
                self._awaited = {self._signature(trial): trial for trial in self.missing(asked)}
                for trial, outcome in self.known(asked).items():  # by a run that is a stage ahead
                    if self._signature(trial) not in self._told | self._awaited.keys():
                        self._tell(trial, outcome)
                while self._awaited:
                    free = self._free(leases)
                    first = next(free, None)
                    if first is None:
                        _log.info("waiting for %d trials that other runs have", len(self._awaited))
                        time.sleep(_POLL_S)
                        self.listen()
                        continue
                    for trial, outcome in engine.run(itertools.chain([first], free)):
                        _log_outcome(trial, self._signature(trial), outcome)
                        outcome = replace(outcome, log=log if outcome.status == "failed" else "")  # noqa: PLW2901
                        for block, trials in blocks.items():
                            if trial in trials:
                                self._record(block, trial, outcome)
                        if leases:
                            leases.give_back([self._signature(trial)])

    def _free(self, leases: Leases | None) -> Iterator[Trial]:
        """What is awaited, one by one, and nobody else has."""
        if leases is None:
            yield from list(self._awaited.values())
            return
        taken: set[str] = set()
        while signatures := leases.take((s for s in self._awaited if s not in taken), 1):
            taken.update(signatures)
            self.listen()  # before we had it, another may have done it
            for signature in signatures:
                if signature in self._awaited:
                    yield self._awaited[signature]
                else:
                    leases.give_back([signature])

    def share(self) -> None:
        """Record in each block what another has done already, so that each can be browsed by itself."""
        done = {signature: o for signature, o in self.outcomes.items() if o.status == "done"}
        for block in self.plan.blocks:
            for trial in self.trials(block):
                signature = self._signature(trial)
                here = self._recorded[block].get(signature)
                if signature in done and (here is None or here.status == "failed"):
                    self._record(block, trial, done[signature])

    def _record(self, block: str, trial: Trial, outcome: Outcome) -> None:
        self._hear(block, self.ledger.record(block, trial, outcome))

    def _signature(self, trial: Trial) -> str:
        return trial.signature(self.facts.fingerprint)


def _log_outcome(trial: Trial, signature: str, outcome: Outcome) -> None:
    told = {
        "signature": signature,
        "profile": trial.configuration.profile,
        **trial.parameters,
        "seconds": outcome.seconds,
        "device": outcome.device,
    }
    if outcome.status == "done":
        _log.info("trial done", extra={**told, "val_wa": outcome.metrics["val_wa"]})
    else:
        _log.error(
            "trial failed: %s", outcome.reason, extra={**told, "reason": outcome.reason, "traceback": outcome.traceback}
        )

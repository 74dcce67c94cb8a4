"""Running a study: what is designed, less what the ledger holds, through an engine, into the ledger."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

from study.design.block import Block
from study.design.configuration import Configuration, Trial
from study.design.design import ANY_PAIR, Design
from study.design.factors import Pair
from study.design.seeds import LOOKS, fresh_seeds, more_seeds
from study.design.tuning import Tuning
from study.engines import Engine
from study.engines.execution import by_stack
from study.findings.aggregate import IDENTITY, PAIR, aggregate, chosen_pair, trials_frame
from study.ledger.leases import Leases
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Metric, Outcome, Split, StudyFacts

_POLL_S = 1.0
"""Seconds between looks at what other runs have done, when they have all that is left."""

_log = logging.getLogger(__name__)


PairFrom = Literal["chosen", "given", "usual"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a user asked for.

    Attributes:
        design: every block that there is, and what trials share.
        blocks: the names of the blocks to run.
        at: the pair for the blocks that need one; None: the one that the choosing block chooses.
        otherwise: the pair where no block to run chooses one, and none was chosen before; None: there is none.
        select_by: the metric that chooses.
        select_on: the split that chooses.
        rope: points within which two configurations count as practically the same.
        until_clear: whether configurations get more seeds until their differences are clear.
        tuning: what is tuned before it is compared; None: nothing is.
    """

    design: Design
    blocks: tuple[str, ...]
    at: Pair | None
    otherwise: Pair | None = None
    select_by: Metric
    select_on: Split
    rope: float = 1.0
    until_clear: bool = False
    tuning: Tuning | None = None


class StudyRun:
    """A plan against a ledger: what is asked for, what is known, what is missing.

    Args:
        plan: what was asked for.
        ledger: what has been run.
        facts: what the ledger keeps of the study.

    Attributes:
        to_come: how many trials will be asked for when those are done that choose what they are.
    """

    def __init__(self, plan: Plan, ledger: Ledger, facts: StudyFacts) -> None:
        self.plan = plan
        self.facts = facts
        self.ledger = ledger
        self._recorded: dict[str, dict[str, Outcome]] = {block: {} for block in plan.design.blocks}
        self._known: dict[str, Outcome] = {}
        self._pair: tuple[Pair | None] | None = None  # as it was last worked out; None: something was learnt since
        self._awaited: dict[str, Trial] = {}  # what this run has asked for and not heard of yet
        self._told: set[str] = set()  # what this run knew as done when it began, or has been told of since
        self._on_outcome: Callable[[Trial, Outcome], None] = lambda *_: None
        self.to_come = 0
        self._looks: dict[tuple[str, Configuration], int] = {}  # how many looks a configuration has gone beyond
        self.listen()

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """All that is known, by signature; of a trial that failed in one block and is done in another, the latter."""
        return self._known

    def listen(self) -> None:
        """Learn what has been recorded since, by this run or another."""
        # A trial that blocks share is trained once, whichever block it was trained for: all are looked into.
        for block in self.plan.design.blocks:
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
        """Return the pair for the blocks that need one; None: what chooses it is not complete, or nothing does."""
        if self._pair is None:
            chooses = self.plan.design.choosing in self.plan.blocks
            self._pair = (self.plan.at or self._chosen() or (None if chooses else self.plan.otherwise),)
        return self._pair[0]

    @property
    def pair_from(self) -> PairFrom:
        """How the pair is come by."""
        if self.plan.at:
            return "given"
        return "chosen" if self._chosen() or self.plan.design.choosing in self.plan.blocks else "usual"

    def _chosen(self) -> Pair | None:
        design = self.plan.design
        if design.choosing is None:
            return None
        trials = design.trials(design.choosing, ANY_PAIR)
        frame = trials_frame(trials, self.outcomes, self.facts)
        if len(frame) < len(trials):
            return None
        return chosen_pair(
            aggregate(frame, PAIR, self.facts.folds),
            select_by=self.plan.select_by,
            select_on=self.plan.select_on,
            seeds=len(self.plan.design.seeds),
        )

    def trials(self, block: str) -> list[Trial]:
        """The trials of a block; none while the pair that it needs is not known."""
        pair = self.pair() if self.plan.design.needs_pair(block) else ANY_PAIR
        return self._trials_at(block, pair) if pair else []

    def planned(self, block: str) -> list[Trial]:
        """The trials of a block; while the pair that it needs is not known, those at the first pair of the grid."""
        return self._trials_at(block, self.pair() or first_pair(self.plan.design))

    def _trials_at(self, block: str, pair: Pair) -> list[Trial]:
        configurations = self.plan.design.configurations(block, pair)
        return self.plan.design.trials(block, pair, {one: self.seeds_of(block, one) for one in configurations})

    def confirms(self, block: str) -> bool:
        """Return whether a block runs with fresh seeds: it is at a pair of K, and this study's grid chooses pairs.

        That holds for a pair that the user gives as well: whoever has seen the grid may have chosen it there. A block
        whose configurations were tuned runs with fresh seeds too, and tuning itself never.
        """
        design = self.plan.design
        if design.blocks[block].fresh or design.blocks[block].tunes:
            return design.blocks[block].fresh
        return design.choosing is not None and self.concerns(design.choosing) and design.needs_pair(block)

    def seeds_of(self, block: str, configuration: Configuration | None = None) -> tuple[int, ...]:
        """Return the seeds of a configuration of a block; of None: those of the configuration with the most."""
        design, confirms = self.plan.design, self.confirms(block)
        if design.blocks[block].tunes:
            return design.seeds[:1]
        if not (self.plan.until_clear and design.blocks[block].compared):
            return design.fresh_seeds if confirms else design.seeds
        of = [n for (name, one), n in self._looks.items() if name == block and configuration in (None, one)]
        n = LOOKS[max(of, default=0)]
        return fresh_seeds(design.seeds, n) if confirms else more_seeds(design.seeds, n)

    def look_at(self, block: str, configuration: Configuration) -> int:
        """Return how many looks have given a configuration of a block more seeds."""
        return self._looks.get((block, configuration), 0)

    def forget_looks(self, block: str, before: Mapping[Configuration, int]) -> None:
        """Take looks at some configurations of a block back, to as many as they had before."""
        self._looks.update({(block, one): n for one, n in before.items()})

    def look_again(self, block: str, configurations: Iterable[Configuration]) -> None:
        """Give some configurations of a block the seeds of the next look."""
        for one in configurations:
            self._looks[block, one] = self.look_at(block, one) + 1

    def put(self, block: Block) -> None:
        """Ask for one block more, or for another one of its name, which could not be known before."""
        plan = self.plan
        names = plan.blocks if block.name in plan.blocks else (*plan.blocks, block.name)
        self.plan = replace(plan, design=plan.design.having(block), blocks=names)
        self._recorded.setdefault(block.name, {})
        self._pair = None
        self._hear(block.name, self.ledger.news(block.name))

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
        return bool(self.known(trial for block in self.plan.design.blocks for trial in self.trials(block)))

    def _distinct(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return each trial once: what blocks share may have another name in each of them."""
        by_signature: dict[str, Trial] = {}
        for trial in trials:
            by_signature.setdefault(self._signature(trial), trial)
        return list(by_signature.values())

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those that are not done."""
        trials = list(trials)
        known = self.known(trials)
        return [trial for trial in trials if trial not in known or known[trial].status == "failed"]

    def counts(self) -> tuple[int, int]:
        """How many trials are asked for and how many of them are done.

        Before a pair is chosen, the blocks that wait for it count as if it were the first; before systems are tuned,
        those that will be asked for count too.
        """
        asked = self._distinct(trial for block in self.plan.blocks for trial in self.planned(block))
        known = self._distinct(trial for block in self.plan.blocks for trial in self.trials(block))
        return len(asked) + self.to_come, len(known) - len(self.missing(known))

    def run(self, engine: Engine, on_outcome: Callable[[Trial, Outcome], None], *, log: str = "") -> None:
        """Run what is missing: the blocks that need no pair, then those at the pair that was chosen.

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
            waiting = [block for block in self.plan.blocks if self.plan.design.needs_pair(block)]
            for stage in [block for block in self.plan.blocks if block not in waiting], waiting:
                blocks = {block: {self._signature(trial): trial for trial in self.trials(block)} for block in stage}
                self.share()
                asked = self._distinct(trial for trials in blocks.values() for trial in trials.values())
                missing = self.missing(asked)
                if engine.stacks:
                    missing = by_stack(missing)
                self._awaited = {self._signature(trial): trial for trial in missing}
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
                        self._log(trial, outcome)
                        outcome = replace(outcome, log=log if outcome.status == "failed" else "")  # noqa: PLW2901
                        signature = self._signature(trial)
                        for block, trials in blocks.items():
                            if signature in trials:
                                self._record(block, trials[signature], outcome)
                        if leases:
                            leases.give_back([signature])

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
        self._hear(block, self.ledger.record(self.plan.design.blocks[block], trial, outcome))

    def _signature(self, trial: Trial) -> str:
        return trial.signature(self.facts.fingerprint)

    def told(self, trial: Trial) -> dict[str, Any]:
        """Return what tells a trial from the others of the study."""
        return trial.parameters((*IDENTITY, *self.plan.design.factors))

    def _log(self, trial: Trial, outcome: Outcome) -> None:
        about = {
            "signature": self._signature(trial),
            **self.told(trial),
            "seconds": outcome.seconds,
            "device": outcome.device,
        }
        if outcome.status == "done":
            _log.info("trial done", extra={**about, "val_wa": outcome.metrics["val_wa"]})
        else:
            failed = {"reason": outcome.reason, "traceback": outcome.traceback}
            _log.error("trial failed: %s", outcome.reason, extra={**about, **failed})


def first_pair(design: Design) -> Pair:
    """Return the first pair that the choosing block tries, for counting what waits for its choice."""
    if design.choosing is None:
        return ANY_PAIR
    return next((one.pair for one in design.configurations(design.choosing, ANY_PAIR) if one.pair), ANY_PAIR)

"""The run of a study: an engine runs the trials of the design that the ledger does not hold yet.

Each outcome goes into the ledger as soon as it is there.
"""

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
from study.ledger.storages import LedgerFailed

_POLL_S = 1.0
"""Seconds between two reads of the ledger while other runs train all the trials that are left."""

_REST_S = 10.0
"""Seconds of such waiting after which the engine rests. Its next start may take as long."""

_log = logging.getLogger(__name__)


PairFrom = Literal["chosen", "given", "usual"]
"""The source of a pair of K: a block's choice, the user, or the value that is used if there is neither."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The study that a user asked for.

    Attributes:
        design: All known blocks, and the settings that trials share.
        blocks: Names of the blocks to run.
        at: Pair of K for the blocks that need one. `None` means the pair that the choosing block chooses.
        otherwise: Pair of K if no block to run chooses one and none was chosen before. `None` means that there is no
            such pair.
        select_by: Metric that chooses.
        select_on: Split that chooses.
        rope: Largest difference, in points, at which two configurations count as practically the same.
        until_clear: Whether configurations get more seeds until their differences are clear.
        tuning: The tuning that comes before the comparison. `None` means no tuning.
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
    """A plan and its ledger: the trials that are asked for, those that are known and those that are missing.

    Args:
        plan: The study that the user asked for.
        ledger: The ledger of the trials that have been run.
        facts: The facts that the ledger keeps about the study.

    Attributes:
        to_come: Number of trials that will be asked for later, once the trials that choose their configurations are
            done.
        failure: Why the ledger cannot be used any more. `None` while it can.
        unrecorded: Number of finished trials that the ledger did not take.
    """

    def __init__(self, plan: Plan, ledger: Ledger, facts: StudyFacts) -> None:
        self.plan = plan
        self.facts = facts
        self.ledger = ledger
        self._recorded: dict[str, dict[str, Outcome]] = {block: {} for block in plan.design.blocks}
        self._known: dict[str, Outcome] = {}
        self._pair: tuple[Pair | None] | None = None  # cached pair, or None if an outcome has arrived since
        self._awaited: dict[str, Trial] = {}  # trials that this run asked for and that have no outcome yet
        self._reported: set[str] = set()  # signatures done before this run began, or passed to on_outcome since
        self._on_outcome: Callable[[Trial, Outcome], None] = lambda *_: None
        self._on_failure: Callable[[LedgerFailed], None] = lambda _: None
        self.to_come = 0
        self.failure: LedgerFailed | None = None
        self.unrecorded = 0
        self._looks: dict[tuple[str, Configuration], int] = {}  # looks after which a configuration got more seeds
        self.listen()

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """All known outcomes by signature. If a trial failed in one block and is done in another, it is done."""
        return self._known

    def keep_recall(self, recall: Mapping[str, float]) -> None:
        """Keep the recall of an approximate index in the ledger, for the report.

        Args:
            recall: Recall by modality and K. Empty if all rankings of this run are exact.
        """
        if recall:
            self.facts = replace(self.facts, recall={**self.facts.recall, **recall})
            self.ledger.keep_recall(self.facts.recall)

    def listen(self) -> None:
        """Read the outcomes that this run or another has recorded since the last call."""
        # Blocks share trials, and each is trained once, for any of them. So all blocks are read.
        for block in self.plan.design.blocks:
            self._absorb(block, self.ledger.new_outcomes(block))

    def _absorb(self, block: str, new_outcomes: Mapping[str, Outcome]) -> None:
        for signature, outcome in new_outcomes.items():
            for known in (self._recorded[block], self._known):
                if outcome.status == "done" or signature not in known or known[signature].status == "failed":
                    known[signature] = outcome
            self._pair = None
            if trial := self._awaited.pop(signature, None):
                self._report(trial, outcome)

    def _report(self, trial: Trial, outcome: Outcome) -> None:
        self._reported.add(self._signature(trial))
        self._on_outcome(trial, outcome)

    def pair(self) -> Pair | None:
        """Return the pair for the blocks that need one.

        It is `None` while the choosing block is not complete, and if there is no such block and no other pair.
        """
        if self._pair is None:
            chooses = self.plan.design.choosing in self.plan.blocks
            self._pair = (self.plan.at or self._chosen() or (None if chooses else self.plan.otherwise),)
        return self._pair[0]

    @property
    def pair_from(self) -> PairFrom:
        """The source of the pair: the user, a block's choice, or the value that is used if there is neither."""
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
        """Return the trials of a block. Empty while the pair that it needs is not known."""
        pair = self.pair() if self.plan.design.needs_pair(block) else ANY_PAIR
        return self._trials_at(block, pair) if pair else []

    def planned(self, block: str) -> list[Trial]:
        """Return the trials of a block. While the pair that it needs is not known, the grid's first pair stands in."""
        return self._trials_at(block, self.pair() or first_pair(self.plan.design))

    def _trials_at(self, block: str, pair: Pair) -> list[Trial]:
        configurations = self.plan.design.configurations(block, pair)
        return self.plan.design.trials(block, pair, {one: self.seeds_of(block, one) for one in configurations})

    def confirms(self, block: str) -> bool:
        """Return whether a block runs with fresh seeds.

        It does if it runs at a pair of K and this study has a grid that chooses pairs. This also holds for a pair that
        the user gives, because a user who has seen the grid may have chosen the pair there. A block of tuned
        configurations runs with fresh seeds too, and a block that tunes never does.
        """
        design = self.plan.design
        if design.blocks[block].fresh or design.blocks[block].tunes:
            return design.blocks[block].fresh
        return design.choosing is not None and self.concerns(design.choosing) and design.needs_pair(block)

    def seeds_of(self, block: str, configuration: Configuration | None = None) -> tuple[int, ...]:
        """Return the seeds of a configuration of a block.

        `None` stands for the configuration with the most seeds.
        """
        design, confirms = self.plan.design, self.confirms(block)
        if design.blocks[block].tunes:
            return design.seeds[:1]
        if not (self.plan.until_clear and design.blocks[block].compared):
            return design.fresh_seeds if confirms else design.seeds
        looks = [n for (name, one), n in self._looks.items() if name == block and configuration in (None, one)]
        n = LOOKS[max(looks, default=0)]
        return fresh_seeds(design.seeds, n) if confirms else more_seeds(design.seeds, n)

    def look_at(self, block: str, configuration: Configuration) -> int:
        """Return the number of looks after which a configuration of a block got more seeds."""
        return self._looks.get((block, configuration), 0)

    def forget_looks(self, block: str, before: Mapping[Configuration, int]) -> None:
        """Reset the number of looks of some configurations of a block.

        Args:
            block: Name of the block.
            before: Number of looks to return to, by configuration.
        """
        self._looks.update({(block, one): n for one, n in before.items()})

    def look_again(self, block: str, configurations: Iterable[Configuration]) -> None:
        """Add the seeds of the next look to some configurations of a block."""
        for one in configurations:
            self._looks[block, one] = self.look_at(block, one) + 1

    def put(self, block: Block) -> None:
        """Add a block to the plan, or replace the one of the same name, because it could not be known before."""
        plan = self.plan
        names = plan.blocks if block.name in plan.blocks else (*plan.blocks, block.name)
        self.plan = replace(plan, design=plan.design.having(block), blocks=names)
        self._recorded.setdefault(block.name, {})
        self._pair = None
        self._absorb(block.name, self.ledger.new_outcomes(block.name))

    def concerns(self, block: str) -> bool:
        """Return whether the block is asked for now or has been run before."""
        return block in self.plan.blocks or bool(self._recorded[block])

    def known(self, trials: Iterable[Trial]) -> dict[Trial, Outcome]:
        """Return the trials that have an outcome, with their outcomes."""
        outcomes = self.outcomes
        signatures = {trial: self._signature(trial) for trial in trials}
        return {trial: outcomes[signature] for trial, signature in signatures.items() if signature in outcomes}

    def knows_any(self) -> bool:
        """Return whether the ledger has any trial of any block of the design."""
        return bool(self.known(trial for block in self.plan.design.blocks for trial in self.trials(block)))

    def _distinct(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return each trial once. A trial that blocks share may have a different name in each of them."""
        by_signature: dict[str, Trial] = {}
        for trial in trials:
            by_signature.setdefault(self._signature(trial), trial)
        return list(by_signature.values())

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return the trials that are not done."""
        trials = list(trials)
        known = self.known(trials)
        return [trial for trial in trials if trial not in known or known[trial].status == "failed"]

    def counts(self) -> tuple[int, int]:
        """Return the number of trials that are asked for, and the number of those that are done.

        Before a pair is chosen, the blocks that need it are counted at the first pair. Before systems are tuned, the
        trials that will be asked for are counted too.
        """
        asked = self._distinct(trial for block in self.plan.blocks for trial in self.planned(block))
        known = self._distinct(trial for block in self.plan.blocks for trial in self.trials(block))
        return len(asked) + self.to_come, len(known) - len(self.missing(known))

    def run(
        self,
        engine: Engine,
        on_outcome: Callable[[Trial, Outcome], None],
        *,
        on_failure: Callable[[LedgerFailed], None] = lambda _: None,
        log: str = "",
    ) -> None:
        """Run the missing trials: first the blocks that need no pair, then those at the chosen pair.

        If the storage is shared, several runs share the work. Each trial is trained by one run. When only trials of
        other runs are left, this run waits for them, and takes over those of a run that died.

        Args:
            engine: Engine that executes the trials.
            on_outcome: Function that is called after this run or another has recorded a trial.
            on_failure: Function that is called when the ledger fails, before the trials that are running are finished.
            log: Path of the log file, which the records of failed trials name.

        Raises:
            LedgerFailed: If the storage cannot be used any more. Then no new trial starts, and those that are running
                are finished first, so that :meth:`rescue` can keep them.
        """
        self._on_outcome, self._on_failure = on_outcome, on_failure
        self._reported = {signature for signature, outcome in self.outcomes.items() if outcome.status == "done"}
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
                for trial, outcome in self.known(asked).items():  # done by another run, which is a stage ahead
                    if self._signature(trial) not in self._reported | self._awaited.keys():
                        self._report(trial, outcome)
                waiting_since = None
                while self._awaited:
                    free = self._free(leases)
                    first = next(free, None)
                    if first is None:
                        _log.info("waiting for %d trials that other runs are training", len(self._awaited))
                        waiting_since = waiting_since or time.monotonic()
                        if time.monotonic() - waiting_since > _REST_S:
                            engine.rest()
                        time.sleep(_POLL_S)
                        self.listen()
                        continue
                    waiting_since = None
                    for trial, outcome in engine.run(self._fed(itertools.chain([first], free))):
                        self._log(trial, outcome)
                        self._keep(
                            trial, replace(outcome, log=log if outcome.status == "failed" else ""), blocks, leases
                        )
                    if self.failure:
                        raise self.failure

    def _fed(self, trials: Iterator[Trial]) -> Iterator[Trial]:
        """Yield trials to run, until the ledger fails. The engine must not see the failure: it would lose trials."""
        try:
            while self.failure is None and (trial := next(trials, None)):
                yield trial
        except LedgerFailed as failure:
            self._fail(failure)

    def _fail(self, failure: LedgerFailed) -> None:
        self.failure = failure
        _log.error("the ledger failed, so no new trial starts, and those that are running are finished: %s", failure)
        self._on_failure(failure)

    def _keep(
        self, trial: Trial, outcome: Outcome, blocks: Mapping[str, Mapping[str, Trial]], leases: Leases | None
    ) -> None:
        """Record a finished trial in its blocks, or remember it if the ledger does not take it."""
        signature = self._signature(trial)
        if self.failure is None:
            try:
                for block, trials in blocks.items():
                    if signature in trials:
                        self._record(block, trials[signature], outcome)
                if leases:
                    leases.give_back([signature])
            except LedgerFailed as failure:
                self._fail(failure)
        if self.failure and outcome.status == "done" and not self.ledger.has(signature):
            self._known[signature] = outcome
            self.unrecorded += 1

    def rescue(self, storage: str) -> int:
        """Write all done trials of the plan that this run knows into another ledger, and return their number.

        Args:
            storage: URL of the other ledger.

        Raises:
            LedgerFailed: If it cannot be written.
        """
        there = self.ledger.elsewhere(storage)
        kept: set[str] = set()
        for block in self.plan.blocks:
            for trial, outcome in self.known(self.trials(block)).items():
                if outcome.status == "done":
                    there.record(self.plan.design.blocks[block], trial, outcome)
                    kept.add(self._signature(trial))
        return len(kept)

    def take_up(self, rescued: Ledger) -> set[str]:
        """Take up the trials that an earlier run rescued, so that this run records them and does not train them again.

        Args:
            rescued: Ledger that :meth:`rescue` wrote.

        Returns:
            Signatures of the done trials in it.
        """
        done: set[str] = set()
        for block in rescued.blocks():
            for signature, outcome in rescued.new_outcomes(block).items():
                if outcome.status == "done":
                    done.add(signature)
                    if not self.ledger.has(signature):
                        self._known[signature] = outcome
        self._pair = None
        return done

    def _free(self, leases: Leases | None) -> Iterator[Trial]:
        """Yield the awaited trials that no other run has taken, one by one."""
        if leases is None:
            yield from list(self._awaited.values())
            return
        taken: set[str] = set()
        while signatures := leases.take((s for s in self._awaited if s not in taken), 1):
            taken.update(signatures)
            self.listen()  # another run may have done it before this run took the lease
            for signature in signatures:
                if signature in self._awaited:
                    yield self._awaited[signature]
                else:
                    leases.give_back([signature])

    def share(self) -> None:
        """Record in each block the trials that another block has done, so that every block is complete by itself."""
        done = {signature: o for signature, o in self.outcomes.items() if o.status == "done"}
        for block in self.plan.blocks:
            for trial in self.trials(block):
                signature = self._signature(trial)
                here = self._recorded[block].get(signature)
                if signature in done and (here is None or here.status == "failed"):
                    self._record(block, trial, done[signature])

    def _record(self, block: str, trial: Trial, outcome: Outcome) -> None:
        self._absorb(block, self.ledger.record(self.plan.design.blocks[block], trial, outcome))

    def _signature(self, trial: Trial) -> str:
        return trial.signature(self.facts.fingerprint)

    def told(self, trial: Trial) -> dict[str, Any]:
        """Return the settings, fold and seed that distinguish a trial from the others of the study."""
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
    """Return the first pair that the choosing block tries. It is used to count the trials that need the choice."""
    if design.choosing is None:
        return ANY_PAIR
    return next((one.pair for one in design.configurations(design.choosing, ANY_PAIR) if one.pair), ANY_PAIR)

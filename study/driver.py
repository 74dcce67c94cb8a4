"""Running a study: what is designed, less what the ledger holds, through an engine, into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from study.aggregate import PAIR, SelectBy, aggregate, chosen_pair, trials_frame
from study.design import BLOCKS, Design, Pair, Trial, distinct
from study.engines import Engine
from study.ledger import Ledger, Outcome, StudyFacts


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a user asked for.

    Attributes:
        design: the configurations to draw on.
        blocks: the blocks to run.
        at: the pair for the blocks after the grid; None: the one that validation chooses.
        select_by: the metric that chooses.
    """

    design: Design
    blocks: tuple[str, ...]
    at: Pair | None
    select_by: SelectBy


class StudyRun:
    """One plan on one ledger: what is asked for, what is known, what is missing.

    Args:
        plan: what was asked for.
        ledger: what has been run.
        facts: what the ledger keeps of the study.
    """

    def __init__(self, plan: Plan, ledger: Ledger, facts: StudyFacts) -> None:
        self.plan = plan
        self.facts = facts
        self._ledger = ledger
        # A trial that two blocks share is trained once, whichever block it was trained for: all are looked into.
        self._recorded = {block: ledger.outcomes(block) for block in BLOCKS}

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """All that is known, by signature; a done trial before a failed one."""
        known: dict[str, Outcome] = {}
        for recorded in self._recorded.values():
            for signature, outcome in recorded.items():
                if signature not in known or outcome.status == "done":
                    known[signature] = outcome
        return known

    def pair(self) -> Pair | None:
        """The pair for the blocks after the grid; None: validation cannot choose one yet."""
        if self.plan.at:
            return self.plan.at
        trials = self.plan.design.trials("grid", Pair(1, 1))
        frame = trials_frame(trials, self.outcomes, self.facts)
        grid = aggregate(frame, PAIR, self.facts.folds)
        if len(self._missing(trials)) and "grid" not in self.plan.blocks:
            return None
        return chosen_pair(grid, select_by=self.plan.select_by, seeds=len(self.plan.design.seeds))

    def trials(self) -> dict[str, list[Trial]]:
        """The trials of every block asked for, as far as its pair is known."""
        pair = self.pair()
        return {
            block: self.plan.design.trials(block, pair or Pair(1, 1))
            for block in self.plan.blocks
            if block == "grid" or pair
        }

    def counts(self) -> tuple[int, int]:
        """Trials in all and trials done; before the pair is known, counted as if it were the grid's first."""
        design = self.plan.design
        pair = self.pair() or Pair(design.k_audio[0], design.k_text[0])
        known_pair = self.pair() is not None
        total, done = [], 0
        for block in self.plan.blocks:
            trials = design.trials(block, pair)
            total += trials
        everything = distinct(total)
        countable = everything if known_pair else design.trials("grid", pair) if "grid" in self.plan.blocks else []
        done = len(countable) - len(self._missing(countable))
        return len(everything), done

    def run(self, engine: Engine, on_outcome: Callable[[Trial, Outcome], None]) -> None:
        """Run what is missing: the grid, then the blocks at the chosen pair.

        Args:
            engine: executes trials.
            on_outcome: called after each trial has been recorded.

        Raises:
            LedgerFailed: the storage refused to be written.
        """
        stages = (("grid",), tuple(block for block in self.plan.blocks if block != "grid"))
        for stage in stages:
            blocks = {block: trials for block, trials in self.trials().items() if block in stage}
            self._complete(blocks, engine, on_outcome)

    def _complete(
        self,
        blocks: Mapping[str, Sequence[Trial]],
        engine: Engine,
        on_outcome: Callable[[Trial, Outcome], None],
    ) -> None:
        known = self.outcomes
        missing = self._missing(distinct(trial for trials in blocks.values() for trial in trials))
        for block, trials in blocks.items():  # what another block has done already
            for trial in trials:
                signature = self._signature(trial)
                here = self._recorded[block].get(signature)
                if (here is None or here.status == "failed") and trial not in missing:
                    self._record(block, trial, known[signature])
        wanted_by = {trial: [b for b, trials in blocks.items() if trial in trials] for trial in missing}
        for trial, outcome in engine.run(list(missing)):
            for block in wanted_by[trial]:
                self._record(block, trial, outcome)
            on_outcome(trial, outcome)

    def _record(self, block: str, trial: Trial, outcome: Outcome) -> None:
        self._ledger.record(block, trial, outcome)
        self._recorded[block][self._signature(trial)] = outcome

    def _missing(self, trials: Sequence[Trial]) -> dict[Trial, None]:
        known = self.outcomes
        return {
            trial: None
            for trial in trials
            if (outcome := known.get(self._signature(trial))) is None or outcome.status == "failed"
        }

    def _signature(self, trial: Trial) -> str:
        return trial.signature(self.facts.fingerprint)

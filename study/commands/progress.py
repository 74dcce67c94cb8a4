"""The progress of a run: a moving bar on a terminal, a line from time to time in a log file."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from cemobam_core.progress import progress_bar
from study.design.configuration import Configuration, Trial
from study.design.design import ANY_PAIR
from study.ledger.outcomes import Outcome

if TYPE_CHECKING:
    from study.driver import StudyRun
    from study.ledger.storages import LedgerFailed


class Progress:
    """A progress bar: trials done, time left, and the best mean so far.

    The best mean is taken among the configurations of the choosing block that have the most seeds done. It falls as
    more seeds are done, because the best of few seeds is partly luck.

    Args:
        run: The study that runs.
    """

    def __init__(self, run: StudyRun) -> None:
        asked, done = run.counts()
        self._bar = progress_bar(total=asked, initial=done, unit="trial")
        self._run = run
        design = run.plan.design
        self._choosing = set(design.configurations(design.choosing, ANY_PAIR)) if design.choosing else set()
        self._metric = f"{run.plan.select_on}_{run.plan.select_by}"
        self._label = f"{run.plan.select_on} {run.plan.select_by.upper().replace('WF1', 'w-F1')}"
        self._scores: dict[Configuration, list[float]] = defaultdict(list)  # of every seed and fold
        self._folds = run.facts.folds
        self._failed = 0
        for trial, outcome in run.known(run.trials(design.choosing) if design.choosing else ()).items():
            self._count(trial, outcome)

    def __enter__(self) -> Progress:  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self._bar.close()

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Count one more trial."""
        if outcome.status == "failed":
            self._failed += 1
            self._bar.write(f"failed: {described(self._run, trial)}: {outcome.reason}", file=sys.stderr)
        self._count(trial, outcome)
        self._bar.set_postfix_str(self.words(), refresh=False)
        self._bar.update()

    def on_failure(self, failure: LedgerFailed) -> None:
        """Print that the ledger failed, above the bar, because the trials that are running may take minutes."""
        self._bar.write(f"{failure}\nfinishing the trials that are running, to keep them …", file=sys.stderr)

    def words(self) -> str:
        """Return the best mean so far, with its K pair and number of seeds, and how many trials failed."""
        words = []
        if self._scores:
            best, scores = max(self._scores.items(), key=lambda item: (len(item[1]), sum(item[1])))
            seeds = len(scores) // self._folds
            over = f"{seeds} seed{'s' if seeds > 1 else ''}" if seeds else "no seed on every fold yet"
            mean = sum(scores) / len(scores)
            words.append(f"best mean so far: {self._label} {100 * mean:.1f} at K {best.pair} ({over})")
        if self._failed:
            words.append(f"{self._failed} failed")
        return ", ".join(words)

    def _count(self, trial: Trial, outcome: Outcome) -> None:
        configuration = trial.configuration
        chooses = configuration in self._choosing and trial.seed in self._run.plan.design.seeds
        score = outcome.metrics.get(self._metric)  # trials of other versions may lack it
        if outcome.status == "done" and configuration.pair and chooses and score is not None:
            self._scores[configuration].append(score)


def described(run: StudyRun, trial: Trial) -> str:
    """Describe how the trial differs from the others of its study."""
    told = run.told(trial)
    if run.plan.design.profile == told["profile"]:
        del told["profile"]
    if run.plan.design.system == told["system"]:
        del told["system"]
    return ", ".join(f"{name} {value}" for name, value in told.items())

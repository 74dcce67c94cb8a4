"""All that a report shows, as the ledger has it: results, learning curves, confusion matrices, kept models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.design import BLOCKS, Pair, Trial, distinct
from study.driver import StudyRun
from study.engines.models import model_folder
from study.findings.aggregate import trials_frame
from study.findings.analysis import Analysis
from study.findings.results import About, Results
from study.ledger.outcomes import Outcome


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """What a study has to show so far.

    Attributes:
        analysis: of its results.
        known: what became of every trial that has an outcome.
        blocks: those that were asked for or have been run before.
        asked: trials asked for.
        done: those of them that are done.
        models: the folder where trained models are kept.
        fingerprint: of the features in their splits.
    """

    analysis: Analysis
    known: dict[Trial, Outcome]
    blocks: tuple[str, ...]
    asked: int
    done: int
    models: Path
    fingerprint: str

    @classmethod
    def of(cls, run: StudyRun, *, name: str, models: Path) -> Evidence:
        """What the ledger knows of a plan's design, whatever blocks the plan runs.

        Args:
            run: the plan against its ledger.
            name: of the study.
            models: the folder where trained models are kept.
        """
        plan, facts, pair = run.plan, run.facts, run.pair()
        design = plan.design
        known = run.known(distinct(trial for block in BLOCKS for trial in run.trials(block)))
        asked, done = run.counts()
        about = About(
            name=name,
            dataset=facts.dataset,
            title=facts.title,
            profile=design.profile,
            fusion=design.base.model.fusion,
            settings=design.settings(),
            k_audio=design.k_audio,
            k_text=design.k_text,
            seeds=design.seeds,
            folds=facts.folds,
            select_by=plan.select_by,
            select_on=plan.select_on,
            pair=(pair.k_audio, pair.k_text) if pair else None,
            given=plan.at is not None,
            class_names=tuple(facts.class_names),
            made_with=dict(facts.made_with),
        )
        return cls(
            analysis=Analysis(Results(about=about, trials=trials_frame(known, run.outcomes, facts))),
            known=known,
            blocks=tuple(block for block in BLOCKS if run.concerns(block)),
            asked=asked,
            done=done,
            models=models,
            fingerprint=facts.fingerprint,
        )

    @property
    def results(self) -> Results:
        """The trials and what they come to."""
        return self.analysis.results

    @property
    def about(self) -> About:
        """What the study is."""
        return self.results.about

    @property
    def failed(self) -> dict[Trial, Outcome]:
        """The trials that failed."""
        return {trial: outcome for trial, outcome in self.known.items() if outcome.status == "failed"}

    def done_trials(
        self, *, pair: Pair | None, fusion: str | None = None, modules: str = "full"
    ) -> dict[Trial, Outcome]:
        """The done trials of one configuration of the study's profile; the grid's fusion if none is named."""
        wanted = (self.about.profile, pair, fusion or self.about.fusion, modules)
        return {
            trial: outcome
            for trial, outcome in self.known.items()
            if outcome.status == "done" and _configuration(trial) == wanted
        }

    def curves(self, trials: dict[Trial, Outcome]) -> pd.DataFrame:
        """Validation WA: a row per seed that has all folds, their mean; a column per epoch."""
        rows = pd.DataFrame(
            [{"seed": trial.seed, **dict(outcome.curve)} for trial, outcome in trials.items() if outcome.curve]
        )
        if rows.empty:
            return rows
        grouped = rows.groupby("seed")
        return grouped.mean()[grouped.size() == self.about.folds].dropna(axis=1)

    def confusion(self) -> tuple[npt.NDArray[np.int64], int] | None:
        """The chosen configuration's (C, C) counts on test and over how many trials; None: the ledger has none."""
        counts = [outcome.confusion for outcome in self.done_trials(pair=self.about.at).values() if outcome.confusion]
        return (np.sum(counts, axis=0, dtype=np.int64), len(counts)) if counts else None

    def model_folder(self) -> tuple[Trial, Path] | None:
        """The chosen configuration's first trial and where its model is kept, if it is."""
        for trial in sorted(self.done_trials(pair=self.about.at), key=lambda t: (t.seed, t.fold)):
            folder = model_folder(self.models, trial, self.fingerprint)
            if (folder / "config.json").is_file():
                return trial, folder
        return None


def _configuration(trial: Trial) -> tuple[str, Pair, str, str]:
    configuration = trial.configuration
    return configuration.profile, configuration.pair, configuration.model.fusion, configuration.model.modules

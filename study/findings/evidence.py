"""The evidence for a report, read from the ledger: results, learning curves, confusion matrices and kept models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cemobam_core.systems import name_of
from study.design.block import Block, shown
from study.design.configuration import Configuration, Trial
from study.design.design import ANY_PAIR, TRAINING, distinct
from study.design.factors import PAIR, Pair
from study.design.tuning import TUNED
from study.driver import StudyRun
from study.engines.models import model_folder
from study.engines.probabilities import KeptProbabilities
from study.findings.aggregate import IDENTITY, trials_and_outcomes
from study.findings.analysis import Analysis
from study.findings.calibration import Calibration, calibration
from study.findings.errors import Errors
from study.findings.predictions import Predictions
from study.findings.results import About, AboutBlock, Results
from study.findings.wording import in_words, listed
from study.ledger.outcomes import Outcome

Row = tuple[Any, ...]
"""The values of a configuration in the columns :attr:`About.identity` of ``trials.csv``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """The evidence that a study has so far.

    Attributes:
        analysis: Analysis of the study's results.
        known: Outcomes of all trials that have one.
        blocks: Blocks by name that were asked for or have been run before, and that have configurations.
        waiting: Names of the blocks that wait for a pair.
        asked: Number of trials that were asked for.
        done: Number of these trials that are done.
        models: Folder of trained models.
        fingerprint: Fingerprint of the features in their splits.
    """

    analysis: Analysis
    known: dict[Trial, Outcome]
    blocks: dict[str, Block]
    waiting: tuple[str, ...]
    asked: int
    done: int
    models: Path
    fingerprint: str

    @classmethod
    def of(cls, run: StudyRun, *, name: str, models: Path) -> Evidence:
        """Return the evidence in the ledger for all blocks of a plan's design, also those that the plan does not run.

        Args:
            run: Run of the plan with its ledger.
            name: Name of the study.
            models: Folder of trained models.
        """
        plan, facts, pair = run.plan, run.facts, run.pair()
        design = plan.design
        asked, done = run.counts()
        concerned = {key: block for key, block in design.blocks.items() if run.concerns(key)}
        waiting = tuple(key for key in concerned if design.needs_pair(key) and pair is None)
        blocks = {key: block for key, block in concerned.items() if key not in waiting}
        about = about_study(run, name=name, blocks=blocks)
        # Only these blocks: trials of others may have the same values in the columns that distinguish configurations.
        known = run.known(distinct(trial for key in concerned for trial in run.trials(key)))
        frame, outcomes = trials_and_outcomes(known, run.outcomes, facts, about.identity[len(IDENTITY) :])
        utterances = run.ledger.utterances()
        kept = Predictions.of(utterances, frame["fold"], outcomes, classes=len(facts.class_names))
        return cls(
            analysis=Analysis(Results(about=about, trials=frame, kept=kept)),
            known=known,
            blocks=blocks,
            waiting=waiting,
            asked=asked,
            done=done,
            models=models,
            fingerprint=facts.fingerprint,
        )

    @property
    def results(self) -> Results:
        """The trials and their aggregates."""
        return self.analysis.results

    @property
    def about(self) -> About:
        """The description of the study."""
        return self.results.about

    @property
    def waits_for_pair(self) -> bool:
        """Whether a pair must still be chosen. Systems without a graph need none."""
        return self.about.pair is None and bool(self.waiting or self.about.k_audio)

    @property
    def failed(self) -> dict[Trial, Outcome]:
        """The trials that failed."""
        return {trial: outcome for trial, outcome in self.known.items() if outcome.status == "failed"}

    def told(self, trial: Trial) -> dict[str, Any]:
        """Return the settings, fold and seed that distinguish a trial from the others of the study."""
        return trial.parameters(self.about.identity)

    @cached_property
    def _done(self) -> dict[Row, dict[Trial, Outcome]]:
        by_row: dict[Row, dict[Trial, Outcome]] = {}
        for trial, outcome in self.known.items():
            if outcome.status == "done":
                by_row.setdefault(_row(trial.configuration, self.about.identity), {})[trial] = outcome
        return by_row

    def done_trials(self, row: Row, seeds: Sequence[int]) -> dict[Trial, Outcome]:
        """Return the done trials of one configuration, given its row in a block or :attr:`About.base`."""
        return {trial: outcome for trial, outcome in self._done.get(row, {}).items() if trial.seed in seeds}

    def own_trials(self) -> dict[Trial, Outcome]:
        """Return the done trials of the study's own configuration with the seeds :attr:`Results.own_seeds`."""
        return self.done_trials(self.about.base, self.results.own_seeds)

    def any_done(self, block: str) -> bool:
        """Return whether a trial of the block is done."""
        about = self.about.block(block)
        return about is not None and any(self.done_trials(row, about.seeds) for row in about.rows)

    def curves(self, trials: dict[Trial, Outcome]) -> pd.DataFrame:
        """Return validation WA as means over folds: one row per seed that has all folds, one column per epoch."""
        rows = pd.DataFrame(
            [{"seed": trial.seed, **dict(outcome.curve)} for trial, outcome in trials.items() if outcome.curve]
        )
        if rows.empty:
            return rows
        grouped = rows.groupby("seed")
        return grouped.mean()[grouped.size() == self.about.folds].dropna(axis=1)

    def confusion(self) -> tuple[npt.NDArray[np.int64], int] | None:
        """Return the (C, C) counts of the own configuration on test, and the number of trials that they sum over.

        `None` if there are no counts.
        """
        counts = [outcome.confusion for outcome in self.own_trials().values() if outcome.confusion]
        return (np.sum(counts, axis=0, dtype=np.int64), len(counts)) if counts else None

    def confusions(self, row: Row, seeds: Sequence[int]) -> dict[int, npt.NDArray[np.int64]]:
        """Return a configuration's (C, C) counts on test by seed, summed over folds, for seeds that have all folds."""
        by_seed: dict[int, list[Outcome]] = {}
        for trial, outcome in self.done_trials(row, seeds).items():
            if outcome.confusion:
                by_seed.setdefault(trial.seed, []).append(outcome)
        return {
            seed: np.sum([outcome.confusion for outcome in outcomes], axis=0, dtype=np.int64)
            for seed, outcomes in sorted(by_seed.items())
            if len(outcomes) == self.about.folds
        }

    @cached_property
    def errors(self) -> Errors:
        """The errors of the study."""
        return Errors(self.results)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The calibration of the study's own configuration. `None` if no probabilities are kept."""
        if self.results.kept is None:
            return None
        kept = KeptProbabilities(folder=self.models.parent / "probabilities", fingerprint=self.fingerprint)
        files = {(trial.seed, trial.fold): kept.place(trial) for trial in self.own_trials()}
        return calibration(files, self.results.kept.utterances, self.about.folds)

    def model_folder(self) -> tuple[Trial, Path] | None:
        """Return the first trial of the study's own configuration that has a kept model, and the model's folder."""
        for trial in sorted(self.own_trials(), key=lambda t: (t.seed, t.fold)):
            folder = model_folder(self.models, trial, self.fingerprint)
            if (folder / "config.json").is_file():
                return trial, folder
        return None


def about_study(run: StudyRun, *, name: str, blocks: Mapping[str, Block]) -> About:
    """Return the description of a study.

    Args:
        run: Run of the study with its ledger.
        name: Name of the study.
        blocks: Blocks of the plan to describe, by name. None of them may wait for a pair.
    """
    plan, facts, pair, design = run.plan, run.facts, run.pair(), run.plan.design
    identity = (*IDENTITY, *dict.fromkeys(c for block in blocks.values() for c in block.varied if c not in IDENTITY))
    base = _row(design.configuration({}, pair or ANY_PAIR), identity)
    if pair is None:
        base = tuple(None if c in PAIR else value for c, value in zip(identity, base, strict=True))
    made = tuple(_about(run, block, pair or ANY_PAIR, identity, base) for block in blocks.values())
    fresh = dict.fromkeys(seed for block in made if block.confirms for seed in block.seeds)
    return About(
        name=name,
        dataset=facts.dataset,
        title=facts.title,
        profile=design.profile,
        system=name_of(design.base.system),
        settings=design.shared(),
        identity=identity,
        base=base,
        blocks=made,
        seeds=design.seeds,
        confirm=tuple(sorted(fresh)),
        folds=facts.folds,
        select_by=plan.select_by,
        select_on=plan.select_on,
        pair=(pair.k_audio, pair.k_text) if pair else None,
        pair_from=run.pair_from,
        rope=plan.rope,
        looks=plan.until_clear,
        class_names=tuple(facts.class_names),
        made_with=dict(facts.made_with),
        splits=facts.splits,
        recall=dict(facts.recall),
    )


@cache  # many trials have the same configuration
def _row(configuration: Configuration, identity: tuple[str, ...]) -> Row:
    return tuple(configuration.get(name) for name in identity)


def _about(run: StudyRun, block: Block, pair: Pair, identity: tuple[str, ...], base: Row) -> AboutBlock:
    """Return the description of a block."""
    design = run.plan.design
    made = {_row(one, identity): one for one in reversed(design.configurations(block.name, pair))}
    rows = tuple(dict.fromkeys(_row(one, identity) for one in design.configurations(block.name, pair)))
    # The value in the block and the one in trials may differ: trials have only the file name of a user's system.
    place, named = identity.index(block.columns[0]), dict(zip(block.names, rows, strict=False))
    if len(rows) < len(block.names):  # some configurations are equal
        named = {}
    if block.reference in named:
        reference = rows.index(named[block.reference])
    else:
        reference = rows.index(base) if base in rows else 0
    return AboutBlock(
        name=block.name,
        question=block.question,
        title=block.title or block.question or _title(block),
        columns=block.columns,
        rows=rows,
        reference=reference,
        chooses=block.chooses,
        compared=block.compared,
        # configurations of tuning blocks have their own pairs
        needs_pair=design.needs_pair(block.name) and not block.tunes and block.name != TUNED,
        seeds=run.seeds_of(block.name),
        n_seeds=tuple(len(run.seeds_of(block.name, made[row])) for row in rows),
        confirms=run.confirms(block.name),
        tunes=block.tunes,
        decided_by="seed" if {name for _, given in block.changes() for name in given} <= TRAINING else "utterances",
        transductive=tuple((g := made[row].graph) is not None and g.evaluation_graph == "joint" for row in rows),
        labels={shown(row[place]): block.labels[value] for value, row in named.items() if value in block.labels},
        table=block.table or block.name,
        drawing=block.drawing or block.name,
        file=block.file or block.drawing or block.name,
    )


def _title(block: Block) -> str:
    """Return a title for a block that has none: its factors, or its name."""
    words = listed([in_words(factor.name) for factor in block.factors]) if block.factors else block.name
    return words if "_" in words.partition(" ")[0] else words[0].upper() + words[1:]

"""The findings of tuning: each system's best configuration on validation, and the next trials to ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cemobam_core.systems import name_of
from study.design.block import Changes
from study.design.tuning import TUNED, block_name, tuned_block
from study.driver import StudyRun
from study.findings.evidence import Evidence
from study.findings.results import AboutBlock, Results
from study.findings.statistics import Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """The tuning of one system, configuration by configuration, starting with the defaults.

    Attributes:
        block: Block that tuned the system.
        scores: Validation scores by the metric that chooses, as fractions. NaN if a configuration failed or is not
            done.
        losses: Validation losses.
        best: Index of the best configuration. `None` if no configuration is done.
    """

    block: AboutBlock
    scores: Array
    losses: Array
    best: int | None

    @property
    def best_so_far(self) -> Array:
        """The best score of the first n configurations, for each n. NaN before any is done."""
        return np.fmax.accumulate(self.scores)


def trace(results: Results, block: AboutBlock) -> Trace:
    """Return the tuning of one system.

    The best configuration has the highest validation score. If scores are equal, the lowest validation loss decides,
    then the first place.

    Args:
        results: Results of the study.
        block: Block that tunes the system.
    """
    frame, keys = results.block(block.name).set_index("profile"), [key[0] for key in results.keys(block)]
    scores, losses = (
        frame[f"val_{metric}_mean"].reindex(keys).to_numpy(dtype=float) for metric in (results.about.select_by, "loss")
    )
    order = np.lexsort((losses, -scores))  # stable, and NaN comes last
    best = int(order[0]) if np.isfinite(scores).any() else None
    return Trace(block=block, scores=scores, losses=losses, best=best)


def traces(results: Results) -> list[Trace]:
    """Return the tuning of every system of a study, in the order of the blocks.

    If a system was tuned by two searches, the last one counts.
    """
    last = {block.tunes: block for block in results.about.blocks if block.tunes}
    return [trace(results, block) for block in last.values()]


def tune(run: StudyRun, *, name: str) -> bool:
    """Add the trials that the recorded ones decide: the next round of a search, or the chosen configurations.

    The decision depends only on the recorded trials. A run that is resumed, or that shares its work with others,
    therefore asks for the same trials.

    Args:
        run: Run of the study with its ledger.
        name: Name of the study.

    Returns:
        Whether new trials were added.
    """
    tuning = run.plan.tuning
    if tuning is None:
        return False
    evidence = Evidence.of(run, name=name, models=Path())
    grown, to_come, chosen = False, 0, dict[str, Changes]()
    for system in tuning.systems:
        block = run.plan.design.blocks[block_name(tuning.search, name_of(tuning.systems[system]))]
        trials, tried = run.trials(block.name), list(block.configurations.values())
        over = len(run.known(trials)) == len(trials)
        about = evidence.about.block(block.name)
        if over and about and tuning.goes_on(system, len(tried)):
            scores = [float(x) if np.isfinite(x) else None for x in trace(evidence.results, about).scores]
            block = tuning.block(system, list(zip(tried, scores, strict=True)))
            run.put(block)
            grown, over = True, False
        left = tuning.left(system, len(block.configurations))
        to_come += left * run.facts.folds
        if not (over and about) or left:
            to_come += len(run.plan.design.fresh_seeds) * run.facts.folds
        elif (best := trace(evidence.results, about).best) is not None:
            chosen[block.tunes] = tried[best]
    if not to_come and not grown and chosen:
        made = tuned_block(chosen, budget=tuning.budget)
        if run.plan.design.blocks.get(TUNED) != made or TUNED not in run.plan.blocks:
            run.put(made)
            grown = True
    run.to_come = to_come
    return grown

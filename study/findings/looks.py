"""Looks: the decisions of a study that gives configurations more seeds until their differences are clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from study.design.configuration import Configuration
from study.design.design import ANY_PAIR
from study.design.seeds import LOOKS
from study.driver import StudyRun
from study.findings.analysis import Analysis, Comparison, Row
from study.findings.evidence import Evidence
from study.findings.results import AboutBlock
from study.findings.tuned import tune

_HOPE = 2.0
"""Number of standard errors over seeds by which a difference may still change."""


def look(run: StudyRun, *, name: str) -> bool:
    """Look at all comparisons whose seeds are done, and give the undecided ones the seeds of the next look.

    The decision depends only on the recorded trials. A run that is resumed, or that shares its work with others,
    therefore decides the same. A comparison is decided if the first configuration is better, worse or equivalent. It
    is given up if no number of seeds would decide it on these test utterances.

    Args:
        run: Run of the study with its ledger.
        name: Name of the study.

    Returns:
        Whether any configuration has more seeds now than before.
    """
    if not run.plan.until_clear:
        return False
    evidence = Evidence.of(run, name=name, models=Path())
    compared = [block for block in evidence.about.blocks if block.compared and len(block.rows) > 1]
    return sum(_look_at(run, evidence.analysis, block) for block in compared) > 0  # any() would stop at the first


def catch_up(run: StudyRun, *, name: str) -> None:
    """Tune and look as often as the recorded trials allow, so that a resumed run is where the earlier one stopped.

    Args:
        run: Run of the study with its ledger.
        name: Name of the study.
    """
    while tune(run, name=name) or look(run, name=name):
        pass


def _look_at(run: StudyRun, analysis: Analysis, block: AboutBlock) -> bool:
    trials = run.trials(block.name)
    if len(run.known(trials)) < len(trials):
        return False
    configurations = _by_name(run, analysis, block)
    reference = block.name_of(analysis.results.keys(block)[block.reference])
    unclear = [
        c
        for c in analysis.family(block, analysis.metric)
        if c.verdict == "undecided" and run.look_at(block.name, configurations[c.second]) < len(LOOKS) - 1
    ]
    more = [configurations[c.second] for c in unclear if _worth(c, c.rope / 100)]
    if not more:
        return False
    before = {one: run.look_at(block.name, one) for one in (*more, configurations[reference])}
    run.look_again(block.name, more)
    furthest = max(run.look_at(block.name, one) for one in more)
    while run.look_at(block.name, configurations[reference]) < furthest:
        run.look_again(block.name, [configurations[reference]])
    if block.name not in run.plan.blocks and run.missing(run.trials(block.name)):
        run.forget_looks(block.name, before)  # this plan does not run the block, so the seeds would never be run
        return False
    return True


def _by_name(run: StudyRun, analysis: Analysis, block: AboutBlock) -> dict[str, Configuration]:
    """Return a block's configurations by their names in csv files."""
    identity = analysis.results.about.identity
    rows: dict[Row, Configuration] = {}
    for one in run.plan.design.configurations(block.name, run.pair() or ANY_PAIR):
        rows.setdefault(tuple(one.get(column) for column in identity), one)
    keys = analysis.results.keys(block)
    return {block.name_of(key): rows[row] for key, row in zip(keys, block.rows, strict=True)}


def _worth(comparison: Comparison, rope: float) -> bool:
    """Return whether more seeds can decide a comparison. They do not reduce the variance between utterances."""
    parts = comparison.components
    if parts is None or comparison.decided_by == "seed":
        return True
    remaining = 2.0 * np.sqrt(parts.utterance / parts.utterances)  # half width with very many seeds, approximately
    change = _HOPE * np.sqrt(parts.seed / parts.seeds + parts.error / (parts.seeds * parts.utterances))
    mean = abs(comparison.difference.mean)
    return bool(mean + change > remaining or rope - mean + change > remaining)

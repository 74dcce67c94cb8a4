"""The claims about published levels: does the study reach the paper's figures?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from study.findings.analysis import MEASURES, Analysis
from study.findings.luck import Level, equivalence, reproduced
from study.findings.results import AboutBlock
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, Difference
from study.findings.wording import (
    interval,
    listed,
    points_of,
    rounds_to_zero,
    seeds_in_words,
    size_in_points,
)
from study.ledger.outcomes import Metric
from study.papers.cemobam.finding import Finding, not_tested
from study.papers.cemobam.paper import LABELS
from study.papers.cemobam.published import published

_HOLD_FOR = "The 95% intervals hold for other seeds and other test splits, of this study and of the paper."

_NOT_KEPT = "The ledger is from before predictions were kept, so the variation between test splits is not known."

_SWAPPED = "The authors' code swaps the names WA and UA, so the published WA and UA may be swapped."

_NAMES = {"no_xcbam": " without xCBAM", "no_chgat": " without CH-GAT"}


def _reproduced(analysis: Analysis, name: str, values: Sequence[str], measures: Sequence[Metric]) -> Finding:
    """Return whether the study reaches published figures, given the variation of seeds and test splits on both sides.

    All figures must be equivalent for "confirmed", so each is tested at the whole level (Berger, 1982). Any of them may
    differ, so each is tested at its share of the level (Bonferroni).
    """
    about = analysis.results.about
    table, column = ("table1", "fusion") if name == "fusion" else ("table2", "modules")
    theirs = published(table, about.in_papers)
    if theirs.empty:
        return not_tested(f"The paper reports no figures for {about.title}.")
    found: list[tuple[str, Difference, float, float]] = []
    for value in values:
        for measure in measures:
            label = MEASURES[measure] + (f" of {LABELS[value]}" if len(values) > 1 else _NAMES.get(value, ""))
            ours = _our_level(analysis, name, value, measure)
            if isinstance(ours, str):
                return not_tested(ours)
            figure = float(theirs.loc[theirs[column] == value, measure].iloc[0])
            found.append((label, reproduced(ours, figure / 100), 100 * ours.mean, figure))
    rope, n, utterances = points_of(about.rope), found[0][1].n, found[0][1].utterances
    finding = partial(
        Finding,
        numbers=(
            *(f"{label}: {ours:.2f}, published {x:.2f}{_apart(d)}." for label, d, ours, x in found),
            f"Measured at K {about.at} with {seeds_in_words(n)} on {utterances} test utterances.",
            *([_SWAPPED] if "wa" in measures else []),
        ),
        intervals=_HOLD_FOR,
    )
    labels = listed([label for label, *_ in found])
    are, figures = ("is", "figure") if len(found) == 1 else ("are", "figures")
    if max(equivalence(d, about.rope / 100) for _, d, _, _ in found) < LEVEL:
        return finding(verdict="confirmed", answer=f"{labels} {are} within {rope} of the published {figures}.")
    apart = [(label, d) for label, d, _, _ in found if d.p * len(found) < LEVEL]
    if lower := [(label, d) for label, d in apart if d.mean < 0]:
        return finding(verdict="contradicted", answer=f"{_listed_by_size(lower)} lower than published.")
    if apart:
        return finding(verdict="higher than published", answer=f"{_listed_by_size(apart)} higher than published.")
    widest = max((d.high - d.low) / 2 for _, d, _, _ in found)
    if 100 * widest > about.rope:
        answer = (
            f"{utterances} test utterances are too few: two test splits of this size differ by up to "
            f"{size_in_points(widest)} by chance, so a difference of {rope} cannot be shown."
        )
    else:
        answer = f"{labels} {are} neither clearly within {rope} of the published {figures} nor clearly different."
    return finding(verdict="undecided", answer=answer)


def _apart(difference: Difference) -> str:
    """Return how far the study is from a published figure, with its interval."""
    by = "no difference"
    if not rounds_to_zero(difference.mean):
        by = f"{size_in_points(difference.mean)} {'higher' if difference.mean > 0 else 'lower'}"
    return f"; {by} (95% interval {interval(difference)})"


def _listed_by_size(apart: Sequence[tuple[str, Difference]]) -> str:
    """Return figures and how far they are from the published ones, as the subject of a sentence."""
    if len(apart) == 1:
        ((label, difference),) = apart
        return f"{label} is {size_in_points(difference.mean)}"
    return f"{listed([f'{label} ({size_in_points(d.mean)})' for label, d in apart])} are"


def _our_level(analysis: Analysis, name: str, value: str, measure: Metric) -> Level | str:
    """Return the level of a configuration, given the value of its block's only column, or why it is unknown."""
    results, about = analysis.results, analysis.results.about
    block = about.block(name)
    row, seeds = (_row_of(analysis, block, value), block.seeds) if block else (None, ())
    if value == about.fusion == "min":
        row, seeds = about.base, results.own_seeds
    if results.kept is None:
        return _NOT_KEPT
    ours = analysis.level(row, measure, seeds) if row else None
    if ours is None:
        return f"{LABELS[value]} has no finished trial at the K pair of the study."
    if ours.n < SEEDS_FOR_INTERVAL:
        return (
            f"{seeds_in_words(ours.n)} {'is' if ours.n == 1 else 'are'} too few: the test needs {SEEDS_FOR_INTERVAL}."
        )
    return ours


def _row_of(analysis: Analysis, block: AboutBlock, value: str) -> tuple[Any, ...] | None:
    """Return a configuration of a block, given the value of the block's only column."""
    keys = [key[0] for key in analysis.results.keys(block)]
    return block.rows[keys.index(value)] if value in keys else None


TESTS = {
    "level": partial(_reproduced, name="fusion", values=("min",), measures=("wa", "ua")),
    "level_wf1": partial(_reproduced, name="fusion", values=("min",), measures=("wf1",)),
    "level_fusions": partial(_reproduced, name="fusion", values=("cls", "max", "mean"), measures=("wa", "ua")),
    "level_xcbam": partial(_reproduced, name="ablation", values=("no_xcbam",), measures=("wa", "ua")),
    "level_chgat": partial(_reproduced, name="ablation", values=("no_chgat",), measures=("wa", "ua")),
}
"""The claims about levels, by name."""

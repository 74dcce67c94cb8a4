"""Systems ranked over several folds or corpora: Friedman's test and Nemenyi's critical difference (Demšar, 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from study.findings.results import AboutBlock, Results, plain_value
from study.findings.statistics import LEVEL, Array

FEWEST = 5
"""Smallest number of folds or corpora for a diagram. The ranks on fewer of them say too little."""

FEWEST_SYSTEMS = 3
"""Smallest number of systems for a diagram. A ranking of two systems says no more than their comparison."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Mean ranks of systems, and the difference of mean ranks that is significant.

    Attributes:
        names: Names of the systems, the best first.
        means: Mean ranks of the systems. 1 is the best rank.
        chi2: Friedman's statistic.
        f: Iman and Davenport's (1980) statistic. Infinite if all folds give the same ranks.
        p: P-value of :attr:`f` under the hypothesis that all systems are equally good.
        critical: Critical difference. Mean ranks that are further apart differ at 5% (Nemenyi, 1963).
        groups: First and last place of each group of systems that do not differ significantly. No group is part of
            another.
        n: Number of folds or corpora.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    chi2: float
    f: float
    p: float
    critical: float
    groups: tuple[tuple[int, int], ...]
    n: int


def ranked(scores: pd.DataFrame) -> Ranks:
    """Return the mean ranks of systems, with Friedman's test and Nemenyi's critical difference.

    With k systems and N folds or corpora, χ² is Friedman's (1937), corrected for ties. Iman and Davenport's F is
    (N − 1) χ² / (N (k − 1) − χ²), with k − 1 and (k − 1)(N − 1) degrees of freedom. The critical difference is
    q √(k (k + 1) / (6 N)), where q is the upper 5% point of the studentized range over √2.

    Args:
        scores: One row per fold or corpus, one column per system. Higher is better, and none is missing.
    """
    n, k = scores.shape
    ranks = scores.rank(axis=1, ascending=False)
    means = ranks.mean()
    chi2 = _friedman(scores.to_numpy(float))
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else np.inf
    order = means.sort_values(kind="stable").index
    critical = float(stats.studentized_range.ppf(1 - LEVEL, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    ordered = means[order].to_numpy(float)
    return Ranks(
        names=tuple(map(str, order)),
        means=tuple(map(float, ordered)),
        chi2=chi2,
        f=float(f),
        p=float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))),
        critical=critical,
        groups=_groups(ordered, critical),
        n=n,
    )


def _friedman(scores: Array) -> float:
    """Return Friedman's statistic, corrected for ties. 0 if all scores are tied."""
    if np.ptp(scores, axis=1).max() == 0:
        return 0.0
    return float(stats.friedmanchisquare(*scores.T).statistic)


def _groups(means: Array, critical: float) -> tuple[tuple[int, int], ...]:
    """Return the longest runs of two or more means that differ by at most the critical difference."""
    made: list[tuple[int, int]] = []
    for first, mean in enumerate(means):
        last = int(np.searchsorted(means, mean + critical + 1e-9, side="right")) - 1
        if last > first and (not made or last > made[-1][1]):
            made.append((first, last))
    return tuple(made)


def by_fold(results: Results, block: AboutBlock, names: Sequence[str], metric: str) -> pd.DataFrame:
    """Return a metric by fold, as the mean over seeds: one row per fold, one column per configuration of a block.

    Configurations that are not done with every seed on every fold are left out.

    Args:
        results: Results of the study.
        block: Block that compares systems.
        names: Names of its configurations, for the columns.
        metric: Name of the metric, such as ``test_wa``.
    """
    made = {}
    for name, row, wanted in zip(names, block.rows, block.n_seeds, strict=True):
        trials = results.of_row(row)
        done = trials[(trials["status"] == "done") & trials["seed"].isin(block.seeds[:wanted])]
        if len(done) == wanted * results.about.folds and wanted:
            made[name] = done.groupby("fold")[metric].mean()
    frame = pd.DataFrame(made)
    frame.index = pd.Index([plain_value(x) for x in frame.index], name="fold")
    return frame


def why_not(places: int, systems: int, of: str) -> str:
    """Return the reason why there are no ranks. Empty if there can be ranks.

    Args:
        places: Number of folds or corpora.
        systems: Number of systems that are done on all of them.
        of: ``folds`` or ``corpora``.
    """
    if places < FEWEST:
        return f"it takes {FEWEST} {of} or more; this has {places}"
    if systems < FEWEST_SYSTEMS:
        return f"it takes {FEWEST_SYSTEMS} systems that are done on all {of}; this has {systems}"
    return ""

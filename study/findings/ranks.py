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
"""With fewer folds or corpora there is no diagram: their ranks say too little."""

FEWEST_SYSTEMS = 3
"""Two systems have nothing to rank."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Mean ranks of systems, and how far apart they must be.

    Attributes:
        names: of the systems, the best first.
        means: their mean ranks, 1 being the best.
        chi2: Friedman's statistic.
        f: Iman and Davenport's (1980); infinite where every fold ranks alike.
        p: of it: that all systems are equally good.
        critical: the critical difference: mean ranks further apart differ at 5% (Nemenyi, 1963).
        groups: first and last place of systems that are not told apart; none that is within another.
        n: over how many folds or corpora.
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
        scores: a row per fold or corpus, a column per system; the higher the better, none missing.
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
    """Return Friedman's statistic, corrected for ties; 0 where all are tied."""
    if np.ptp(scores, axis=1).max() == 0:
        return 0.0
    return float(stats.friedmanchisquare(*scores.T).statistic)


def _groups(means: Array, critical: float) -> tuple[tuple[int, int], ...]:
    """Return the longest runs of two or more means that are no further apart than the critical difference."""
    made: list[tuple[int, int]] = []
    for first, mean in enumerate(means):
        last = int(np.searchsorted(means, mean + critical + 1e-9, side="right")) - 1
        if last > first and (not made or last > made[-1][1]):
            made.append((first, last))
    return tuple(made)


def by_fold(results: Results, block: AboutBlock, names: Sequence[str], metric: str) -> pd.DataFrame:
    """Return a metric of a block's configurations by fold, the mean over seeds: a row a fold, a column a configuration.

    Configurations that are not done with every seed on every fold are left out.

    Args:
        results: of the study.
        block: that compares systems.
        names: of its configurations, for the columns.
        metric: such as ``test_wa``.
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
    """Return why there are no ranks, in words; empty: there can be.

    Args:
        places: how many folds or corpora there are.
        systems: how many are done on all of them.
        of: ``folds`` or ``corpora``.
    """
    if places < FEWEST:
        return f"it takes {FEWEST} {of} or more; this has {places}"
    if systems < FEWEST_SYSTEMS:
        return f"it takes {FEWEST_SYSTEMS} systems that are done on all {of}; this has {systems}"
    return ""

"""The difference of two confusion matrices, with a test of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from study.findings.statistics import LEVEL, Array


@dataclass(frozen=True, eq=False, kw_only=True)
class ConfusionDifference:
    """One configuration's confusion matrix minus another's.

    Attributes:
        points: (C, C), the mean difference, as fractions of the label's utterances. NaN if a class has no utterances.
        beyond_noise: (C, C), whether the cells differ by more than the variation between seeds explains.
        seeds: Number of seeds that both configurations have.
    """

    points: Array
    beyond_noise: npt.NDArray[np.bool_]
    seeds: int


def matrix_difference(
    first: Mapping[int, npt.NDArray[Any]], second: Mapping[int, npt.NDArray[Any]]
) -> ConfusionDifference | None:
    """Return the difference of two configurations' confusion matrices, paired by seed.

    Every cell is tested by Student's t for paired samples, with Holm's correction over the cells. If all seeds give
    the same difference, the p-value is that of the sign test, as in :func:`study.findings.statistics.paired`.

    Args:
        first: (C, C) counts of the first configuration by seed. Rows are labels and columns are predictions.
        second: (C, C) counts of the second configuration by seed.

    Returns:
        The difference, or `None` if the two have no seed in common or different numbers of classes.
    """
    seeds = [seed for seed in first if seed in second]
    if len({matrix.shape for matrices in (first, second) for matrix in matrices.values()}) != 1 or not seeds:
        return None
    differences = np.stack([_in_shares(first[seed]) - _in_shares(second[seed]) for seed in seeds])
    n, mean = len(seeds), differences.mean(axis=0)
    if n < 2:
        return ConfusionDifference(points=mean, beyond_noise=np.zeros(mean.shape, dtype=bool), seeds=n)
    error = differences.std(axis=0, ddof=1) / np.sqrt(n)
    same = error < 1e-12
    p = 2 * stats.t.sf(np.abs(mean) / np.where(same, 1, error), n - 1)
    p = np.where(same, np.where(np.abs(mean) < 1e-12, 1.0, 2.0 ** (1 - n)), p)
    return ConfusionDifference(points=mean, beyond_noise=_rejected(np.where(np.isnan(mean), np.nan, p)), seeds=n)


def _rejected(p: Array) -> npt.NDArray[np.bool_]:
    """Return the hypotheses that Holm's correction (1979) rejects.

    The smallest p-value must be below LEVEL / m, the next one below LEVEL / (m - 1), and so on. This is the decision
    of :func:`study.findings.statistics.holm` at :data:`LEVEL`, for a whole matrix.
    """
    order = np.argsort(p, axis=None)  # NaN comes last
    known = int(np.isfinite(p).sum())
    holds = p.ravel()[order[:known]] * np.arange(known, 0, -1) < LEVEL
    rejected = np.zeros(p.size, dtype=bool)
    rejected[order[: known if holds.all() else int(holds.argmin())]] = True
    return rejected.reshape(p.shape)


def _in_shares(counts: npt.NDArray[Any]) -> Array:
    """Return each row as shares of its sum. NaN if the sum is 0."""
    support = counts.sum(axis=1, keepdims=True)
    return np.where(support > 0, counts / np.maximum(support, 1), np.nan)

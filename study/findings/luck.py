"""Statistics for two kinds of luck, that of the seed and that of the test utterances.

A difference of two configurations is D[s, u]: the contribution of test utterance u with seed s. Every seed labels
every utterance, so seeds and utterances are crossed, and the mean over both varies with both. Arrays are (S, U): seeds,
utterances. docs/statistics.md gives the reasons for these methods, and docs/simulations.md the results of simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from study.findings.statistics import (
    DIFFERENCES,
    LEVEL,
    SEEDS_FOR_INTERVAL,
    SHARES,
    Array,
    Difference,
    Indices,
    Range,
)

ROPE = 0.01
"""Half width of the region of practical equivalence: differences below one point count as practically none."""

FEWEST_CLUSTERS = 8
"""Smallest number of speakers whose variance can be estimated. With fewer, utterances are taken as independent."""

Numbers = float | Array | Indices

MOST_SEEDS, MOST_UTTERANCES = 1000, 1_000_000
"""Largest numbers that :func:`seeds_needed` and :func:`utterances_needed` consider."""


def contributions(
    predicted: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    metric: str,
    num_classes: int,
    folds: Indices | None = None,
) -> Array:
    """Return the contribution of each test utterance to each seed's metric: (S, U).

    The mean over utterances is the seed's metric. The deviation from the mean is the utterance's influence (Hampel,
    1974; delta method). A metric f is a function of the confusion matrix M that does not change when all counts are
    multiplied by a number. So the influence of utterance u is U ∂f/∂M[label of u, prediction for u], and influences
    sum to zero (Euler). For WA, the contribution is 1 if the prediction is correct and 0 if it is wrong.

    Args:
        predicted: (S, U), predicted classes.
        labels: (U,), true classes.
        metric: Name in :data:`cemobam_core.metrics.METRICS`.
        num_classes: C, the number of classes.
        folds: (U,), the fold that tested each utterance. The metric is then the mean over folds, as in tables.
    """
    if folds is None:
        return _contributions(predicted, labels, metric, num_classes)
    names = np.unique(folds)
    weighted = np.empty(predicted.shape)
    mean = np.zeros((len(predicted), 1))
    for name in names:
        tested = folds == name
        of_fold = _contributions(predicted[:, tested], labels[tested], metric, num_classes)
        mean += of_fold.mean(axis=1, keepdims=True) / len(names)
        weighted[:, tested] = of_fold
    for name in names:
        tested = folds == name
        weighted[:, tested] = mean + (weighted[:, tested] - mean) / (tested.mean() * len(names))
    return weighted


def _contributions(predicted: npt.NDArray[Any], labels: npt.NDArray[Any], metric: str, num_classes: int) -> Array:
    import torch  # noqa: PLC0415  (slow to import)

    from cemobam_core.metrics import METRICS  # noqa: PLC0415
    from cemobam_core.metrics.metric import Counts  # noqa: PLC0415

    seeds, utterances = predicted.shape
    cells = labels.astype(np.int64) * num_classes + predicted  # (S, U)
    size = num_classes**2
    counts = np.bincount((cells + size * np.arange(seeds)[:, None]).ravel(), minlength=seeds * size)
    confusion = torch.from_numpy(counts.reshape(seeds, num_classes, num_classes)).double().requires_grad_()
    values = torch.stack([METRICS[metric].of(Counts.of(matrix)) for matrix in confusion])
    (gradient,) = torch.autograd.grad(values.sum(), confusion)  # a seed's metric depends on its own counts only
    influence = utterances * np.take_along_axis(gradient.reshape(seeds, size).numpy(), cells, axis=1)
    made: Array = values.detach().numpy()[:, None] + influence
    return made


@dataclass(frozen=True, kw_only=True)
class Components:
    """Components of the variance of a mean over seeds and utterances: seed / S + utterance / U + error / (S U).

    Attributes:
        seed: Variance between seeds, common to all utterances.
        utterance: Variance between utterances, common to all seeds. With clusters, it is scaled so that the formula
            holds with U.
        error: Remaining variance of single utterances with single seeds.
        seeds: S, the number of seeds.
        utterances: U, the number of utterances.
        clusters: Number of clusters of utterances. U if each utterance is its own cluster.
    """

    seed: float
    utterance: float
    error: float
    seeds: int
    utterances: int
    clusters: int

    @property
    def se(self) -> float:
        """The standard error of the mean."""
        return float(np.sqrt(self._parts.sum()))

    @property
    def df(self) -> float:
        """The degrees of freedom of :attr:`se` (:func:`_df`). NaN if nothing varies."""
        seed, utterance, error = self._parts
        return float(_df(seed + error, utterance + error, error, seeds=self.seeds, clusters=self.clusters))

    @property
    def _parts(self) -> Array:
        """The parts of seeds, utterances and error in the variance of the mean."""
        return _parts(self, self.seeds, self.utterances)

    @property
    def over_seeds(self) -> Components:
        """The components of the mean on exactly these utterances, so that only seeds vary."""
        return replace(self, seed=self.seed + self.error / self.utterances, utterance=0.0, error=0.0)


def _parts(variance: Components, seeds: Numbers, utterances: Numbers) -> Array:
    """Return the (3, …) parts of seeds, utterances and error in the variance of a mean over such numbers of them."""
    seeds, utterances = np.asarray(seeds, dtype=float), np.asarray(utterances, dtype=float)
    parts = (variance.seed / seeds, variance.utterance / utterances, variance.error / (seeds * utterances))
    return np.stack(np.broadcast_arrays(*parts))


def _df(a: Numbers, b: Numbers, error: Numbers, *, seeds: Numbers, clusters: Numbers) -> Array:
    """Return the degrees of freedom of a + b − error, three variances of a mean (Satterthwaite, 1946).

    The three have S − 1, G − 1 and (S − 1)(G − 1) degrees of freedom. A few seeds that agree by luck would give too
    many degrees of freedom. The result is therefore the smallest of three values: for a and b as they are, for a higher
    by one standard error, and for b higher by one. The standard error is sqrt(2 / degrees of freedom) times the
    variance. Without this, the worst mixture of the two kinds of luck gave false claims at 5.8% with five seeds and
    7.8% with three. With it, they are 5.1% and 6.1%. With two seeds, there is one degree of freedom.

    Args:
        a: Variance of the seeds' means.
        b: Variance of the means of utterances or clusters.
        error: Variance that is part of both.
        seeds: S, the number of seeds.
        clusters: G, the number of clusters.
    """
    of_a, of_b = np.asarray(seeds, dtype=float) - 1, np.asarray(clusters, dtype=float) - 1
    of_seeds, of_utterances = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    error = np.asarray(error, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):

        def with_these(a: Array, b: Array) -> Array:
            freedom = (a + b - error) ** 2 / (a**2 / of_a + b**2 / of_b + error**2 / (of_a * of_b))
            return np.asarray(freedom)

        higher_a, higher_b = of_seeds * (1 + np.sqrt(2 / of_a)), of_utterances * (1 + np.sqrt(2 / of_b))
        df = np.minimum(with_these(higher_a, of_utterances), with_these(of_seeds, higher_b))
        df = np.minimum(df, with_these(of_seeds, of_utterances))
    return np.asarray(np.where(of_a < SEEDS_FOR_INTERVAL - 1, np.minimum(df, of_a), df))


def components(values: Array, *, clusters: Indices | None = None, fold_ratio: float = 0.0) -> Components:
    """Return the variance components of a crossed design, by a two-way analysis of variance without replication.

    With A, B and E the mean squares of seeds, utterances and error over S U, the variance of the mean is A + B − E.
    A negative component counts as 0, so the variance is never smaller than that of the seeds alone or that of the
    utterances alone. With clusters, utterances are replaced by the sums over each cluster, times G / (G − 1) (Cameron,
    Gelbach and Miller, 2011, "Robust inference with multiway clustering"). If all clusters have the same size, this is
    the analysis of variance of their means.

    Args:
        values: (S, U), contributions to a difference or to one configuration's metric.
        clusters: (U,), the cluster of each utterance, such as a speaker or a fold. `None` means that each utterance is
            its own cluster.
        fold_ratio: For folds as clusters, the number of test utterances divided by the number of training utterances.
            Training sets overlap, so the variance of the mean of J folds has the factor (1 / J + fold_ratio) instead of
            1 / J (Nadeau and Bengio, 2003, "Inference for the generalization error").

    Returns:
        The components. They are NaN with one seed, one utterance or one cluster, which say nothing about luck.
    """
    seeds, utterances = values.shape
    groups, index = (utterances, None) if clusters is None else _numbered(clusters)
    if seeds < 2 or groups < 2:
        nothing = dict.fromkeys(("seed", "utterance", "error"), float("nan"))
        return Components(**nothing, seeds=seeds, utterances=utterances, clusters=groups)
    mean = values.mean()
    by_seed, by_utterance = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - by_seed[:, None] - by_utterance - mean
    if index is not None:
        by_utterance = np.bincount(index, by_utterance, groups)
        rest = np.stack([np.bincount(index, row, groups) for row in rest])
    # the variance of the mean, estimated from seeds, from utterances and from the rest
    a = float((by_seed**2).sum()) / (seeds * (seeds - 1))
    b = float((by_utterance**2).sum()) / utterances**2 * groups / (groups - 1)
    error = float((rest**2).sum()) / (seeds * utterances) ** 2 * seeds / (seeds - 1) * groups / (groups - 1)
    return Components(
        seed=max(0.0, a - error) * seeds,
        utterance=max(0.0, b - error) * (1 + groups * fold_ratio) * utterances,
        error=error * seeds * utterances,
        seeds=seeds,
        utterances=utterances,
        clusters=groups,
    )


def _numbered(clusters: npt.NDArray[Any]) -> tuple[int, Indices]:
    names, index = np.unique(clusters, return_inverse=True)
    return len(names), np.asarray(index, dtype=np.int64)


def cluster_by(names: Sequence[str] | npt.NDArray[Any] | None) -> Indices | None:
    """Return the cluster of each utterance.

    It is `None` if there are fewer than :data:`FEWEST_CLUSTERS` clusters or the names are not known. An interval then
    covers other utterances of the same speakers, not other speakers.

    Args:
        names: (U,), the speakers of the utterances. `None` if they are not known.
    """
    if names is None:
        return None
    groups, index = _numbered(np.asarray(names))
    return index if groups >= FEWEST_CLUSTERS else None


def crossed(
    differences: Array, *, clusters: Indices | None = None, fold_ratio: float = 0.0, level: float = LEVEL
) -> Difference:
    """Return the mean difference with an interval over other seeds and other utterances.

    The standard error comes from :func:`components`. The interval and the p-value use Student's t with Satterthwaite's
    degrees of freedom. If all differences are equal, the p-value is that of the sign test, as in
    :func:`study.findings.statistics.paired`.

    Args:
        differences: (S, U), :func:`contributions` of the first minus those of the second, paired by seed.
        clusters: As in :func:`components`. :func:`cluster_by` makes them from speakers.
        fold_ratio: As in :func:`components`.
        level: The confidence level of the interval is 1 - level.
    """
    n, utterances = differences.shape
    mean = float(differences.mean()) if differences.size else np.nan
    parts = components(differences, clusters=clusters, fold_ratio=fold_ratio)
    deviation = float(differences.mean(axis=1).std(ddof=1)) if n > 1 and utterances else np.nan
    se, df = parts.se, parts.df
    same = bool(n > 1 and utterances and np.ptp(differences) < 1e-12)
    if same:
        se, df = 0.0, np.nan
    low, high = _ends(mean, se, df, n, level=level, within=DIFFERENCES)
    if same:
        p = 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
    else:
        p = float(2 * stats.t.sf(abs(mean) / se, df)) if se > 0 else np.nan
    return Difference(
        mean=mean,
        low=low,
        high=high,
        d_z=mean / deviation if deviation > 1e-12 else np.nan,
        p=p,
        n=n,
        se=se,
        df=df,
        utterances=utterances,
    )


def _ends(mean: float, se: float, df: float, n: int, *, level: float, within: Range) -> tuple[float, float]:
    if n < SEEDS_FOR_INTERVAL or np.isnan(se):
        return np.nan, np.nan
    half = float(stats.t.ppf(1 - level / 2, df)) * se if se > 0 else 0.0
    return max(mean - half, within[0]), min(mean + half, within[1])


@dataclass(frozen=True, kw_only=True)
class Level:
    """One configuration's metric, with an interval over other seeds and other utterances.

    Attributes:
        mean: Mean over seeds and utterances.
        low: Lower end of the interval. NaN with fewer than :data:`study.findings.statistics.SEEDS_FOR_INTERVAL` seeds.
        high: Upper end of the interval.
        components: Components of the variance of the mean.
    """

    mean: float
    low: float
    high: float
    components: Components

    @property
    def se(self) -> float:
        """The standard error of the mean."""
        return self.components.se

    @property
    def df(self) -> float:
        """The degrees of freedom of :attr:`se`."""
        return self.components.df

    @property
    def n(self) -> int:
        """The number of seeds."""
        return self.components.seeds

    @property
    def utterances(self) -> int:
        """The number of test utterances."""
        return self.components.utterances


def level(
    values: Array,
    *,
    clusters: Indices | None = None,
    fold_ratio: float = 0.0,
    level: float = LEVEL,
    within: Range = SHARES,
) -> Level:
    """Return a configuration's mean metric with its interval over other seeds and other utterances.

    Args:
        values: (S, U), the configuration's :func:`contributions`.
        clusters: As in :func:`components`.
        fold_ratio: As in :func:`components`.
        level: The confidence level of the interval is 1 - level.
        within: Range in which the mean can lie. The interval is cut to it.
    """
    mean = float(values.mean()) if values.size else np.nan
    parts = components(values, clusters=clusters, fold_ratio=fold_ratio)
    low, high = _ends(mean, parts.se, parts.df, parts.seeds, level=level, within=within)
    return Level(mean=mean, low=low, high=high, components=parts)


def reproduced(ours: Level, published: float, paper_seeds: int = 5, level: float = LEVEL) -> Difference:
    """Return our level minus a published one, with the luck of both sides.

    The published result is a mean over other seeds on another test split. That split is assumed to have the same size
    and the same variance components as ours, so the variance of the difference is
    (seed + error / U) (1 / S + 1 / paper_seeds) + 2 utterance / U. If the :func:`equivalence` of the difference within
    :data:`ROPE` is significant, the result is "reproduced". Otherwise its p-value decides on "lower" or "higher than
    published".

    Args:
        ours: Level of our seeds on our test split.
        published: Mean in the paper.
        paper_seeds: Number of seeds of the paper's mean.
        level: The confidence level of the interval is 1 - level.
    """
    parts = ours.components
    both = 1 + parts.seeds / paper_seeds
    seed, utterance, error = _parts(parts, parts.seeds, parts.utterances)
    a, b, error = (seed + error) * both, 2 * (utterance + error), 2 * error
    mean, se = ours.mean - published, float(np.sqrt(a + b - error))
    df = float(_df(a, b, error, seeds=parts.seeds, clusters=parts.clusters))
    low, high = _ends(mean, se, df, parts.seeds, level=level, within=DIFFERENCES)
    p = float(2 * stats.t.sf(abs(mean) / se, df)) if se > 0 else np.nan
    return Difference(
        mean=mean, low=low, high=high, d_z=np.nan, p=p, n=parts.seeds, se=se, df=df, utterances=parts.utterances
    )


def equivalence(difference: Difference, rope: float = ROPE) -> float:
    """Return the p-value of two one-sided tests for a difference within the rope (Schuirmann, 1987).

    It is the larger of the p-values against "lower than −rope" and against "higher than rope". If all differences are
    equal, it is that of the sign test. NaN if the standard error is not known.

    Args:
        difference: Difference of two configurations, or of a level and a published one.
        rope: Differences smaller than this count as practically none.
    """
    mean, se = difference.mean, difference.se
    if np.isnan(se):
        return np.nan
    if se == 0:
        return 2.0**-difference.n if abs(mean) < rope else 1.0
    return float(stats.t.sf((rope - abs(mean)) / se, difference.df))


def probabilities(difference: Difference, rope: float = ROPE) -> tuple[float, float, float]:
    """Return the probabilities that the first is better, practically the same, or worse. They sum to 1.

    They come from the posterior of the true difference under a flat prior: Student's t around the mean, scaled by the
    standard error, with its degrees of freedom (Box and Tiao, 1973, section 2.4). NaN if the standard error is not
    known.

    Args:
        difference: Difference with seeds that took no part in choosing.
        rope: "Better" and "worse" mean by more than this.
    """
    mean, se = difference.mean, difference.se
    if np.isnan(se):
        return np.nan, np.nan, np.nan
    if se == 0:
        return float(mean > rope), float(abs(mean) <= rope), float(mean < -rope)
    better = float(stats.t.sf((rope - mean) / se, difference.df))
    worse = float(stats.t.cdf((-rope - mean) / se, difference.df))
    return better, max(0.0, 1 - better - worse), worse


def seeds_needed(mean: float, of: Components, level: float = LEVEL) -> int | None:
    """Return the total number of seeds at which the mean would be significant, if it and the components stay the same.

    This is the smallest number of seeds with which the mean exceeds the critical value. A new study with that many
    seeds finds a true difference of this size with a probability of one half.

    Args:
        mean: Observed difference.
        of: :func:`components` of the differences, or their :attr:`Components.over_seeds` for exactly these utterances.
        level: Level of the two-sided test.

    Returns:
        The number of seeds, or `None` if :data:`MOST_SEEDS` are not enough because the part of the utterances alone is
        too large.
    """
    seeds = np.arange(2, MOST_SEEDS + 1)
    parts = _parts(of, seeds, of.utterances)
    return _first(seeds, mean, parts, seeds=seeds, clusters=of.clusters, level=level)


def utterances_needed(mean: float, of: Components, level: float = LEVEL) -> int | None:
    """Return the approximate number of test utterances at which the mean would be significant with the same seeds.

    Args:
        mean: Observed difference.
        of: :func:`components` of the differences. The number of clusters grows with the number of utterances.
        level: Level of the two-sided test.

    Returns:
        The number of utterances, or `None` if :data:`MOST_UTTERANCES` are not enough because the part of the seeds
        alone is too large.
    """
    utterances = np.unique(np.geomspace(2, MOST_UTTERANCES, 3000).round().astype(int))
    clusters = np.maximum(2, utterances * (of.clusters / of.utterances))
    parts = _parts(of, of.seeds, utterances)
    return _first(utterances, mean, parts, seeds=of.seeds, clusters=clusters, level=level)


def _first(
    numbers: npt.NDArray[Any],
    mean: float,
    parts: Array,
    *,
    seeds: Numbers,
    clusters: Numbers,
    level: float,
) -> int | None:
    """Return the first of the numbers at which the mean exceeds its critical value, or `None` if there is none."""
    seed, utterance, error = parts
    df = _df(seed + error, utterance + error, error, seeds=seeds, clusters=clusters)
    significant = np.abs(mean) > stats.t.ppf(1 - level / 2, df) * np.sqrt(parts.sum(axis=0))
    return int(numbers[significant.argmax()]) if significant.any() else None


def over_looks(p: float, level: float) -> float:
    """Return the p-value of one look, corrected for all looks.

    It is below :data:`LEVEL` if the p-value is below the level of the look. The levels of all looks
    (:data:`study.design.seeds.SPENT`) sum to :data:`LEVEL`, so by Bonferroni's inequality the chance of a false claim
    at any look is at most that. The confidence level of the intervals of a look is 1 - level.

    Args:
        p: P-value of a test at this look.
        level: Level of the look.
    """
    return float(np.minimum(1.0, p * LEVEL / level))


def vote(predicted: npt.NDArray[Any], num_classes: int) -> Indices:
    """Return the class that most seeds predict for each utterance: (U,).

    If classes have the same number of seeds, the first class wins, as in scikit-learn's ``VotingClassifier``.

    Args:
        predicted: (S, U), predicted classes.
        num_classes: C, the number of classes.
    """
    return np.asarray(_votes(predicted, num_classes).argmax(axis=1), dtype=np.int64)


def agreement(predicted: npt.NDArray[Any], num_classes: int) -> float:
    """Return the share of utterances that two seeds label alike, as the mean over all pairs of seeds.

    NaN with one seed.

    Args:
        predicted: (S, U), predicted classes.
        num_classes: C, the number of classes.
    """
    seeds = len(predicted)
    if seeds < 2:
        return np.nan
    votes = _votes(predicted, num_classes)
    return float((votes * (votes - 1)).sum(axis=1).mean() / (seeds * (seeds - 1)))


def agreement_between(first: npt.NDArray[Any], second: npt.NDArray[Any], num_classes: int) -> float:
    """Return the share of utterances that a seed of the first and a seed of the second label alike, over all pairs.

    Args:
        first: (S, U), predicted classes.
        second: (S', U), predicted classes for the same utterances.
        num_classes: C, the number of classes.
    """
    votes = _votes(first, num_classes) * _votes(second, num_classes)
    return float(votes.sum(axis=1).mean() / (len(first) * len(second)))


def _votes(predicted: npt.NDArray[Any], num_classes: int) -> Indices:
    """Return the (U, C) numbers of seeds that predict each class."""
    utterances = predicted.shape[1]
    cells = np.arange(utterances) * num_classes + predicted
    return np.bincount(cells.ravel(), minlength=utterances * num_classes).reshape(utterances, num_classes)


def mcnemar(first: npt.NDArray[Any], second: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[float, int, int]:
    """Return McNemar's exact test of two labellings of the same utterances (McNemar, 1947; Dietterich, 1998).

    The test covers the luck of the utterances only. With :func:`vote` of two configurations, it compares the two
    ensembles.

    Args:
        first: (U,), predicted classes.
        second: (U,), predicted classes.
        labels: (U,), true classes.

    Returns:
        The two-sided p-value, the number of utterances that only the first labels correctly, and the number that only
        the second labels correctly.
    """
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    apart = only_first + only_second
    p = float(stats.binomtest(only_first, apart).pvalue) if apart else 1.0
    return p, only_first, only_second

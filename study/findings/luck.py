"""Two kinds of luck: another seed, and other utterances. What both allow to say of a difference, and of a level.

A difference of two configurations is D[s, u]: what test utterance u adds to it with seed s. Seeds and utterances are
crossed, because every seed labels every utterance, so the mean over both varies with both. Arrays are (S, U): seeds,
utterances. docs/statistics.md says why these methods, and what simulations show of them.
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
"""A difference smaller than this, one point, is practically none (region of practical equivalence)."""

FEWEST_CLUSTERS = 8
"""With fewer speakers their variance is not known well enough: utterances are then taken for independent."""

Numbers = float | Array | Indices

MOST_SEEDS, MOST_UTTERANCES = 1000, 1_000_000
"""More than these are not thought of."""


def contributions(
    predicted: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    metric: str,
    num_classes: int,
    folds: Indices | None = None,
) -> Array:
    """Return what each test utterance contributes to each seed's metric: (S, U).

    The mean over utterances is the seed's metric, the deviation from it the utterance's influence (Hampel, 1974;
    delta method). A metric f is a function of the confusion matrix M that does not change when all counts are
    multiplied. So the influence of utterance u is U ∂f/∂M[label of u, prediction for u], and influences sum to zero
    (Euler). For WA the contribution is 1 where the prediction is right and 0 where it is wrong.

    Args:
        predicted: (S, U), classes.
        labels: (U,), classes.
        metric: a name of :data:`cemobam_core.metrics.METRICS`.
        num_classes: C.
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
    (gradient,) = torch.autograd.grad(values.sum(), confusion)  # each seed's is its own
    influence = utterances * np.take_along_axis(gradient.reshape(seeds, size).numpy(), cells, axis=1)
    made: Array = values.detach().numpy()[:, None] + influence
    return made


@dataclass(frozen=True, kw_only=True)
class Components:
    """Where the variance of a mean over seeds and utterances comes from: seed / S + utterance / U + error / (S U).

    Attributes:
        seed: variance that a seed brings to all utterances.
        utterance: variance that an utterance brings to all seeds; of clusters, as if there were utterances alone.
        error: variance of an utterance with a seed beyond both.
        seeds: S.
        utterances: U.
        clusters: how many of the utterances' clusters there are; U where each stands for itself.
    """

    seed: float
    utterance: float
    error: float
    seeds: int
    utterances: int
    clusters: int

    @property
    def se(self) -> float:
        """The mean's standard error."""
        return float(np.sqrt(self._parts.sum()))

    @property
    def df(self) -> float:
        """Degrees of freedom of :attr:`se` (:func:`_df`); NaN where nothing varies."""
        seed, utterance, error = self._parts
        return float(_df(seed + error, utterance + error, error, seeds=self.seeds, clusters=self.clusters))

    @property
    def _parts(self) -> Array:
        """What seeds, utterances and the error bring to the mean's variance."""
        return _parts(self, self.seeds, self.utterances)

    @property
    def over_seeds(self) -> Components:
        """The components of the mean on these very utterances: what more utterances would change counts as none."""
        return replace(self, seed=self.seed + self.error / self.utterances, utterance=0.0, error=0.0)


def _parts(of: Components, seeds: Numbers, utterances: Numbers) -> Array:
    """(3, …): what seeds, utterances and error bring to the variance of a mean over so many."""
    seeds, utterances = np.asarray(seeds, dtype=float), np.asarray(utterances, dtype=float)
    return np.stack(np.broadcast_arrays(of.seed / seeds, of.utterance / utterances, of.error / (seeds * utterances)))


def _df(a: Numbers, b: Numbers, error: Numbers, *, seeds: Numbers, clusters: Numbers) -> Array:
    """Return the degrees of freedom of a + b − error, three variances of a mean (Satterthwaite, 1946).

    They have S − 1, G − 1 and (S − 1)(G − 1) degrees of freedom. Few seeds that agree by luck would give too many, so
    the answer is the least of three: as a and b are, and with either one standard error higher, which is sqrt(2 /
    degrees of freedom) of it. The worst mixture of the two kinds of luck gave false claims at 5.8% with five seeds and
    7.8% with three; so it gives them at 5.1% and 6.1%. With two seeds there is one degree of freedom.

    Args:
        a: of the seeds' means.
        b: of the utterances' or the clusters' means.
        error: of what is in both.
        seeds: S.
        clusters: G.
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
    """Return the variance components of a crossed design: an analysis of variance of two ways, without replication.

    With A, B and E the mean squares of seeds, utterances and error over S U, the variance of the mean is A + B − E.
    A component that comes out negative counts as none, so that the variance is never below that of the seeds alone,
    nor below that of the utterances alone. Clusters replace utterances by the sums over each cluster, times G / (G − 1)
    (Cameron, Gelbach and Miller, 2011, "Robust inference with multiway clustering"); where all clusters are equally
    large, this is the analysis of variance of their means.

    Args:
        values: (S, U), of differences or of one configuration.
        clusters: (U,), utterances that belong together: a speaker's, a fold's. Without, each stands for itself.
        fold_ratio: of folds as clusters, the test utterances over the training utterances. Training sets overlap, so
            the variance of J folds' mean is taken as (1 / J + fold_ratio) in place of 1 / J (Nadeau and Bengio, 2003,
            "Inference for the generalization error").

    Returns:
        Components that are NaN with one seed, one utterance or one cluster: these say nothing of luck.
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
    # the variance of the mean that each of them shows
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
    """Return each utterance's cluster; None where there are fewer than :data:`FEWEST_CLUSTERS`, or none are known.

    With None, an interval is over other utterances of these speakers, not over other speakers.

    Args:
        names: (U,), the utterances' speakers; None: not known.
    """
    if names is None:
        return None
    groups, index = _numbered(np.asarray(names))
    return index if groups >= FEWEST_CLUSTERS else None


def crossed(
    differences: Array, *, clusters: Indices | None = None, fold_ratio: float = 0.0, level: float = LEVEL
) -> Difference:
    """Return the mean difference with both kinds of luck: another seed and other utterances.

    The standard error is :func:`components`', the interval and the p-value are Student's t with Satterthwaite's
    degrees of freedom. Where all differences are equal the p-value is the sign test's, as in
    :func:`study.findings.statistics.paired`.

    Args:
        differences: (S, U): :func:`contributions` of the first less those of the second, each seed against itself.
        clusters: see :func:`components`; :func:`cluster_by` makes them of speakers.
        fold_ratio: likewise.
        level: the interval is of 1 - level.
    """
    n, utterances = differences.shape
    mean = float(differences.mean()) if differences.size else np.nan
    of = components(differences, clusters=clusters, fold_ratio=fold_ratio)
    deviation = float(differences.mean(axis=1).std(ddof=1)) if n > 1 and utterances else np.nan
    se, df = of.se, of.df
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
    """One configuration's metric, with both kinds of luck.

    Attributes:
        mean: over seeds and utterances.
        low: of its interval; NaN with fewer than :data:`study.findings.statistics.SEEDS_FOR_INTERVAL` seeds.
        high: likewise.
        components: what varies.
    """

    mean: float
    low: float
    high: float
    components: Components

    @property
    def se(self) -> float:
        """The mean's standard error."""
        return self.components.se

    @property
    def df(self) -> float:
        """Its degrees of freedom."""
        return self.components.df

    @property
    def n(self) -> int:
        """How many seeds."""
        return self.components.seeds

    @property
    def utterances(self) -> int:
        """How many test utterances."""
        return self.components.utterances


def level(
    values: Array,
    *,
    clusters: Indices | None = None,
    fold_ratio: float = 0.0,
    level: float = LEVEL,
    within: Range = SHARES,
) -> Level:
    """Return a configuration's mean metric, with its interval over another seed and other utterances.

    Args:
        values: (S, U), the configuration's :func:`contributions`.
        clusters: see :func:`components`.
        fold_ratio: likewise.
        level: the interval is of 1 - level.
        within: the range in which the mean can lie; the interval is cut to it.
    """
    mean = float(values.mean()) if values.size else np.nan
    of = components(values, clusters=clusters, fold_ratio=fold_ratio)
    low, high = _ends(mean, of.se, of.df, of.seeds, level=level, within=within)
    return Level(mean=mean, low=low, high=high, components=of)


def reproduced(ours: Level, published: float, paper_seeds: int = 5, level: float = LEVEL) -> Difference:
    """Return our level less a published one, with the luck of both sides.

    The published figure is a mean over seeds of its own, on a test split of its own, which is taken to be as large as
    ours and to vary as ours does: (seed + error / U) (1 / S + 1 / paper_seeds) + 2 utterance / U. Its
    :func:`equivalence` within :data:`ROPE` says "reproduced"; its p-value, where that does not hold, "lower" or
    "higher than published".

    Args:
        ours: of our seeds on our test split.
        published: the paper's mean.
        paper_seeds: over how many seeds.
        level: the interval is of 1 - level.
    """
    of = ours.components
    both = 1 + of.seeds / paper_seeds
    seed, utterance, error = _parts(of, of.seeds, of.utterances)
    a, b, error = (seed + error) * both, 2 * (utterance + error), 2 * error
    mean, se = ours.mean - published, float(np.sqrt(a + b - error))
    df = float(_df(a, b, error, seeds=of.seeds, clusters=of.clusters))
    low, high = _ends(mean, se, df, of.seeds, level=level, within=DIFFERENCES)
    p = float(2 * stats.t.sf(abs(mean) / se, df)) if se > 0 else np.nan
    return Difference(
        mean=mean, low=low, high=high, d_z=np.nan, p=p, n=of.seeds, se=se, df=df, utterances=of.utterances
    )


def equivalence(difference: Difference, rope: float = ROPE) -> float:
    """Return the p-value of two one-sided tests: that the difference is within the rope (Schuirmann, 1987).

    The larger of the two p-values, against "lower than −rope" and against "higher than rope". Where all differences are
    equal it is the sign test's. NaN where the standard error is not known.

    Args:
        difference: of two configurations, or of a level and a published one.
        rope: a difference smaller than this is practically none.
    """
    mean, se = difference.mean, difference.se
    if np.isnan(se):
        return np.nan
    if se == 0:
        return 2.0**-difference.n if abs(mean) < rope else 1.0
    return float(stats.t.sf((rope - abs(mean)) / se, difference.df))


def probabilities(difference: Difference, rope: float = ROPE) -> tuple[float, float, float]:
    """Return how probable it is that the first is better, practically the same, and worse: they sum to 1.

    From the posterior of the true difference under a flat prior: Student's t about the mean, scaled by the standard
    error, with its degrees of freedom (Box and Tiao, 1973, section 2.4). NaN where the standard error is not known.

    Args:
        difference: of seeds that took no part in choosing.
        rope: better and worse are by more than this.
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
    """Return with how many seeds in all the mean would be told from 0, if it and the components stay as they are.

    That is, the smallest number of seeds with which the mean is beyond the critical value: a new study of so many
    seeds finds a true difference of this size every other time.

    Args:
        mean: the observed difference.
        of: :func:`components` of the differences; their :attr:`Components.over_seeds` on these very utterances.
        level: two-sided.

    Returns:
        None where :data:`MOST_SEEDS` would not do: the utterances' part alone is too large.
    """
    seeds = np.arange(2, MOST_SEEDS + 1)
    parts = _parts(of, seeds, of.utterances)
    return _first(seeds, mean, parts, seeds=seeds, clusters=of.clusters, level=level)


def utterances_needed(mean: float, of: Components, level: float = LEVEL) -> int | None:
    """Return with about how many test utterances the mean would be told from 0 with the seeds that there are.

    Args:
        mean: the observed difference.
        of: :func:`components` of the differences. Clusters grow in number with the utterances.
        level: two-sided.

    Returns:
        None where :data:`MOST_UTTERANCES` would not do: the seeds' part alone is too large.
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
    """The first of the numbers with which the mean is beyond its critical value."""
    seed, utterance, error = parts
    df = _df(seed + error, utterance + error, error, seeds=seeds, clusters=clusters)
    told = np.abs(mean) > stats.t.ppf(1 - level / 2, df) * np.sqrt(parts.sum(axis=0))
    return int(numbers[told.argmax()]) if told.any() else None


def over_looks(p: float, level: float) -> float:
    """Return a p-value of one look as it counts: below :data:`LEVEL` where the look's own level is reached.

    The levels of all looks (:data:`study.design.seeds.SPENT`) sum to :data:`LEVEL`. So by Bonferroni's inequality an
    effect is claimed by mistake at any of them no more often than that. The intervals of a look are of 1 - level.

    Args:
        p: of a test at this look.
        level: of the look.
    """
    return float(np.minimum(1.0, p * LEVEL / level))


def vote(predicted: npt.NDArray[Any], num_classes: int) -> Indices:
    """Return the class that most seeds predict for each utterance: (U,).

    Of classes with equally many seeds it is the one that comes first, as in scikit-learn's ``VotingClassifier``.

    Args:
        predicted: (S, U), classes.
        num_classes: C.
    """
    return np.asarray(_votes(predicted, num_classes).argmax(axis=1), dtype=np.int64)


def agreement(predicted: npt.NDArray[Any], num_classes: int) -> float:
    """Return the share of utterances that two seeds label alike, the mean over all pairs of seeds; NaN of one seed.

    Args:
        predicted: (S, U), classes.
        num_classes: C.
    """
    seeds = len(predicted)
    if seeds < 2:
        return np.nan
    votes = _votes(predicted, num_classes)
    return float((votes * (votes - 1)).sum(axis=1).mean() / (seeds * (seeds - 1)))


def agreement_between(first: npt.NDArray[Any], second: npt.NDArray[Any], num_classes: int) -> float:
    """Return the share of utterances that a seed of the one and a seed of the other label alike, over all such pairs.

    Args:
        first: (S, U), classes.
        second: (S', U), classes for the same utterances.
        num_classes: C.
    """
    votes = _votes(first, num_classes) * _votes(second, num_classes)
    return float(votes.sum(axis=1).mean() / (len(first) * len(second)))


def _votes(predicted: npt.NDArray[Any], num_classes: int) -> Indices:
    """(U, C): how many seeds predict each class."""
    utterances = predicted.shape[1]
    cells = np.arange(utterances) * num_classes + predicted
    return np.bincount(cells.ravel(), minlength=utterances * num_classes).reshape(utterances, num_classes)


def mcnemar(first: npt.NDArray[Any], second: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[float, int, int]:
    """Return McNemar's test of two labellings of the same utterances, exact (McNemar, 1947; Dietterich, 1998).

    It is over utterances alone: give it :func:`vote` of each, and it tells the two ensembles apart.

    Args:
        first: (U,), classes.
        second: (U,), classes.
        labels: (U,), classes.

    Returns:
        The two-sided p-value; how many utterances only the first has right; how many only the second.
    """
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    apart = only_first + only_second
    p = float(stats.binomtest(only_first, apart).pvalue) if apart else 1.0
    return p, only_first, only_second

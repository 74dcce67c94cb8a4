"""Statistics over seeds: intervals, differences paired by seed, the grid's variance, and corrections for a choice.

Everything here covers the luck of the seed: the results of other seeds on these utterances, not on other utterances.
Arrays of a grid are (S, A, B): seeds, K_audio, K_text. docs/statistics.md gives the reasons for these methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import linalg, stats

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

LEVEL = 0.05
"""Significance level of all tests. The confidence level of intervals is 1 - LEVEL."""

SEEDS_FOR_INTERVAL = 3
"""Smallest number of seeds for an interval. With two, Student's t gives 12.7 standard errors on either side."""

Range = tuple[float, float]
ANYTHING: Range = (-np.inf, np.inf)
SHARES: Range = (0.0, 1.0)
"""Range of WA, UA and w-F1, and of their means."""
DIFFERENCES: Range = (-1.0, 1.0)
"""Range of a difference of two shares."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds with its 95% interval, which is NaN with fewer than :data:`SEEDS_FOR_INTERVAL` seeds."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        mean: First minus second.
        low: Lower end of the interval, which is a 95% interval unless another level was asked for. NaN with fewer than
            :data:`SEEDS_FOR_INTERVAL` seeds.
        high: Upper end of the interval.
        d_z: Mean divided by the standard deviation of the seeds' differences (Cohen, 1988, section 2.3.5).
        p: Two-sided p-value. NaN with one seed.
        n: Number of seeds that both sides have.
        se: Standard error of the mean. NaN with one seed.
        df: Degrees of freedom of the standard error. NaN if it has none.
        utterances: Number of test utterances if the interval also covers other utterances. 0 if it covers only seeds.
    """

    mean: float
    low: float
    high: float
    d_z: float
    p: float
    n: int
    se: float
    df: float
    utterances: int = 0


def half_width(std: npt.ArrayLike, n: npt.ArrayLike) -> Array:
    """Return half the width of a mean's 95% interval by Student's t (Student, 1908) with n - 1 degrees of freedom.

    Args:
        std: Sample standard deviation over seeds.
        n: Number of seeds. With fewer than :data:`SEEDS_FOR_INTERVAL`, the result is NaN.
    """
    n = np.asarray(n)
    enough = np.where(n >= SEEDS_FOR_INTERVAL, n, SEEDS_FOR_INTERVAL)
    half = stats.t.ppf(1 - LEVEL / 2, enough - 1) * np.asarray(std) / np.sqrt(enough)
    return np.where(n >= SEEDS_FOR_INTERVAL, half, np.nan)


def interval_ends(mean: npt.ArrayLike, std: npt.ArrayLike, n: npt.ArrayLike, within: Range) -> tuple[Array, Array]:
    """Return both ends of a mean's 95% interval, cut to the range in which the mean can lie.

    An interval by Student's t may exceed 100%, which no mean of shares can. Cutting does not change the coverage: the
    true mean is in the range, so the cut interval contains it exactly if the whole interval does.

    Args:
        mean: Mean over seeds.
        std: Sample standard deviation over seeds.
        n: Number of seeds.
        within: Range in which the mean can lie.
    """
    mean, half = np.asarray(mean), half_width(std, n)
    return np.maximum(mean - half, within[0]), np.minimum(mean + half, within[1])  # NaN stays NaN


def mean_interval(values: Array, within: Range = ANYTHING) -> Interval:
    """Return the mean of one value per seed, with its 95% interval (:func:`interval_ends`).

    Args:
        values: One value per seed.
        within: Range in which the mean can lie.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    low, high = interval_ends(mean, np.std(values, ddof=1) if n > 1 else np.nan, n, within)
    return Interval(mean=mean, low=float(low), high=float(high), n=n)


def paired(first: Array, second: Array, level: float = LEVEL) -> Difference:
    """Return the difference of two configurations by Student's t for samples that are paired by seed (Student, 1908).

    The luck of a seed that both configurations share cancels. If every seed gives the same difference, Student's t is
    not defined. The p-value is then that of the sign test, which is at least 0.06 with five seeds.

    Args:
        first: One share per seed.
        second: One share per seed, for the same seeds in the same order.
        level: The confidence level of the interval is 1 - level.
    """
    differences = np.asarray(first) - np.asarray(second)
    n = len(differences)
    mean = float(np.mean(differences)) if n else np.nan
    if n < 2:
        return Difference(mean=mean, low=np.nan, high=np.nan, d_z=np.nan, p=np.nan, n=n, se=np.nan, df=np.nan)
    if np.ptp(differences) < 1e-12:
        p = 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
        end = mean if n >= SEEDS_FOR_INTERVAL else np.nan
        return Difference(mean=mean, low=end, high=end, d_z=np.nan, p=p, n=n, se=0.0, df=np.nan)
    std = float(differences.std(ddof=1))
    se = std / np.sqrt(n)
    half = float(stats.t.ppf(1 - level / 2, n - 1)) * se if n >= SEEDS_FOR_INTERVAL else np.nan
    return Difference(
        mean=mean,
        low=float(np.maximum(mean - half, DIFFERENCES[0])),
        high=float(np.minimum(mean + half, DIFFERENCES[1])),
        d_z=mean / std,
        p=float(2 * stats.t.sf(abs(mean) / se, n - 1)),
        n=n,
        se=se,
        df=n - 1.0,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests (Holm, 1979). NaN stays NaN and does not count as a test."""
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")[: int((~np.isnan(given)).sum())]  # NaN comes last
    corrected = np.full(len(given), np.nan)
    steps = np.arange(len(order), 0, -1) * given[order]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One effect of the analysis of variance.

    Attributes:
        name: ``K_audio``, ``K_text``, ``interaction``, or ``pairs`` for the three together.
        df: Degrees of freedom before correction.
        omega2: Share of the variance of single trials that the effect explains, corrected for the share that chance
            alone would explain.
        f: Mean square of the effect divided by the mean square of its interaction with the seeds.
        epsilon: Greenhouse and Geisser's correction of the degrees of freedom.
        p: P-value with corrected degrees of freedom.
    """

    name: str
    df: int
    omega2: float
    f: float
    epsilon: float
    p: float


@dataclass(frozen=True, kw_only=True)
class GridVariance:
    """The parts of K and of luck in the variance over the grid.

    Attributes:
        effects: Effects that the grid can show: K_audio and K_text if they have two values or more, and their
            interaction.
        pairs: All pairs of K as one effect.
        share: Share of K in the variance of the pairs' means over seeds. The rest is luck.
        share_low: Lower end of the share's 95% interval. NaN with fewer than :data:`SEEDS_FOR_INTERVAL` seeds.
        share_high: Upper end of that interval.
        std_of_means: Standard deviation of the pairs' means.
        std_of_seeds: Standard deviation of a trial around its pair's mean, without the luck that all pairs of a seed
            share.
    """

    effects: tuple[Effect, ...]
    pairs: Effect
    share: float
    share_low: float
    share_high: float
    std_of_means: float
    std_of_seeds: float


def grid_variance(values: Array) -> GridVariance | None:
    """Return a two-way analysis of variance within seeds: K_audio, K_text and their interaction.

    All pairs share their seeds, and a seed that suits one pair also suits its neighbours, whose graphs are nearly the
    same. So the trials of a seed are repeated measures. Each effect is tested against its own interaction with the
    seeds (Winer, 1971, chapter 7). The degrees of freedom are reduced by the epsilon of Greenhouse and Geisser (1959),
    estimated from the covariance of the residuals. If trials were taken as independent, luck would look like an effect.
    Omega squared (Hays, 1963; for repeated measures Olejnik and Algina, 2003) is cut at 0.

    Args:
        values: (S, A, B), one value per trial, without missing values.

    Returns:
        The analysis, or `None` for one seed, one pair, or seeds that do not differ at all, because nothing then shows
        how large luck is.
    """
    seeds, a, b = values.shape
    if seeds < 2 or a * b < 2:
        return None
    audio, text = _contrasts(a), _contrasts(b)
    scores = {
        "K_audio": np.einsum("sab,ia->si", values, audio) / np.sqrt(b),
        "K_text": np.einsum("sab,ib->si", values, text) / np.sqrt(a),
        "interaction": np.einsum("sab,ia,jb->sij", values, audio, text, optimize=True).reshape(seeds, -1),
    }
    scores = {name: score for name, score in scores.items() if score.shape[1]}
    every = np.concatenate(list(scores.values()), axis=1)
    if every.var(axis=0).sum() < 1e-18:
        return None
    seed_means = values.mean(axis=(1, 2))
    # denominator of omega squared: the total sum of squares plus the mean square of the seeds
    total = float(((values - values.mean()) ** 2).sum() + a * b * seed_means.var(ddof=1))
    pairs = _effect("pairs", every, total)
    # F is the ratio of two mean squares (MS): E[MS of pairs] = luck + S × variance of K, and
    # E[MS of their interaction with seeds] = luck
    low, high = (
        _share(pairs.f / stats.f.ppf(q, pairs.epsilon * pairs.df, pairs.epsilon * pairs.df * (seeds - 1)))
        if seeds >= SEEDS_FOR_INTERVAL
        else np.nan
        for q in (1 - LEVEL / 2, LEVEL / 2)
    )
    return GridVariance(
        effects=tuple(_effect(name, score, total) for name, score in scores.items()),
        pairs=pairs,
        share=_share(pairs.f),
        share_low=low,
        share_high=high,
        std_of_means=float(values.mean(axis=0).std(ddof=1)),
        std_of_seeds=float(np.sqrt(every.var(axis=0, ddof=1).mean())),
    )


def _contrasts(n: int) -> Array:
    """Return (n - 1, n) orthonormal rows that sum to zero (Helmert's contrasts)."""
    return np.asarray(linalg.helmert(n)) if n > 1 else np.zeros((0, n))


def _share(f: float) -> float:
    return max(0.0, 1 - 1 / f) if f > 0 else 0.0


def _effect(name: str, scores: Array, total: float) -> Effect:
    """Return one effect from (S, df) contrast scores."""
    seeds, df = scores.shape
    centred = scores - scores.mean(axis=0)
    gram = centred @ centred.T / (seeds - 1)  # has the same nonzero eigenvalues as the covariance, and is smaller
    trace, square = float(np.trace(gram)), float((gram**2).sum())
    error = trace / df
    between = seeds * float((scores.mean(axis=0) ** 2).sum())
    tiny = 1e-18 * seeds * df  # values are fractions; rounding errors are about 1e-32
    if between < tiny:
        f, p = 0.0, 1.0
    elif error * df < tiny:  # the same in every seed: the sign test, as in :func:`paired`
        f, p = np.inf, 2.0 ** (1 - seeds)
    else:
        f, p = between / df / error, None
    epsilon = min(1.0, max(1 / df, trace**2 / (df * square))) if square > 0 else 1 / df
    return Effect(
        name=name,
        df=df,
        omega2=max(0.0, (between - df * error) / total),
        f=f,
        epsilon=epsilon,
        p=float(stats.f.sf(f, epsilon * df, epsilon * df * (seeds - 1))) if p is None else p,
    )


def marginal(values: Array, axis: Literal["k_audio", "k_text"]) -> list[Interval]:
    """Return the effect of each value of one K: its mean over the other K minus the grid's mean, seed by seed.

    Subtracting the grid's mean of the same seed removes the luck that all pairs share, as in within-subject intervals
    (Loftus and Masson, 1994; Cousineau, 2005).
    """
    over = 2 if axis == "k_audio" else 1
    levels = values.mean(axis=over) - values.mean(axis=(1, 2))[:, None]  # (S, levels)
    return [mean_interval(level, DIFFERENCES) for level in levels.T]


def best(choosing: Array) -> Indices:
    """Return the index of the best pair. If pairs are equal, the first one wins.

    Args:
        choosing: (…, pairs), the means that choose.
    """
    # rounded, so that equal counts of correct utterances give equal means in any order of summation
    return np.asarray(choosing.round(10).argmax(axis=-1))


def held_out(choosing: Array, measured: Array) -> Array:
    """Return each seed's value at the pair that the other seeds choose: (S,).

    A pair that was chosen because of lucky seeds is worse with other seeds. Here no seed measures a pair that it helped
    to choose, so the mean is unbiased for a pair chosen with one seed less (cross-validation: Stone, 1974).

    Args:
        choosing: (S, A, B), the values that choose, usually those of the validation split.
        measured: (S, A, B), the values that are reported.
    """
    chosen = best(_others(choosing))
    figures: Array = np.take_along_axis(_flat(measured), chosen[:, None], axis=1)[:, 0]
    return figures


def _others(choosing: Array) -> Array:
    """Return the (S, pairs) means of the other seeds, for each seed."""
    flat = _flat(choosing)
    others: Array = (flat.sum(axis=0) - flat) / max(1, len(flat) - 1)
    return others


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The result of choosing a pair: the reported mean, and the mean on new seeds.

    Attributes:
        chosen: Index of the pair.
        reported: Mean of the pair over the seeds that chose it.
        on_new_seed: Mean on seeds that took no part in the choice (:func:`held_out`).
        optimism: Reported mean minus the mean on new seeds, paired by seed. The interval is approximate, because each
            seed takes part in the choices for the others.
        same: Number of leave-one-out choices that are the same pair.
    """

    chosen: int
    reported: float
    on_new_seed: Interval
    optimism: Difference
    same: int


def selection(choosing: Array, measured: Array) -> Selection:
    """Return the best pair by ``choosing``, with its mean in ``measured`` on the choosing seeds and on new seeds.

    Args:
        choosing: (S, A, B), the values that choose. The released code chooses on test, so they equal ``measured``.
        measured: (S, A, B), the values that are reported.
    """
    means: Array = _flat(choosing).mean(axis=0)
    chosen = int(best(means))
    fresh, at_chosen = held_out(choosing, measured), _flat(measured)[:, chosen]
    return Selection(
        chosen=chosen,
        reported=float(at_chosen.mean()),
        on_new_seed=mean_interval(fresh, SHARES),
        optimism=paired(at_chosen, fresh),
        same=int((best(_others(choosing)) == chosen).sum()),
    )

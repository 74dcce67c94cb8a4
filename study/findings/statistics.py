"""What survives noise: intervals, differences paired by seed, the grid's variance, and corrections for having chosen.

Everything here is over seeds: it says what another seed would have given on these utterances, not what other
utterances would. Arrays of a grid are (S, A, B): seeds, K_audio, K_text. docs/statistics.md says why these methods.
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
"""What is rarer than this under no effect is called an effect; intervals are of 1 - LEVEL."""

SEEDS_FOR_INTERVAL = 3
"""With fewer seeds there is no interval: of two, Student's t makes it 12.7 standard errors to either side."""

Range = tuple[float, float]
ANYTHING: Range = (-np.inf, np.inf)
SHARES: Range = (0.0, 1.0)
"""Where WA, UA and w-F1 lie, and so do their means."""
DIFFERENCES: Range = (-1.0, 1.0)
"""Where a difference of two shares lies."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds with its 95% interval; NaN with fewer than :data:`SEEDS_FOR_INTERVAL` seeds."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        mean: the first less the second.
        low: of its interval, of 95% unless another level was asked for; NaN with fewer than
            :data:`SEEDS_FOR_INTERVAL` seeds.
        high: likewise.
        d_z: the mean over the standard deviation of the seeds' differences (Cohen, 1988, section 2.3.5).
        p: two-sided; NaN where one seed is all there is.
        n: seeds that both sides have.
        se: the mean's standard error; NaN where one seed is all there is.
        df: its degrees of freedom; NaN where it has none.
        utterances: over how many test utterances the interval generalises; 0: over seeds alone.
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
    """Return half of a mean's 95% interval: Student's t (Student, 1908) with n - 1 degrees of freedom.

    Args:
        std: sample standard deviation over seeds.
        n: how many seeds; with fewer than :data:`SEEDS_FOR_INTERVAL` the answer is NaN.
    """
    n = np.asarray(n)
    enough = np.where(n >= SEEDS_FOR_INTERVAL, n, SEEDS_FOR_INTERVAL)
    half = stats.t.ppf(1 - LEVEL / 2, enough - 1) * np.asarray(std) / np.sqrt(enough)
    return np.where(n >= SEEDS_FOR_INTERVAL, half, np.nan)


def interval_ends(mean: npt.ArrayLike, std: npt.ArrayLike, n: npt.ArrayLike, within: Range) -> tuple[Array, Array]:
    """Return both ends of a mean's 95% interval, cut to the range in which the mean can lie.

    Student's t may pass 100%, which no mean of shares can. Cutting costs no coverage: the true mean lies within the
    range, so the cut interval holds it exactly when the whole one does.

    Args:
        mean: over seeds.
        std: sample standard deviation over seeds.
        n: how many seeds.
        within: the range.
    """
    mean, half = np.asarray(mean), half_width(std, n)
    return np.maximum(mean - half, within[0]), np.minimum(mean + half, within[1])  # NaN stays NaN


def mean_interval(values: Array, within: Range = ANYTHING) -> Interval:
    """Return the mean of one figure a seed, with its 95% interval (:func:`interval_ends`).

    Args:
        values: one figure a seed.
        within: the range in which the mean can lie.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    low, high = interval_ends(mean, np.std(values, ddof=1) if n > 1 else np.nan, n, within)
    return Interval(mean=mean, low=float(low), high=float(high), n=n)


def paired(first: Array, second: Array, level: float = LEVEL) -> Difference:
    """Two configurations, each seed against itself: Student's t for paired samples (Student, 1908).

    The seed's own luck, which both share, cancels. Where every seed gives the same difference Student's t is not
    defined; the p-value is then the sign test's, which five seeds cannot bring below 0.06.

    Args:
        first: one share a seed.
        second: the same seeds in the same order.
        level: the interval is of 1 - level.
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
    """P-values corrected for being several (Holm, 1979); those that are NaN stay so and do not count."""
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
        df: degrees of freedom, before correction.
        omega2: share of the variance of single trials that is the effect, less what chance alone would give.
        f: its mean square over that of its interaction with the seeds.
        epsilon: Greenhouse and Geisser's correction of the degrees of freedom.
        p: with corrected degrees of freedom.
    """

    name: str
    df: int
    omega2: float
    f: float
    epsilon: float
    p: float


@dataclass(frozen=True, kw_only=True)
class GridVariance:
    """How much of the spread over the grid is K and how much is luck.

    Attributes:
        effects: those that the grid can show: K_audio and K_text with two values or more, and their interaction.
        pairs: all K pairs as one effect.
        share: of the variance of the pairs' means over seeds, the part that K makes; the rest is luck.
        share_low: of its 95% interval; NaN with fewer than :data:`SEEDS_FOR_INTERVAL` seeds.
        share_high: likewise.
        std_of_means: standard deviation of the pairs' means.
        std_of_seeds: standard deviation of a trial around its pair's mean, the seed's shared luck aside.
    """

    effects: tuple[Effect, ...]
    pairs: Effect
    share: float
    share_low: float
    share_high: float
    std_of_means: float
    std_of_seeds: float


def grid_variance(values: Array) -> GridVariance | None:
    """A two-way analysis of variance within seeds: K_audio, K_text, their interaction; the residual is the seeds'.

    All pairs share their seeds, and a seed that suits one pair suits its neighbours, whose graphs are nearly the same.
    So the trials of a seed are repeated measures: each effect is tested against its own interaction with the seeds
    (Winer, 1971, chapter 7), and the degrees of freedom are cut by the epsilon of Greenhouse and Geisser (1959), as
    the residuals' own covariance shows it. Taking trials for independent instead would find effects in luck.
    Omega squared (Hays, 1963; for repeated measures Olejnik and Algina, 2003) may not fall below 0.

    Args:
        values: (S, A, B), one figure a trial, complete.

    Returns:
        None for one seed, one pair, or seeds that do not differ at all: then nothing says how large luck is.
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
    # all that varies, and once more the seeds' mean square: omega squared's denominator
    total = float(((values - values.mean()) ** 2).sum() + a * b * seed_means.var(ddof=1))
    pairs = _effect("pairs", every, total)
    # E[MS of pairs] = luck + S K's variance, E[MS of its interaction with seeds] = luck: F is their ratio
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
    """(n - 1, n) orthonormal rows that sum to zero (Helmert's)."""
    return np.asarray(linalg.helmert(n)) if n > 1 else np.zeros((0, n))


def _share(f: float) -> float:
    return max(0.0, 1 - 1 / f) if f > 0 else 0.0


def _effect(name: str, scores: Array, total: float) -> Effect:
    """One effect from (S, df) contrast scores."""
    seeds, df = scores.shape
    centred = scores - scores.mean(axis=0)
    gram = centred @ centred.T / (seeds - 1)  # has the covariance's eigenvalues, and is smaller
    trace, square = float(np.trace(gram)), float((gram**2).sum())
    error = trace / df
    between = seeds * float((scores.mean(axis=0) ** 2).sum())
    tiny = 1e-18 * seeds * df  # of fractions; rounding is 1e-32
    if between < tiny:
        f, p = 0.0, 1.0
    elif error * df < tiny:  # the same in every seed: the sign test, as :func:`paired` has it
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
    """The effect of each value of one K: its mean over the other K, less the grid's mean, seed by seed.

    Subtracting the grid's mean of the same seed leaves out the luck that all pairs share, as intervals within subjects
    do (Loftus and Masson, 1994; Cousineau, 2005).
    """
    over = 2 if axis == "k_audio" else 1
    levels = values.mean(axis=over) - values.mean(axis=(1, 2))[:, None]  # (S, levels)
    return [mean_interval(level, DIFFERENCES) for level in levels.T]


def best(choosing: Array) -> Indices:
    """Return the index of the best pair; of equal ones that of the first.

    Args:
        choosing: (…, pairs), the means that choose.
    """
    # rounded, so that equal counts of right utterances are equal, whatever the order of the sum
    return np.asarray(choosing.round(10).argmax(axis=-1))


def held_out(choosing: Array, measured: Array) -> Array:
    """Return each seed's figure at the pair that the other seeds choose: (S,).

    A pair that was chosen for its seeds' luck is not as good with others. Here no seed measures a pair that it helped
    to choose, so the mean is unbiased for a pair chosen with one seed less (cross-validation: Stone, 1974).

    Args:
        choosing: (S, A, B), what chooses: usually the validation split's.
        measured: (S, A, B), what is reported.
    """
    chosen = best(_others(choosing))
    figures: Array = np.take_along_axis(_flat(measured), chosen[:, None], axis=1)[:, 0]
    return figures


def _others(choosing: Array) -> Array:
    """(S, pairs): for each seed, the mean of the others."""
    flat = _flat(choosing)
    others: Array = (flat.sum(axis=0) - flat) / max(1, len(flat) - 1)
    return others


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What choosing a pair promises and what it holds.

    Attributes:
        chosen: the pair's index.
        reported: its mean, over the seeds that chose it.
        on_new_seed: the mean on seeds that had no part in the choice (:func:`held_out`).
        optimism: reported less that, paired by seed; the interval is approximate, as the seeds choose for one another.
        same: how many of the leave-one-out choices are the same pair.
    """

    chosen: int
    reported: float
    on_new_seed: Interval
    optimism: Difference
    same: int


def selection(choosing: Array, measured: Array) -> Selection:
    """The best pair by ``choosing``, as ``measured`` reports it and as it does on seeds that did not choose.

    Args:
        choosing: (S, A, B); the same as ``measured`` for the released code, which chooses on test.
        measured: (S, A, B).
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

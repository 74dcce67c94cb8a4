"""Artificial systems on artificial utterances with known accuracy and known luck, to test statistics of both kinds.

A system labels an utterance correctly if z > 0. z is the sum of the ease of the class, the ease of the utterance for
every system, its ease for this system, the seed's shift, and remaining chance. All luck is in points of WA.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

CLASSES = 4
SHARES = np.array([1103, 1636, 1708, 1084]) / 5531
"""Shares of the classes in IEMOCAP."""
RECALLS = np.array([0.76, 0.67, 0.65, 0.76])
EASE = stats.norm.ppf(RECALLS)
ACCURACY = float(SHARES @ RECALLS)

_ALIKE = 0.87
"""Probability that two seeds are both right or both wrong. They then agree in about five of six utterances."""


@dataclass(frozen=True, kw_only=True)
class Luck:
    """The luck of two systems.

    Attributes:
        seed: Deviation of a seed's shift for the first and for the second system, in points of WA.
        heavy: Whether shifts follow Student's t with three degrees of freedom, scaled to that deviation.
        together: Correlation of the two systems' shifts of one seed.
        test_set: Deviation, over test sets of 551 utterances, of the difference of two equally good systems.
        speaker: Deviation of that difference over speakers.
    """

    seed: tuple[float, float] = (1.0, 1.0)
    heavy: bool = False
    together: float = 0.0
    test_set: float = 0.0
    speaker: float = 0.0


KINDS = {
    "binomial alone": Luck(seed=(0.0, 0.0)),
    "gaussian": Luck(),
    "heavy tails (t3)": Luck(heavy=True),
    "uneven: 0.5 and 2": Luck(seed=(0.5, 2.0)),
    "seed-wise slopes": Luck(together=-1.0),
    "neighbours: AR(1) 0.8": Luck(together=0.8),
    "all at once": Luck(seed=(0.5, 2.0), heavy=True, together=-0.5),
}


@cache
def correlations(test_set: float) -> tuple[float, float]:
    """Return the shares of z's variance that an utterance contributes to all systems and to one system only."""
    both_right = ACCURACY - (1 - _ALIKE) / 2
    apart = (test_set / 100) ** 2 * 551 / 2  # half the variance over utterances of the difference of chances

    def right_twice(correlation: float) -> float:
        covariance = [[1, correlation], [correlation, 1]]
        each = [stats.multivariate_normal.cdf([ease, ease], cov=covariance) for ease in EASE]
        return float(SHARES @ each)

    of_one = brentq(lambda c: right_twice(c) - both_right, 0.01, 0.999)
    of_all = brentq(lambda c: right_twice(c) - both_right + apart, 0.0, 0.999) if apart else of_one
    return float(of_all), float(of_one - of_all)


@cache
def shift_for(points: float) -> float:
    """Return the shift of z that makes a system better by ``points`` points of WA."""
    return float(brentq(lambda d: SHARES @ stats.norm.cdf(EASE + d) - ACCURACY - points / 100, -3, 3))


_PER_POINT = 0.01 / float(SHARES @ stats.norm.pdf(EASE))
_COMMON = 0.9  # part of a seed's shift that all classes share; the rest of its deviation in WA is drawn per class


def draw_systems(
    rng: np.random.Generator,
    luck: Luck,
    *,
    seeds: int,
    utterances: int = 551,
    edge: float = 0.0,
    speakers: int = 1,
) -> tuple[Labels, Labels, Labels, Labels]:
    """Return labels (U,), speakers (U,), and the predictions of two systems, (S, U) each.

    Args:
        rng: Generator of all luck.
        luck: Kind of luck.
        seeds: S.
        utterances: U.
        edge: Advantage of the first system in the population, in points of WA.
        speakers: Number of speakers. The number of utterances per speaker varies by up to a half.
    """
    labels = rng.choice(CLASSES, utterances, p=SHARES)
    weights = rng.uniform(0.8, 1.2, speakers)
    speaker = rng.choice(speakers, utterances, p=weights / weights.sum())
    for_all, for_one = correlations(luck.test_set)
    common = EASE[labels] + np.sqrt(for_all) * rng.standard_normal(utterances)
    preferred = _wrong(rng, labels)
    shifts = _shifts(rng, luck, seeds)
    made = []
    for system in range(2):
        z = common + np.sqrt(for_one) * rng.standard_normal(utterances)
        z = z + luck.speaker / np.sqrt(2) * _PER_POINT * rng.standard_normal(speakers)[speaker]
        z = z + _PER_POINT * luck.seed[system] * shifts[system][:, labels]
        z = z + np.sqrt(1 - for_all - for_one) * rng.standard_normal((seeds, utterances))
        z = z + (shift_for(edge) if system == 0 else 0.0)
        other = _wrong(rng, np.broadcast_to(labels, (seeds, utterances)))
        wrong = np.where(rng.random((seeds, utterances)) < 0.8, preferred, other)
        made.append(np.where(z > 0, labels, wrong))
    return labels, speaker, made[0], made[1]


def draw_family(
    rng: np.random.Generator, luck: Luck, edges: Array, *, seeds: int, utterances: int = 551, val: int = 551
) -> tuple[Array, Array]:
    """Return where each of several systems is right on validation, (M, S, V), and on test, (M, S, U).

    The shift of a seed is the same on both splits, because the trained weights are. The utterances differ.

    Args:
        rng: Generator of all luck.
        luck: Kind of luck. The deviations of the first and the second system are used alternately for all systems.
        edges: (M,), advantage of each system in the population, in points of WA.
        seeds: S.
        utterances: U.
        val: V.
    """
    of_one = luck.seed * (-(-len(edges) // 2))
    shifts = [shift for _ in range(-(-len(edges) // 2)) for shift in _shifts(rng, luck, seeds)][: len(edges)]
    moved = np.array([shift_for(float(edge)) if edge else 0.0 for edge in edges])
    for_all, for_one = correlations(luck.test_set)
    made = []
    for size in (val, utterances):
        labels = rng.choice(CLASSES, size, p=SHARES)
        z = EASE[labels] + np.sqrt(for_all) * rng.standard_normal(size) + moved[:, None]
        z = z + np.sqrt(for_one) * rng.standard_normal((len(edges), size))
        of_seeds = np.stack([_PER_POINT * d * of[:, labels] for d, of in zip(of_one, shifts, strict=False)])
        chance = np.sqrt(1 - for_all - for_one) * rng.standard_normal((len(edges), seeds, size))
        made.append(np.asarray(z[:, None] + of_seeds + chance > 0, dtype=float))
    return made[0], made[1]


def _wrong(rng: np.random.Generator, labels: Labels) -> Labels:
    return (labels + rng.integers(1, CLASSES, labels.shape)) % CLASSES


def _shifts(rng: np.random.Generator, luck: Luck, seeds: int) -> list[Array]:
    """Return the shifts (S, C) of each system, with deviation 1 in WA."""

    def free(*shape: int) -> Array:
        return rng.standard_t(3, shape) / np.sqrt(3) if luck.heavy else rng.standard_normal(shape)

    first, other = free(seeds, 1 + CLASSES), free(seeds, 1 + CLASSES)
    second = luck.together * first + np.sqrt(1 - luck.together**2) * other
    of_class = np.sqrt((1 - _COMMON**2) / float(SHARES @ SHARES))
    return [_COMMON * part[:, :1] + of_class * part[:, 1:] for part in (first, second)]


def draw_grids(rng: np.random.Generator, kind: str, seeds: int, size: int = 10) -> tuple[Array, Array, Array]:
    """Return the WA of equally good systems on validation and test, and of a variant on test, in points, eac(S, A, B).

    The luck of a trial has a deviation of 1 point, except for binomial luck (1.95) and all kinds at once.

    Args:
        rng: Generator of all luck.
        kind: Name of a kind in ``KINDS``.
        seeds: S.
        size: A and B.
    """
    steps = np.linspace(-1.5, 1.5, size)

    def field() -> Array:
        heavy = kind in ("heavy tails (t3)", "all at once")
        made = (
            rng.standard_t(3, (seeds, size, size)) / np.sqrt(3) if heavy else rng.standard_normal((seeds, size, size))
        )
        if kind in ("neighbours: AR(1) 0.8", "all at once"):
            for axis in (1, 2):
                made = _ar(made, axis)
        if kind in ("uneven: 0.5 and 2", "all at once"):
            made = made * np.linspace(2, 0.5, size)[:, None]
        if kind in ("seed-wise slopes", "all at once"):
            a, b = rng.standard_normal((2, seeds, 1, 1)) / np.sqrt(2)
            made = 0.7 * made + 0.7 * (a * steps[:, None] + b * steps)
        return np.zeros_like(made) if kind == "binomial alone" else made

    common, of_seed = field(), 0.5 * rng.standard_normal((seeds, 1, 1))
    val, test = (np.sqrt(0.5) * (common + field()) for _ in range(2))
    made = []
    for luck in (val, test, field()):
        points = np.clip(70 + luck + of_seed, 0, 100)
        counts = rng.binomial(551, points / 100) if kind in ("binomial alone", "all at once") else 551 * points / 100
        made.append(np.asarray(100 * np.round(counts) / 551))
    return made[0], made[1], made[2]


def _ar(values: Array, axis: int) -> Array:
    """Return an autoregression with coefficient 0.8 along one axis, with the same deviation."""
    made = np.moveaxis(values, axis, 0).copy()
    for i in range(1, len(made)):
        made[i] = 0.8 * made[i - 1] + 0.6 * made[i]
    return np.moveaxis(made, 0, axis)

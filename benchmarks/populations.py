"""Invented systems on invented utterances, with known accuracy and known luck, for the statistics of two kinds of luck.

A system labels an utterance rightly where z > 0: z = its class's ease + how easy the utterance is for every system
+ how easy it is for this one + the seed's shift + what is left of chance. All luck is in points of WA.
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
"""Of the classes in IEMOCAP."""
RECALLS = np.array([0.76, 0.67, 0.65, 0.76])
EASE = stats.norm.ppf(RECALLS)
ACCURACY = float(SHARES @ RECALLS)

_ALIKE = 0.87
"""How often two seeds are both right or both wrong; they label alike then in some five of six utterances."""


@dataclass(frozen=True, kw_only=True)
class Luck:
    """How two systems' luck looks.

    Attributes:
        seed: deviation of a seed's shift, of the first system and of the second, in points of WA.
        heavy: shifts are Student's t with three degrees of freedom, scaled to that deviation.
        together: correlation of the two systems' shifts of one seed.
        test_set: deviation over test sets of 551 utterances of the difference of two systems that are equally good.
        speaker: deviation over speakers of that difference.
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
    """Return the shares of z's variance that an utterance brings to all systems, and to one system alone."""
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
    """Return the shift of z that makes a system better by so many points of WA."""
    return float(brentq(lambda d: SHARES @ stats.norm.cdf(EASE + d) - ACCURACY - points / 100, -3, 3))


_PER_POINT = 0.01 / float(SHARES @ stats.norm.pdf(EASE))
_COMMON = 0.9  # of a seed's shift; the rest of its deviation in WA is the classes', each of which has luck of its own


def draw_systems(
    rng: np.random.Generator,
    luck: Luck,
    *,
    seeds: int,
    utterances: int = 551,
    edge: float = 0.0,
    speakers: int = 1,
) -> tuple[Labels, Labels, Labels, Labels]:
    """Return labels (U,), speakers (U,), and what two systems predict, (S, U) each.

    Args:
        rng: of all luck.
        luck: how it looks.
        seeds: S.
        utterances: U.
        edge: points of WA by which the first is better in the population.
        speakers: how many there are, some with half again as many utterances as others.
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

    A seed's shift is the same on both, because the trained weights are; the utterances are others.

    Args:
        rng: of all luck.
        luck: how it looks; the deviations of the first and the second system go to the others in turn.
        edges: (M,), points of WA by which each is better in the population.
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
    """Each system's (S, C) shifts, of deviation 1 in WA."""

    def free(*shape: int) -> Array:
        return rng.standard_t(3, shape) / np.sqrt(3) if luck.heavy else rng.standard_normal(shape)

    first, other = free(seeds, 1 + CLASSES), free(seeds, 1 + CLASSES)
    second = luck.together * first + np.sqrt(1 - luck.together**2) * other
    of_class = np.sqrt((1 - _COMMON**2) / float(SHARES @ SHARES))
    return [_COMMON * part[:, :1] + of_class * part[:, 1:] for part in (first, second)]


def draw_grids(rng: np.random.Generator, kind: str, seeds: int, size: int = 10) -> tuple[Array, Array, Array]:
    """Return validation's, test's, and a variant's test WA in points, (S, A, B) each, of systems that are all equal.

    A trial's luck has a deviation of 1 point, but for binomial luck (1.95) and all at once.

    Args:
        rng: of all luck.
        kind: a name of :data:`KINDS`.
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
    """An autoregression of 0.8 along one axis, of the same deviation."""
    made = np.moveaxis(values, axis, 0).copy()
    for i in range(1, len(made)):
        made[i] = 0.8 * made[i - 1] + 0.6 * made[i]
    return np.moveaxis(made, 0, axis)

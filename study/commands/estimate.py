"""How long a trial takes, extrapolated from epochs that are timed on a part of the train split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import torch

from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold
from cemobam_core.training.loop import CURVE_POINTS
from study.design.configuration import Configuration, Trial
from study.design.design import ANY_PAIR
from study.design.factors import Pair
from study.engines import Engine

if TYPE_CHECKING:
    from study.driver import StudyRun

_SIZES, _WHOLE = (64, 256, 512, 1024), 2048
"""Utterances of the parts of the train split that may be timed; and the largest split that may be timed whole.

Making a part costs time too: it is checked, and its neighbours are ranked.
"""

_LINE_S = 12.0
"""Seconds that the second part may take, whatever the budget: a line needs two points."""

_CAUTION = 1.3
"""How much longer than expected a larger part may take: it leaves the caches."""

_MARGIN = 0.2
"""How far off times are even of the whole split: the machine's own speed changes by that much."""

_FEW, _MOST = {False: 1, True: 8}, 32
"""Epochs of the shorter training on a CPU and on a GPU, where the first epochs are slower; and how many more the longer
training has at most."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a trial takes, in seconds; of a stack, a trial's share.

    Attributes:
        seconds: the estimate.
        low: the least that it may be.
        high: the most.
        timed_on: how many utterances of the train split the epochs were timed on.
        of: how many there are.
    """

    seconds: float
    low: float
    high: float
    timed_on: int
    of: int


def parts(fold: Fold, k_max: int) -> tuple[Fold, ...]:
    """Return folds with ever larger parts of the train split, to time epochs on.

    Validation and test are as small as they can be, so that little but the train split is timed.

    Args:
        fold: the features of the study.
        k_max: the largest K, which every split must have the utterances for.
    """
    n, least = len(fold.train), k_max + 1
    sizes = [size for size in _SIZES if least <= size < n]
    if n <= _WHOLE or not sizes:
        sizes.append(n)
    small = {name: _part(fold.splits[name], least) for name in ("val", "test")}
    return tuple(Fold(train=_part(fold.train, size), **small) for size in sizes)


def typical(run: StudyRun) -> Configuration:
    """Return a configuration of the study's that is to be run and takes as long as most: with the mean K.

    Args:
        run: the study, of which something is missing.
    """
    design, pair = run.plan.design, run.pair()
    block = next(block for block in run.plan.blocks if run.missing(run.trials(block)) or not run.trials(block))
    configurations = design.configurations(block, pair or ANY_PAIR)
    pairs = [one.pair for one in configurations if one.pair]
    one = design.base if design.base in configurations or design.blocks[block].varies_pair else configurations[0]
    if not pairs or one.graph is None:
        return one
    at = Pair(round(mean(p.k_audio for p in pairs)), round(mean(p.k_text for p in pairs)))
    return one.having({"k_audio": at.k_audio, "k_text": at.k_text})


def time_trials(
    configuration: Configuration,
    fold: Fold,
    timed: Sequence[Fold],
    engine: Engine,
    *,
    side_by_side: int,
    budget: float,
    gpu: bool = False,
) -> Estimate:
    """Time short trainings of a configuration, on as much of the train split as time allows.

    The trainings run side by side as the study's will, because trials slow one another down: they share the machine's
    memory and caches. What an epoch takes is the difference between a longer and a shorter training; the rest of the
    shorter one is setting up and one pass over the train split. A pass takes as long as there are utterances.

    Args:
        configuration: that is timed.
        fold: the features of the study.
        timed: their parts, as :func:`parts` gives them; the engine has these as its folds.
        engine: what will run the study.
        side_by_side: how many trials at once.
        budget: seconds that it may take, about.
        gpu: whether they run on a GPU.

    Returns:
        The estimate. Its range is that of two extrapolations (time in proportion to utterances, and on a line through
        the two largest parts) with a margin for the machine's own speed.

    Raises:
        InputError: a trial fails; says why.
    """
    few, end = _FEW[gpu], time.monotonic() + budget

    def seconds(part: int, epochs: int) -> float:
        short = configuration.having({"epochs": epochs, "batch_norm": "running"})
        trials = [Trial(configuration=short, seed=seed, fold=part) for seed in range(side_by_side)]
        outcomes = [outcome for _, outcome in engine.run(trials)]
        for outcome in outcomes:
            if outcome.status == "failed":
                raise InputError(f"a trial with these settings fails within {epochs} epochs: {outcome.reason}")
        return mean(outcome.seconds for outcome in outcomes)

    def measured(part: int, more: int) -> tuple[float, float]:
        """Seconds of an epoch, and of the rest."""
        once = seconds(part, few)
        epoch = max(1e-6, (seconds(part, few + more) - once) / more)
        return epoch, max(0.0, once - few * epoch)

    sizes = [len(part.train) for part in timed]
    seconds(0, few)  # the first of anything is slow
    epochs: dict[int, float] = {}  # what an epoch takes on so many utterances
    trials: dict[int, float] = {}  # and a whole trial
    # Two small parts, for a line to extrapolate on, and the largest that there is time for.
    for largest, more, least in ((0, 2, 0.0), (1, 2, _LINE_S), (len(sizes) - 1, _MOST, 0.0)):
        left = max(least, (end - time.monotonic()) / _CAUTION)
        part = 0
        for i, size in enumerate(sizes[: largest + 1]):
            if (2 * few + 1 + _more(epochs, size, more)) * _at(epochs, size) < left:
                part = i
        if sizes[part] not in epochs or len(sizes) == 1:
            epoch, rest = measured(part, _more(epochs, sizes[part], more))
            epochs[sizes[part]] = epoch
            trials[sizes[part]] = _trial(configuration, fold, epoch=epoch, rest=rest)
    return _estimate(trials, len(fold.train))


def _more(epochs: Mapping[int, float], size: int, at_most: int) -> int:
    """How many epochs to time on ``size`` utterances: a second's worth, two at least."""
    return min(at_most, max(2, round(1 / max(1e-3, _at(epochs, size)))))


def _at(known: Mapping[int, float], n: int) -> float:
    """Seconds on ``n`` utterances: on a line through the two largest sizes that are known, in proportion to one."""
    sizes = sorted(known)[-2:]
    if not sizes:
        return 0.0
    if len(sizes) == 1:
        return known[sizes[0]] * n / sizes[0]
    less, more = sizes
    line = known[more] + (known[more] - known[less]) / (more - less) * (n - more)
    return max(known[more] if n >= more else 1e-6, line)  # whatever noise says, more utterances never take less time


def _trial(configuration: Configuration, fold: Fold, *, epoch: float, rest: float) -> float:
    """A whole trial's seconds on a part of the train split, and as large a share of the other splits.

    Args:
        configuration: its settings.
        fold: the features of the study.
        epoch: seconds of an epoch on that part.
        rest: seconds of one pass over it without learning, and of setting up.
    """
    training = configuration.training
    if training is None:  # it is fitted in one go
        return epoch + rest
    looks = training.epochs if training.schedule == "plateau" else min(training.epochs, CURVE_POINTS)
    val, test = (len(features) / len(fold.train) for features in (fold.val, fold.test))
    if configuration.graph and configuration.graph.evaluation_graph != "own":
        val, test = val + 1, test + 1  # train comes along
    settling = 1 if training.batch_norm == "settled" else 0
    one = min(rest, epoch / 3)  # a pass without learning takes a third of one with it at most
    return training.epochs * epoch + rest + one * (test + looks * (settling + val))


def _estimate(known: Mapping[int, float], n: int) -> Estimate:
    """From a trial's seconds on parts of so many utterances to its seconds on all ``n``."""
    sizes = sorted(known)
    guesses = [known[sizes[-1]] * n / sizes[-1], _at(known, n)]
    seconds = mean(guesses)
    low, high = min(guesses) * (1 - _MARGIN), max(guesses) * (1 + _MARGIN)
    return Estimate(seconds=seconds, low=low, high=high, timed_on=sizes[-1], of=n)


def _part(features: FeatureSet, size: int) -> FeatureSet:
    """Utterances evenly over a split, the first of each class among them."""
    if size >= len(features):
        return features
    first = [int((features.labels == c).nonzero()[0]) for c in range(features.num_classes)]
    size = max(size, len(first))
    chosen = set(first)
    for i in torch.linspace(0, len(features) - 1, size).round().int().tolist():
        if len(chosen) < size:
            chosen.add(i)
    return features.select(sorted(chosen), source=f"{size} of {features.source}")

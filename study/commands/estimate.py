"""Estimate the time of a trial from epochs that are timed on a part of the train split."""

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
"""Sizes of the parts of the train split that may be timed, and the largest split that may be timed whole.

Preparing a part costs time too: it is checked, and its neighbours are ranked.
"""

_LINE_S = 12.0
"""Seconds that the second part may take even beyond the budget, because a line needs two points."""

_CAUTION = 1.3
"""Factor by which a larger part may take longer than expected, because it no longer fits the caches."""

_MARGIN = 0.2
"""Relative error of a time even on the whole split, because the speed of a machine varies by that much."""

_FEW, _MOST = {False: 1, True: 8}, 32
"""Epochs of the shorter training on a CPU and on a GPU, where the first epochs are slower, and the most that the longer
training has in addition."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The time of a trial in seconds. For a stack it is the share of one trial.

    Attributes:
        seconds: The estimate.
        low: Lower end of its range.
        high: Upper end of its range.
        timed_on: Number of utterances of the train split that the epochs were timed on.
        of: Number of utterances of the train split.
    """

    seconds: float
    low: float
    high: float
    timed_on: int
    of: int


def parts(fold: Fold, k_max: int) -> tuple[Fold, ...]:
    """Return folds with increasing parts of the train split, to time epochs on.

    Validation and test are as small as possible, so that the time is nearly that of the train split alone.

    Args:
        fold: Features of the study.
        k_max: The largest K. Every split must have more utterances than that.
    """
    n, least = len(fold.train), k_max + 1
    sizes = [size for size in _SIZES if least <= size < n]
    if n <= _WHOLE or not sizes:
        sizes.append(n)
    small = {name: _part(fold.splits[name], least) for name in ("val", "test")}
    return tuple(Fold(train=_part(fold.train, size), **small) for size in sizes)


def typical(run: StudyRun) -> Configuration:
    """Return a configuration that is still to be run and takes about the average time: the one with the mean K.

    Args:
        run: The study. Some of its trials must be missing.
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

    The trainings run at the same time, as in the study, because trials share the memory and the caches of the machine
    and slow one another down. The time of an epoch is the difference between a longer and a shorter training. The rest
    of the shorter one is setting up and one pass over the train split. The time of a pass grows with the utterances.

    Args:
        configuration: The configuration to time.
        fold: Features of the study.
        timed: Parts of them, as :func:`parts` returns them. The engine has these as its folds.
        engine: The engine that will run the study.
        side_by_side: Number of trials at the same time.
        budget: About how many seconds the timing may take.
        gpu: Whether the trials run on a GPU.

    Returns:
        The estimate. Its range covers two extrapolations (time in proportion to utterances, and time on a line through
        the two largest parts), with a margin for the varying speed of the machine.

    Raises:
        InputError: A trial fails. The message says why.
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
        """Return the seconds of an epoch, and of the rest."""
        once = seconds(part, few)
        epoch = max(1e-6, (seconds(part, few + more) - once) / more)
        return epoch, max(0.0, once - few * epoch)

    sizes = [len(part.train) for part in timed]
    seconds(0, few)  # the first of anything is slow
    epochs: dict[int, float] = {}  # seconds of an epoch, by number of utterances
    trials: dict[int, float] = {}  # seconds of a whole trial
    # Two small parts give a line to extrapolate on; then the largest part that there is time for.
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
    """Return how many epochs to time on ``size`` utterances: about one second, but at least two epochs."""
    return min(at_most, max(2, round(1 / max(1e-3, _at(epochs, size)))))


def _at(known: Mapping[int, float], n: int) -> float:
    """Return seconds on ``n`` utterances, in proportion, or on a line through the two largest known sizes."""
    sizes = sorted(known)[-2:]
    if not sizes:
        return 0.0
    if len(sizes) == 1:
        return known[sizes[0]] * n / sizes[0]
    less, more = sizes
    line = known[more] + (known[more] - known[less]) / (more - less) * (n - more)
    return max(known[more] if n >= more else 1e-6, line)  # despite noise, more utterances never take less time


def _trial(configuration: Configuration, fold: Fold, *, epoch: float, rest: float) -> float:
    """Return the seconds of a whole trial on a part of the train split and the same share of the other splits.

    Args:
        configuration: Settings of the trial.
        fold: Features of the study.
        epoch: Seconds of an epoch on that part.
        rest: Seconds of setting up and of one pass over the part without learning.
    """
    training = configuration.training
    if training is None:  # fitted in one step
        return epoch + rest
    looks = training.epochs if training.schedule == "plateau" else min(training.epochs, CURVE_POINTS)
    val, test = (len(features) / len(fold.train) for features in (fold.val, fold.test))
    if configuration.graph and configuration.graph.evaluation_graph != "own":
        val, test = val + 1, test + 1  # the train split is part of these graphs
    settling = 1 if training.batch_norm == "settled" else 0
    one = min(rest, epoch / 3)  # a pass without learning takes at most a third of an epoch
    return training.epochs * epoch + rest + one * (test + looks * (settling + val))


def _estimate(known: Mapping[int, float], n: int) -> Estimate:
    """Return the estimate for all ``n`` utterances from the seconds on parts, by their number of utterances."""
    sizes = sorted(known)
    guesses = [known[sizes[-1]] * n / sizes[-1], _at(known, n)]
    seconds = mean(guesses)
    low, high = min(guesses) * (1 - _MARGIN), max(guesses) * (1 + _MARGIN)
    return Estimate(seconds=seconds, low=low, high=high, timed_on=sizes[-1], of=n)


def _part(features: FeatureSet, size: int) -> FeatureSet:
    """Return ``size`` utterances spread evenly over a split, with the first of each class."""
    if size >= len(features):
        return features
    first = [int((features.labels == c).nonzero()[0]) for c in range(features.num_classes)]
    size = max(size, len(first))
    chosen = set(first)
    for i in torch.linspace(0, len(features) - 1, size).round().int().tolist():
        if len(chosen) < size:
            chosen.add(i)
    return features.select(sorted(chosen), source=f"{size} of {features.source}")

"""How long a study will take, from a few timed steps."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from study.design import Design, Pair, Trial
from study.execution import StudyData, execute

_STEPS = 3


def seconds_per_trial(design: Design, data: StudyData, device: str) -> float:
    """Time a few epochs at the smallest and at the largest K, with one thread as workers have, and scale up.

    Args:
        design: its settings are timed, with the full model.
        data: features and rankings.
        device: where trials will run.
    """
    largest = Pair(max(design.k_audio), max(design.k_text))
    smallest = Pair(min(design.k_audio), min(design.k_text))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        estimates = [_estimate(design, pair, data, device) for pair in (largest, smallest)]
    finally:
        torch.set_num_threads(threads)
    return sum(estimates) / len(estimates)


def _estimate(design: Design, pair: Pair, data: StudyData, device: str) -> float:
    """A training's time is a fixed part and a part per epoch; two short trainings tell both.

    Short trainings look at the validation split after every epoch, full ones ten times in all, so an estimate for
    full ones is a little high.
    """

    def timed(epochs: int) -> float:
        training = replace(design.base.training, epochs=epochs)
        configuration = replace(design.base, pair=pair, training=training)
        start = time.perf_counter()
        execute(Trial(configuration=configuration, seed=0, fold=0), data, device)
        return time.perf_counter() - start

    timed(1)
    once, more = timed(1), timed(1 + _STEPS)
    per_epoch = max(0.0, (more - once) / _STEPS)
    return once + per_epoch * (design.base.training.epochs - 1)

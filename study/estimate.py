"""How long a study will take, from a few timed epochs."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

from cemobam_core.errors import InputError
from study.design import Design, Pair, Trial
from study.engines import Engine

_MORE = 3


def seconds_per_trial(design: Design, engine: Engine, side_by_side: int) -> float:
    """Time short trainings of the full model at the smallest and the largest K, and scale up.

    They run side by side as the study's will, because trials slow one another down: they share the machine's memory
    and caches. A short training looks at the validation split after every epoch and a full one ten times in all, so
    the estimate is a little high on that account.

    Args:
        design: whose settings are timed.
        engine: what will run the study.
        side_by_side: how many trials at once.

    Returns:
        Seconds from a trial's start to its end; of a stack, a trial's share.

    Raises:
        InputError: a trial fails; says why.
    """

    def timed(pair: Pair, epochs: int) -> float:
        training = replace(design.base.training, epochs=epochs)
        configuration = replace(design.base, pair=pair, training=training)
        trials = [Trial(configuration=configuration, seed=seed, fold=0) for seed in range(side_by_side)]
        outcomes = [outcome for _, outcome in engine.run(trials)]
        for outcome in outcomes:
            if outcome.status == "failed":
                raise InputError(f"a trial with these settings fails within {epochs} epochs: {outcome.reason}")
        return mean(outcome.seconds for outcome in outcomes)

    estimates = []
    for choose in (max, min):
        pair = Pair(choose(design.k_audio), choose(design.k_text))
        timed(pair, 1)  # the first of anything is slow
        once, more = timed(pair, 1), timed(pair, 1 + _MORE)
        per_epoch = max(0.0, (more - once) / _MORE)
        estimates.append(once + per_epoch * (design.base.training.epochs - 1))
    return mean(estimates)

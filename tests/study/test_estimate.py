from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from conftest import FakeEngine, invented

from cemobam_core import InputError
from study.design import Design, Pair, Trial, readings
from study.estimate import seconds_per_trial
from study.ledger import Outcome

DESIGN = Design(readings=readings(epochs=50), profile="paper", k_audio=(1, 9), k_text=(2, 7), seeds=(0,))


class Timed(FakeEngine):
    """A training takes half a second, and a hundredth of K_audio more for each epoch."""

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        for trial in trials:
            self.ran.append(trial)
            configuration = trial.configuration
            seconds = 0.5 + 0.01 * configuration.pair.k_audio * configuration.training.epochs
            yield trial, Outcome(**{**vars(invented(trial)), "seconds": seconds})


def test_a_fixed_part_and_a_part_per_epoch_are_told_apart() -> None:
    engine = Timed()
    assert seconds_per_trial(DESIGN, engine, side_by_side=3) == pytest.approx(0.5 + 0.01 * (1 + 9) / 2 * 50)
    assert {trial.configuration.pair for trial in engine.ran} == {Pair(1, 2), Pair(9, 7)}
    assert {trial.seed for trial in engine.ran} == {0, 1, 2}


def test_settings_with_which_trials_fail_are_said() -> None:
    with pytest.raises(InputError, match="a trial with these settings fails within 1 epochs: ValueError: told to"):
        seconds_per_trial(DESIGN, FakeEngine(fails=lambda _: True), side_by_side=1)

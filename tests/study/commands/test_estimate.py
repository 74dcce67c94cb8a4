from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from invented import FakeEngine, invented, small_design

from cemobam_core import FeatureSet, InputError
from cemobam_core.features import Fold
from study import Block, Factor
from study.commands.estimate import Estimate, _at, parts, time_trials, typical
from study.design.configuration import Configuration, Trial
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts

DESIGN = small_design(k_audio=(1, 9), k_text=(2, 7), seeds=(0,), epochs=50)
FIXED, EACH, PASS = 0.004, 0.0001, 0.00003
"""Seconds of an epoch whatever its size, of an utterance in it, and of an utterance in a pass without learning."""


@pytest.fixture
def fold(make_features: Callable[..., FeatureSet]) -> Fold:
    sizes = {"train": 3000, "val": 300, "test": 600}
    return Fold(**{name: make_features(n, name=name) for name, n in sizes.items()})


class Timed(FakeEngine):
    """A training takes a fixed part of every epoch, and a part for every utterance."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        super().__init__()
        self.folds = folds

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        for trial in trials:
            self.ran.append(trial)
            n, epochs = len(self.folds[trial.fold].train), trial.configuration.get("epochs") or 0
            seconds = epochs * (FIXED + EACH * n) + PASS * n
            yield trial, Outcome(**{**vars(invented(trial)), "seconds": seconds})


BASE = DESIGN.configuration({}, Pair(5, 4))


def estimate(fold: Fold, timed: Sequence[Fold], *, one: Configuration = BASE, budget: float = 60.0) -> Estimate:
    return time_trials(one, fold, timed, Timed(timed), side_by_side=2, budget=budget)


def test_parts_are_small_and_have_every_class(fold: Fold) -> None:
    timed = parts(fold, 10)
    assert [len(part.train) for part in timed] == [64, 256, 512, 1024]
    assert {len(part.val) for part in timed} == {len(part.test) for part in timed} == {11}
    assert all(set(part.train.labels.tolist()) == {0, 1, 2, 3} for part in timed)
    assert [len(part.train) for part in parts(fold, 100)] == [256, 512, 1024]
    ids = tuple(f"t{i}" for i in range(300))
    small = Fold(train=replace(fold.val, utterance_ids=ids), val=fold.val, test=fold.test)
    assert [len(part.train) for part in parts(small, 10)] == [64, 256, 300]


def test_an_epoch_is_told_from_the_rest_and_extrapolated_over_utterances(fold: Fold) -> None:
    one = estimate(fold, parts(fold, 10))
    assert (one.timed_on, one.of) == (1024, 3000)
    # 50 epochs; a pass over train at the end and before each of the ten looks at validation, which are a tenth of it
    real = 50 * (FIXED + EACH * 3000) + PASS * 3000 * (1 + 0.2 + 10 * 1.1)
    assert one.low < real < one.high
    assert one.seconds == pytest.approx(real, rel=0.05)


def test_the_released_profile_looks_at_validation_after_every_epoch(fold: Fold) -> None:
    one = estimate(fold, parts(fold, 10), one=replace(DESIGN, profile="released").base)
    real = 50 * (FIXED + EACH * 3000) + PASS * 3000 * (1 + 0.2 + 50 * 0.1)
    assert one.seconds == pytest.approx(real, rel=0.05)


def test_trials_are_timed_side_by_side_and_no_longer_than_there_is_time(fold: Fold) -> None:
    timed = parts(fold, 10)
    engine = Timed(timed)
    one = time_trials(BASE, fold, timed, engine, side_by_side=3, budget=0.0)
    assert one.timed_on == 256  # a line needs two points
    assert {trial.configuration.pair for trial in engine.ran} == {Pair(5, 4)}
    assert {trial.seed for trial in engine.ran} == {0, 1, 2}
    assert max(trial.configuration.get("epochs") for trial in engine.ran) == 3


def test_a_small_split_is_timed_whole(fold: Fold) -> None:
    ids = tuple(f"t{i}" for i in range(300))
    small = Fold(train=replace(fold.val, utterance_ids=ids), val=fold.val, test=fold.test)
    one = estimate(small, parts(small, 10))
    assert (one.timed_on, one.of) == (300, 300)
    real = 50 * (FIXED + EACH * 300) + PASS * 300 * (1 + 2 + 10 * 2)
    assert one.seconds == pytest.approx(real)


def test_settings_with_which_trials_fail_are_said(fold: Fold) -> None:
    with pytest.raises(InputError, match="a trial with these settings fails within 1 epochs: ValueError: told to"):
        engine = FakeEngine(fails=lambda _: True)
        time_trials(BASE, fold, parts(fold, 10), engine, side_by_side=1, budget=1.0)


def test_more_utterances_never_take_less_time() -> None:
    assert _at({64: 0.02, 256: 0.01}, 1024) == 0.01  # noise, on parts that are small
    assert _at({64: 0.01, 256: 0.04}, 1024) == pytest.approx(0.16)


def test_what_is_timed_is_a_configuration_that_is_to_be_run_at_the_mean_pair(
    make_ledger: Callable[..., Ledger], plan: Plan, facts: StudyFacts
) -> None:
    def timed(*blocks: Block, run: tuple[str, ...], **changes: Any) -> Configuration:
        design = replace(DESIGN, blocks={**DESIGN.blocks, **{block.name: block for block in blocks}}, **changes)
        return typical(StudyRun(replace(plan, design=design, blocks=run), make_ledger(), facts))

    assert timed(run=("grid",)) == BASE
    assert timed(run=("fusion", "grid")).get("fusion") == "min"
    width = Block("width", factors=[Factor("hidden_dim", [8, 32])])
    assert timed(width, run=("width",)).get("hidden_dim") == 8
    assert timed(Block("x", systems=["logistic", "cemobam"]), run=("x",)).get("system") == "cemobam"
    fitted = timed(Block("x", systems=["logistic"]), run=("x",))
    assert (fitted.get("system"), fitted.graph, fitted.training) == ("logistic", None, None)
    assert timed(run=("grid",), system="concat_mlp").graph is None


def test_what_is_fitted_in_one_go_is_timed_whole(fold: Fold) -> None:
    ids = tuple(f"t{i}" for i in range(300))
    small = Fold(train=replace(fold.val, utterance_ids=ids), val=fold.val, test=fold.test)
    timed = parts(small, 0)
    engine = Timed(timed)
    one = time_trials(replace(DESIGN, system="logistic").base, small, timed, engine, side_by_side=1, budget=60.0)
    assert one.seconds == pytest.approx(PASS * 300, rel=0.1)

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import FakeEngine, invented

from cemobam_core.config import FUSIONS, MODULES
from study.design import Pair, Trial, distinct
from study.driver import Plan, StudyRun
from study.ledger import Ledger, Outcome, StudyFacts

Make = Callable[..., Ledger]


def run(plan: Plan, ledger: Ledger, facts: StudyFacts, engine: FakeEngine) -> StudyRun:
    study = StudyRun(plan, ledger, facts)
    study.run(engine, lambda *_: None)
    return study


def test_every_trial_is_run_once_and_every_block_is_complete(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    engine = FakeEngine()
    study = run(plan, make_ledger(), facts, engine)
    assert study.pair() == Pair(2, 1)
    # 2 x 3 pairs, then three fusions and two ablations that the grid has not run, for two seeds
    assert len(engine.ran) == len(distinct(engine.ran)) == (6 + 3 + 2) * 2
    assert study.counts() == (22, 22)
    again = make_ledger()
    assert {block: len(again.outcomes(block)) for block in plan.blocks} == {"grid": 12, "fusion": 8, "ablation": 6}
    seen = Counter((t.configuration.model.fusion, t.configuration.model.modules) for t in engine.ran[12:])
    expected = {(f, "full") for f in FUSIONS if f != "min"} | {("min", m) for m in MODULES if m != "full"}
    assert seen == dict.fromkeys(expected, 2)
    assert all(t.configuration.pair == Pair(2, 1) for t in engine.ran[12:])


def test_run_again_it_trains_nothing(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    first = run(plan, make_ledger(), facts, FakeEngine())
    engine = FakeEngine()
    again = run(plan, make_ledger(), facts, engine)
    assert engine.ran == []
    assert again.outcomes == first.outcomes


@pytest.mark.parametrize("after", range(0, 22, 3))
def test_stopped_anywhere_it_goes_on_from_there(make_ledger: Make, plan: Plan, facts: StudyFacts, after: int) -> None:
    stopped = FakeEngine(stop_after=after)
    with pytest.raises(KeyboardInterrupt):
        run(plan, make_ledger(), facts, stopped)
    study = StudyRun(plan, make_ledger(), facts)
    assert study.counts() == (22, after)
    engine = FakeEngine()
    study.run(engine, lambda *_: None)
    assert len(engine.ran) == 22 - after
    assert study.outcomes == {t.signature("abc"): invented(t) for t in stopped.ran + engine.ran}
    assert {block: len(make_ledger().outcomes(block)) for block in plan.blocks} == {
        "grid": 12,
        "fusion": 8,
        "ablation": 6,
    }


def test_a_larger_grid_runs_what_is_new(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    small = replace(plan, blocks=("grid",))
    run(small, make_ledger(), facts, FakeEngine())
    larger = replace(small, design=replace(plan.design, k_audio=(1, 2, 3), seeds=(0, 1, 2)))
    engine = FakeEngine()
    run(larger, make_ledger(), facts, engine)
    assert len(engine.ran) == 3 * 3 * 3 - 12


def test_failed_trials_are_tried_again_next_time(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    def fails(trial: Trial) -> bool:
        return trial.configuration.pair == Pair(1, 2) and trial.seed == 1

    heard: list[tuple[Trial, Outcome]] = []
    study = StudyRun(plan, make_ledger(), facts)
    study.run(FakeEngine(fails=fails), lambda trial, outcome: heard.append((trial, outcome)))
    assert study.counts() == (22, 21)
    assert [outcome.reason for _, outcome in heard if outcome.status == "failed"] == ["ValueError: told to"]
    assert study.pair() == Pair(2, 1)  # the grid has an outcome everywhere, and this pair all its seeds
    engine = FakeEngine()
    study = run(plan, make_ledger(), facts, engine)
    assert [(t.configuration.pair, t.seed) for t in engine.ran] == [(Pair(1, 2), 1)]
    assert study.counts() == (22, 22)


def test_the_best_pair_is_not_chosen_with_a_failed_seed(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    study = run(plan, make_ledger(), facts, FakeEngine(fails=lambda t: t.configuration.pair == Pair(2, 1)))
    assert study.pair() not in (None, Pair(2, 1))


def test_where_nothing_succeeds_no_pair_is_chosen(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    study = run(plan, make_ledger(), facts, FakeEngine(fails=lambda _: True))
    assert study.pair() is None
    assert study.counts() == (22, 0)


def test_a_given_pair_needs_no_grid(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    engine = FakeEngine()
    study = run(replace(plan, blocks=("fusion",), at=Pair(9, 4)), make_ledger(), facts, engine)
    assert len(engine.ran) == 8
    assert study.counts() == (8, 8)
    assert {t.configuration.pair for t in engine.ran} == {Pair(9, 4)}


def test_a_later_block_takes_its_pair_from_the_grid_in_the_ledger(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    run(replace(plan, blocks=("grid",)), make_ledger(), facts, FakeEngine())
    engine = FakeEngine()
    study = StudyRun(replace(plan, blocks=("ablation",)), make_ledger(), facts)
    assert study.counts() == (6, 2)
    study.run(engine, lambda *_: None)
    assert len(engine.ran) == 4
    unfinished = replace(plan.design, k_text=(1, 2, 3, 4))
    assert StudyRun(replace(plan, blocks=("ablation",), design=unfinished), make_ledger(), facts).pair() is None


def test_a_trial_done_for_one_block_is_copied_to_another_even_when_nothing_is_left_to_run(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    fusion = replace(plan, blocks=("fusion",), at=Pair(2, 1))
    run(fusion, make_ledger(), facts, FakeEngine())
    ledger = make_ledger()
    StudyRun(replace(fusion, blocks=("ablation",)), ledger, facts).share()
    assert len(make_ledger().outcomes("ablation")) == 2

"""Choose, then confirm: a configuration that was best on some seeds is measured with others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import FakeEngine, demo_facts, demo_plan, invented, small_design

from study import Block
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.findings.evidence import Evidence
from study.ledger.ledger import Ledger
from study.ledger.outcomes import StudyFacts

Make = Callable[..., Ledger]

WAITING = ("fusion", "ablation")
"""Blocks of the demo's plan that run at the chosen pair."""

EMPTY = Ledger("sqlite:///:memory:", name="demo")


def run(plan: Plan, ledger: Ledger, facts: StudyFacts) -> tuple[StudyRun, FakeEngine]:
    study, engine = StudyRun(plan, ledger, facts), FakeEngine()
    study.run(engine, lambda *_: None)
    return study, engine


def asked(*, seeds: Iterable[int] = (0, 1), confirm: int = 0, **changes: object) -> Plan:
    plan = demo_plan(seeds=seeds)
    return replace(plan, design=replace(plan.design, confirm=confirm), **changes)  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 12), st.booleans())
def test_no_seed_that_chose_confirms(seeds: set[int], confirm: int, given_pair: bool) -> None:
    study = StudyRun(
        asked(seeds=sorted(seeds), confirm=confirm, at=Pair(1, 2) if given_pair else None), EMPTY, demo_facts()
    )
    assert {trial.seed for trial in study.planned("grid")} == seeds
    for block in WAITING:
        fresh = study.seeds_of(block)
        assert study.confirms(block)
        assert len(fresh) == (confirm or len(seeds))
        assert {trial.seed for trial in study.planned(block)} == set(fresh)
        assert not set(fresh) & seeds


def test_seeds_that_are_named_choose_and_those_after_them_confirm(make_ledger: Make, facts: StudyFacts) -> None:
    study, engine = run(asked(seeds=(0, 1, 7)), make_ledger(), facts)
    chose, confirmed = engine.ran[:18], engine.ran[18:]
    assert {trial.seed for trial in chose} == {0, 1, 7}
    assert {trial.seed for trial in confirmed} == {8, 9, 10}
    assert len(confirmed) == 3 * (4 + 2)
    assert study.counts() == (36, 36)


def test_more_seeds_to_confirm_are_added_to_those_that_are_there(make_ledger: Make, facts: StudyFacts) -> None:
    run(asked(), make_ledger(), facts)
    study, engine = run(asked(confirm=10), make_ledger(), facts)
    assert {trial.seed for trial in engine.ran} == set(range(4, 12))  # 2 and 3 were there
    assert len(engine.ran) == 8 * (4 + 2)
    assert study.counts() == (12 + 60, 12 + 60)
    fewer, nothing = run(asked(confirm=1), make_ledger(), facts)
    assert nothing.ran == []
    assert fewer.counts() == (12 + 6, 12 + 6)


def test_more_seeds_to_choose_need_others_to_confirm(make_ledger: Make, facts: StudyFacts) -> None:
    """Seed 2 confirmed the choice of 0 and 1, and takes part in the next one."""
    run(asked(), make_ledger(), facts)
    study, engine = run(asked(seeds=range(3)), make_ledger(), facts)
    assert study.seeds_of("fusion") == (3, 4, 5)
    assert {(t.configuration.get("fusion"), t.configuration.get("modules"), t.seed) for t in engine.ran[5:]} == {
        *((fusion, "full", seed) for fusion in ("cls", "min", "max", "mean") for seed in (4, 5)),
        *(("min", modules, seed) for modules in ("no_xcbam", "no_chgat") for seed in (4, 5)),
    }
    # one of the six pairs with seed 2 was done already: the pair that had been chosen
    assert [(trial.seed, trial.configuration.get("fusion")) for trial in engine.ran[:5]] == [(2, "min")] * 5


def test_at_a_pair_that_is_given_seeds_are_fresh_where_a_grid_was_seen(make_ledger: Make, facts: StudyFacts) -> None:
    at = asked(blocks=("fusion",), at=Pair(1, 2))
    study, engine = run(at, make_ledger(), facts)
    assert not study.confirms("fusion")
    assert {trial.seed for trial in engine.ran} == {0, 1}
    assert study.counts() == (8, 8)
    run(asked(blocks=("grid",)), make_ledger(), facts)
    after = StudyRun(at, make_ledger(), facts)
    assert after.confirms("fusion")
    assert after.pair_from == "given"
    assert {trial.seed for trial in after.trials("fusion")} == {2, 3}
    assert after.counts() == (8, 0)


def test_what_needs_no_pair_was_not_chosen(make_ledger: Make, facts: StudyFacts) -> None:
    plan = asked()
    own = Block("graphless", systems=["concat_mlp", "logistic"])
    plan = replace(
        plan, design=replace(plan.design, blocks={**plan.design.blocks, own.name: own}), blocks=(own.name, "grid")
    )
    study, _ = run(plan, make_ledger(), facts)
    assert not study.confirms("graphless")
    assert not study.confirms("grid")
    assert study.seeds_of("graphless") == (0, 1)
    bare = replace(plan, design=replace(plan.design, blocks={own.name: own, "fusion": plan.design.blocks["fusion"]}))
    assert not StudyRun(bare, EMPTY, facts).confirms("fusion")  # nothing chooses


@pytest.mark.parametrize("after", [11, 12, 13])
def test_stopped_between_choosing_and_confirming_it_goes_on(make_ledger: Make, facts: StudyFacts, after: int) -> None:
    plan = asked()
    stopped = FakeEngine(stop_after=after)
    with pytest.raises(KeyboardInterrupt):
        StudyRun(plan, make_ledger(), facts).run(stopped, lambda *_: None)
    study = StudyRun(plan, make_ledger(), facts)
    assert study.pair() == (None if after < 12 else Pair(2, 1))
    assert study.counts() == (24, after)
    engine = FakeEngine()
    study.run(engine, lambda *_: None)
    ran = [*stopped.ran, *engine.ran]
    assert len(ran) == len(set(ran)) == 24
    assert {trial.seed for trial in ran[:12]} == {0, 1}
    assert {(trial.seed, trial.configuration.pair) for trial in ran[12:]} == {(2, Pair(2, 1)), (3, Pair(2, 1))}


def test_what_is_shown_of_the_pair_is_of_fresh_seeds(make_ledger: Make, facts: StudyFacts, tmp_path: Path) -> None:
    plan = asked(confirm=3)
    ledger = make_ledger()
    results = Evidence.of(run(plan, ledger, facts)[0], name="demo", models=tmp_path).results
    about = results.about
    assert (about.seeds, about.confirm, results.own_seeds) == ((0, 1), (2, 3, 4), (2, 3, 4))
    grid, fusion, ablation = about.blocks
    assert (grid.seeds, grid.confirms, set(grid.n_seeds)) == ((0, 1), False, {2})
    for block in (fusion, ablation):
        assert (block.seeds, block.confirms, set(block.n_seeds)) == ((2, 3, 4), True, {3})
    own = plan.design.configuration({}, Pair(2, 1))
    at_pair = [trial for trial in plan.design.trials("fusion", Pair(2, 1), (2, 3, 4)) if trial.configuration == own]
    mean = sum(invented(trial).metrics["test_wa"] for trial in at_pair) / 3
    assert results.own["test_wa_mean"].tolist() == pytest.approx([mean])
    assert results.fusion.set_index("fusion").loc["min", "test_wa_mean"] == pytest.approx(mean)
    assert results.ablation.set_index("modules").loc["full", "test_wa_mean"] == pytest.approx(mean)
    by_pair = results.grid.set_index(["k_audio", "k_text"])
    assert set(results.grid["n_seeds"]) == {2}
    assert by_pair.loc[(2, 1), "test_wa_mean"] != pytest.approx(mean)
    assert results.scores
    assert results.scores.seeds == (0, 1)
    # the grid alone has no fresh seeds of its own configuration
    alone = Evidence.of(
        StudyRun(replace(plan, blocks=("grid",)), make_ledger(name="other"), facts), name="o", models=tmp_path
    )
    assert alone.results.own_seeds == (0, 1)


def test_before_any_fresh_seed_is_done_those_that_chose_stand_in(
    make_ledger: Make, facts: StudyFacts, tmp_path: Path
) -> None:
    plan = asked()
    with pytest.raises(KeyboardInterrupt):
        StudyRun(plan, make_ledger(), facts).run(FakeEngine(stop_after=12), lambda *_: None)
    results = Evidence.of(StudyRun(plan, make_ledger(), facts), name="demo", models=tmp_path).results
    assert (results.about.confirm, results.own_seeds) == ((2, 3), (0, 1))
    assert len(results.own) == 1
    assert results.fusion.empty


def test_folds_are_confirmed_fold_by_fold(make_ledger: Make, tmp_path: Path) -> None:
    facts = replace(demo_facts(), folds=2)
    plan = asked()
    plan = replace(plan, design=small_design(seeds=(0, 1), folds=2), blocks=("grid", "ablation"))
    study, engine = run(plan, make_ledger(name="folds"), facts)
    assert study.counts() == ((4 + 3) * 2 * 2, (4 + 3) * 2 * 2)
    seen = pd.DataFrame([(trial.seed, trial.fold) for trial in engine.ran], columns=["seed", "fold"]).value_counts()
    assert seen.to_dict() == {
        **{(s, f): 4 for s in (0, 1) for f in (0, 1)},
        **{(s, f): 3 for s in (2, 3) for f in (0, 1)},
    }
    results = Evidence.of(study, name="folds", models=tmp_path).results
    assert set(results.ablation["n_seeds"]) == {2}

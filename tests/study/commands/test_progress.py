from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from invented import invented

from study.commands.progress import Progress
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts


def with_wa(outcome: Outcome, wa: float) -> Outcome:
    return replace(outcome, metrics={**outcome.metrics, "val_wa": wa})


@pytest.fixture
def progress(make_ledger: Callable[..., Ledger], plan: Plan, facts: StudyFacts) -> Any:
    run = StudyRun(plan, make_ledger(), facts)
    with Progress(run) as progress:
        yield progress, run.trials("grid")


def test_the_best_mean_so_far_says_over_how_many_seeds(progress: tuple[Progress, list[Any]]) -> None:
    bar, trials = progress
    assert bar.words() == ""
    by_seed = {seed: [trial for trial in trials if trial.seed == seed] for seed in (0, 1)}
    bar.on_outcome(by_seed[0][0], with_wa(invented(by_seed[0][0]), 0.9))
    bar.on_outcome(by_seed[0][1], with_wa(invented(by_seed[0][1]), 0.6))
    assert bar.words() == "best mean so far: val WA 90.0 at K 1,1 (1 seed)"
    bar.on_outcome(by_seed[1][1], with_wa(invented(by_seed[1][1]), 0.5))
    assert bar.words() == "best mean so far: val WA 55.0 at K 1,2 (2 seeds)"
    failed = Outcome(status="failed", seconds=0.1, device="cpu", reason="ValueError: told to")
    bar.on_outcome(by_seed[1][2], failed)
    assert bar.words().endswith("(2 seeds), 1 failed")


def test_a_seed_counts_when_it_has_all_folds(make_ledger: Callable[..., Ledger], plan: Plan, facts: StudyFacts) -> None:
    plan = replace(plan, design=replace(plan.design, folds=2))
    run = StudyRun(plan, make_ledger(), replace(facts, folds=2))
    first, second = (t for t in run.trials("grid") if t.configuration.pair == Pair(1, 3) and t.seed == 0)
    with Progress(run) as bar:
        bar.on_outcome(first, with_wa(invented(first), 0.5))
        assert bar.words().endswith("(no seed on every fold yet)")
        bar.on_outcome(second, with_wa(invented(second), 0.5))
        assert bar.words().endswith("at K 1,3 (1 seed)")

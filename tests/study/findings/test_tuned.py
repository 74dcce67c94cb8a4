"""Tuning with a ledger: the trials asked for, the chosen configurations, and the continuation of interrupted runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from invented import FakeEngine, demo_facts, demo_utterances, invented, run_to_the_end

from cemobam_core.systems import system_class
from study.design.block import Block
from study.design.configuration import Trial
from study.design.design import Design
from study.design.factors import Pair
from study.design.tuning import DEFAULTS, TUNED, Search, Tuning
from study.driver import Plan, StudyRun
from study.findings.evidence import Evidence
from study.findings.looks import catch_up
from study.findings.tuned import traces
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome
from study.output.figures import drawings
from study.output.report import block_tables


def scored(trial: Trial) -> Outcome:
    """Return an outcome whose validation prefers a learning rate of 0.003, and whose test prefers none."""
    lr = trial.configuration.get("lr")
    score = 0.9 - 0.1 * abs(np.log10(float(lr or 1)) + 2.5)
    made = invented(trial)
    return replace(made, metrics={**made.metrics, "val_wa": float(score), "val_loss": 1 - float(score)})


def plan(budget: int = 6, search: Search = "sobol", folds: int = 1) -> Plan:
    kinds = {name: system_class(name) for name in ("concat_mlp", "gcn")}
    tuning = Tuning(systems=kinds, budget=budget, search=search)
    tunes = [tuning.block(name) for name in kinds]
    systems = Block(DEFAULTS, systems=tuple(kinds), fresh=True)
    design = Design(
        blocks={block.name: block for block in (*tunes, systems)}, seeds=(0, 1, 2), settings={"epochs": 2}, folds=folds
    )
    names = tuple(design.blocks)
    return Plan(
        design=design, blocks=names, at=None, otherwise=Pair(2, 2), select_by="wa", select_on="val", tuning=tuning
    )


def opened(storage: str = "sqlite:///:memory:", folds: int = 1) -> Ledger:
    ledger = Ledger(storage, name="demo")
    ledger.open(replace(demo_facts(), folds=folds), demo_utterances(folds))
    return ledger


def evidence_of(run: StudyRun) -> Evidence:
    return Evidence.of(run, name="demo", models=Path())


def chosen(run: StudyRun) -> dict[str, object]:
    block = run.plan.design.blocks[TUNED]
    return {name: changes.get("lr") for name, changes in block.configurations.items()}


def test_validation_chooses_and_fresh_seeds_measure() -> None:
    engine = FakeEngine(outcome=scored)
    run = run_to_the_end(plan(), opened(), engine)
    assert run.counts() == (2 * 6 + 2 * 3 + 2 * 3, 2 * 6 + 2 * 3 + 2 * 3)
    tuning = [t for t in engine.ran if t.seed == 0]
    assert len(tuning) == 12
    rates = {float(t.configuration.get("lr") or 0) for t in tuning if t.configuration.get("system") == "gcn"}
    nearest = min(rates, key=lambda lr: abs(np.log10(lr) + 2.5))
    assert chosen(run)["gcn"] == nearest
    assert {t.seed for t in engine.ran[12:]} == {3, 4, 5}  # no seed that chose
    for trace in traces(evidence_of(run).results):
        assert trace.best is not None
        assert trace.scores[trace.best] == np.nanmax(trace.scores) == trace.best_so_far[-1]
        assert all(a <= b for a, b in pairwise(trace.best_so_far))


def test_what_tests_say_has_no_part_in_the_choice() -> None:
    def other_tests(trial: Trial) -> Outcome:
        made = scored(trial)
        flipped = {name: 1 - value for name, value in made.metrics.items() if name.startswith(("test", "train"))}
        return replace(made, metrics={**made.metrics, **flipped})

    runs = [run_to_the_end(plan(), opened(), FakeEngine(outcome=outcome)) for outcome in (scored, other_tests)]
    assert chosen(runs[0]) == chosen(runs[1])


@pytest.mark.parametrize("search", ["sobol", "tpe"])
@pytest.mark.parametrize("stop_after", [0, 1, 7, 19, 29, 35])
def test_cut_off_anywhere_it_goes_on_as_if_nothing_had_been(tmp_path: Path, search: Search, stop_after: int) -> None:
    whole = run_to_the_end(plan(14, search), opened(), FakeEngine(outcome=scored))
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first, second = FakeEngine(outcome=scored, stop_after=stop_after), FakeEngine(outcome=scored)
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(plan(14, search), opened(storage), first)
    run = run_to_the_end(plan(14, search), opened(storage), second)
    assert chosen(run) == chosen(whole)
    assert run.counts() == whole.counts()
    assert not set(first.ran) & set(second.ran)
    assert len(first.ran) + len(second.ran) == whole.counts()[0]


def test_before_the_choice_what_it_will_ask_for_counts() -> None:
    run = StudyRun(plan(14, "tpe"), opened(), demo_facts())
    catch_up(run, name="demo")
    assert run.counts() == (2 * 14 + 2 * 3 + 2 * 3, 0)
    assert len(run.trials("tpe-gcn")) == 10


def test_a_configuration_that_fails_is_not_chosen_and_holds_nothing_up() -> None:
    best = chosen(run_to_the_end(plan(), opened(), FakeEngine(outcome=scored)))

    def fails(trial: Trial) -> bool:
        return trial.configuration.get("system") == "gcn" and trial.configuration.get("lr") == best["gcn"]

    run = run_to_the_end(plan(), opened(), FakeEngine(outcome=scored, fails=fails))
    assert chosen(run)["concat_mlp"] == best["concat_mlp"]
    assert chosen(run)["gcn"] is None  # next come the defaults, 0.006 on the demo
    (trace,) = [trace for trace in traces(evidence_of(run).results) if trace.block.tunes == "gcn"]
    assert np.isnan(trace.scores).sum() == 1


def test_a_system_all_of_whose_configurations_fail_is_left_out() -> None:
    run = run_to_the_end(
        plan(),
        opened(),
        FakeEngine(outcome=scored, fails=lambda t: t.configuration.get("system") == "gcn" and t.seed == 0),
    )
    assert chosen(run).keys() == {"concat_mlp"}
    assert "gcn" not in block_tables(evidence_of(run))["tuning"].markdown()


def test_of_equals_the_lower_loss_then_the_earlier_is_best() -> None:
    def equals(trial: Trial) -> Outcome:
        made, lr = invented(trial), trial.configuration.get("lr")
        losses = {"gcn": 0.5 if lr == 6e-3 else 0.25, "concat_mlp": 0.5}
        loss = losses[str(trial.configuration.get("system"))]
        return replace(made, metrics={**made.metrics, "val_wa": 0.75, "val_loss": loss})

    run = run_to_the_end(plan(), opened(), FakeEngine(outcome=equals))
    assert {trace.block.tunes: trace.best for trace in traces(evidence_of(run).results)} == {"concat_mlp": 0, "gcn": 1}


def test_with_folds_a_configuration_is_as_good_as_its_mean() -> None:
    def by_fold(trial: Trial) -> Outcome:
        made = scored(trial)
        return replace(made, metrics={**made.metrics, "val_wa": made.metrics["val_wa"] - 0.5 * trial.fold})

    run = run_to_the_end(plan(folds=2), opened(folds=2), FakeEngine(outcome=by_fold))
    assert run.counts() == (2 * 24, 2 * 24)
    assert chosen(run) == chosen(run_to_the_end(plan(), opened(), FakeEngine(outcome=scored)))
    (trace, _) = traces(evidence_of(run).results)
    assert trace.best is not None
    assert trace.scores[trace.best] > 0.5


def test_a_larger_budget_keeps_what_was_tried(tmp_path: Path) -> None:
    storage, engine = f"sqlite:///{tmp_path / 'study.db'}", FakeEngine(outcome=scored)
    run_to_the_end(plan(6), opened(storage), FakeEngine(outcome=scored))
    run = run_to_the_end(plan(9), opened(storage), engine)
    assert len([trial for trial in engine.ran if trial.seed == 0]) == 2 * 3
    assert all(trace.scores.size == 9 for trace in traces(evidence_of(run).results))


def test_tables_and_figures_show_tuning_once() -> None:
    run = run_to_the_end(plan(), opened(), FakeEngine(outcome=scored))
    evidence = evidence_of(run)
    tables = block_tables(evidence)
    assert set(tables) >= {"systems", "tuned", "tuning"}
    assert not any(name.startswith("tune-") for name in tables)
    table = tables["tuning"]
    assert [str(row[0]) for row in table.cells] == ["concat_mlp", "gcn"]
    assert len(table.frame) == 12
    assert table.frame.groupby("system")["chosen"].sum().tolist() == [1, 1]
    best = table.frame[table.frame["chosen"]].set_index("system")
    assert best.at["gcn", "lr"] == chosen(run)["gcn"]
    assert f"learning rate {chosen(run)['gcn']:g}" in table.markdown()
    made = drawings(evidence)
    assert "tuning" in made
    assert not any(name.startswith("tune-") for name in made)
    figure = made["tuning"].draw(evidence)
    assert not isinstance(figure, str)
    assert [axes.get_title() for axes in figure.axes] == ["concat_mlp", "gcn"]

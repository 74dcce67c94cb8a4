from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from invented import FakeEngine, demo_facts, demo_plan, invented, small_design
from runs import ROOT, recorded, start_python, until

from study import Block, Factor, driver
from study.design.configuration import Trial
from study.design.design import ANY_PAIR, distinct, with_values
from study.design.factors import Pair
from study.driver import Plan, StudyRun, first_pair
from study.ledger import leases
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.storages import open_storage
from study.papers.cemobam.paper import FUSIONS, MODULES

Make = Callable[..., Ledger]


def run(plan: Plan, ledger: Ledger, facts: StudyFacts, engine: FakeEngine) -> StudyRun:
    study = StudyRun(plan, ledger, facts)
    study.run(engine, lambda *_: None)
    return study


def test_every_trial_is_run_once_and_every_block_is_complete(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    engine = FakeEngine()
    study = run(plan, make_ledger(), facts, engine)
    assert study.pair() == Pair(2, 1)
    # 2 x 3 pairs with two seeds, then four fusions and two ablations more with two fresh ones
    assert len(engine.ran) == len(distinct(engine.ran)) == (6 + 4 + 2) * 2
    assert study.counts() == (24, 24)
    again = make_ledger()
    assert {block: len(again.new_outcomes(block)) for block in plan.blocks} == {"grid": 12, "fusion": 8, "ablation": 6}
    seen = Counter((t.configuration.get("fusion"), t.configuration.get("modules")) for t in engine.ran[12:])
    assert seen == dict.fromkeys({*((f, "full") for f in FUSIONS), *(("min", m) for m in MODULES)}, 2)
    assert all(t.configuration.pair == Pair(2, 1) for t in engine.ran[12:])
    assert Counter(t.seed for t in engine.ran) == {0: 6, 1: 6, 2: 6, 3: 6}


def test_run_again_it_trains_nothing(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    first = run(plan, make_ledger(), facts, FakeEngine())
    engine = FakeEngine()
    again = run(plan, make_ledger(), facts, engine)
    assert engine.ran == []
    assert again.outcomes == first.outcomes


@pytest.mark.parametrize("after", range(0, 24, 3))
def test_stopped_anywhere_it_goes_on_from_there(make_ledger: Make, plan: Plan, facts: StudyFacts, after: int) -> None:
    stopped = FakeEngine(stop_after=after)
    with pytest.raises(KeyboardInterrupt):
        run(plan, make_ledger(), facts, stopped)
    study = StudyRun(plan, make_ledger(), facts)
    assert study.counts() == (24, after)
    engine = FakeEngine()
    study.run(engine, lambda *_: None)
    assert len(engine.ran) == 24 - after
    assert study.outcomes == {t.signature("abc"): invented(t) for t in stopped.ran + engine.ran}
    assert {block: len(make_ledger().new_outcomes(block)) for block in plan.blocks} == {
        "grid": 12,
        "fusion": 8,
        "ablation": 6,
    }


ENDLESS = """
import sys
sys.path[:0] = [sys.argv[1]]
from invented import FakeEngine, demo_facts, demo_plan
from study.driver import StudyRun
from study.ledger.ledger import Ledger
ledger = Ledger("sqlite:///study.db", name="demo")
ledger.open(demo_facts())
print("ready", flush=True)
StudyRun(demo_plan(seeds=range(100)), ledger, demo_facts()).run(FakeEngine(seconds=0.002), lambda *_: None)
"""


@pytest.mark.slow
@pytest.mark.process
def test_killed_at_ten_random_moments_the_ledger_has_every_trial_once(in_folder: Path) -> None:
    """Trials take no time here, so nearly every kill hits while the ledger is written."""
    lottery = random.Random(0)
    counts = [0]
    for _ in range(10):
        process = start_python("-c", ENDLESS, str(ROOT / "tests"))
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        until(lambda: recorded("study.db") > counts[-1], "a trial is recorded", process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(lottery.random() / 10)
        process.kill()
        process.communicate()
        counts.append(recorded("study.db"))
    plan, facts = demo_plan(seeds=range(100)), demo_facts()
    ledger = Ledger("sqlite:///study.db", name="demo")
    ledger.open(facts)
    study = run(plan, ledger, facts, FakeEngine())
    assert study.counts() == (12 * 100, 12 * 100)
    assert study.outcomes == {t.signature("abc"): invented(t) for b in plan.blocks for t in study.trials(b)}
    assert all(set(counts.values()) == {1} for counts in signatures("sqlite:///study.db", plan).values())
    assert counts[-1] < 12 * 100  # even the last kill came before the end


def test_a_larger_grid_runs_what_is_new(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    small = replace(plan, blocks=("grid",))
    run(small, make_ledger(), facts, FakeEngine())
    larger = replace(small, design=small_design(k_audio=(1, 2, 3), k_text=(1, 2, 3), seeds=(0, 1, 2), epochs=2))
    engine = FakeEngine()
    run(larger, make_ledger(), facts, engine)
    assert len(engine.ran) == 3 * 3 * 3 - 12


def test_failed_trials_are_tried_again_next_time(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    def fails(trial: Trial) -> bool:
        return trial.configuration.pair == Pair(1, 2) and trial.seed == 1

    heard: list[tuple[Trial, Outcome]] = []
    study = StudyRun(plan, make_ledger(), facts)
    study.run(FakeEngine(fails=fails), lambda trial, outcome: heard.append((trial, outcome)))
    assert study.counts() == (24, 23)
    assert [outcome.reason for _, outcome in heard if outcome.status == "failed"] == ["ValueError: told to"]
    assert study.pair() == Pair(2, 1)  # every trial of the grid has an outcome, and this pair has all its seeds
    engine = FakeEngine()
    study = run(plan, make_ledger(), facts, engine)
    assert [(t.configuration.pair, t.seed) for t in engine.ran] == [(Pair(1, 2), 1)]
    assert study.counts() == (24, 24)


def test_the_best_pair_is_not_chosen_with_a_failed_seed(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    study = run(plan, make_ledger(), facts, FakeEngine(fails=lambda t: t.configuration.pair == Pair(2, 1)))
    assert study.pair() not in (None, Pair(2, 1))


def test_where_nothing_succeeds_no_pair_is_chosen(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    study = run(plan, make_ledger(), facts, FakeEngine(fails=lambda _: True))
    assert study.pair() is None
    assert study.counts() == (24, 0)


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
    assert study.counts() == (6, 0)  # its own configuration, too, runs with seeds that did not choose the pair
    study.run(engine, lambda *_: None)
    assert len(engine.ran) == 6
    unfinished = small_design(k_text=(1, 2, 3, 4), epochs=2)
    assert StudyRun(replace(plan, blocks=("ablation",), design=unfinished), make_ledger(), facts).pair() is None


def test_a_trial_done_for_one_block_is_copied_to_another_even_when_nothing_is_left_to_run(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    fusion = replace(plan, blocks=("fusion",), at=Pair(2, 1))
    run(fusion, make_ledger(), facts, FakeEngine())
    ledger = make_ledger()
    StudyRun(replace(fusion, blocks=("ablation",)), ledger, facts).share()
    assert len(make_ledger().new_outcomes("ablation")) == 2


def signatures(storage: str, plan: Plan) -> dict[str, Counter[str]]:
    """Count how often each block's study has each signature, as Optuna reads it."""
    place = open_storage(storage).optuna
    studies = {block: optuna.load_study(study_name=f"demo/{block}", storage=place) for block in plan.blocks}
    return {block: Counter(trial.user_attrs["signature"] for trial in study.trials) for block, study in studies.items()}


def test_several_runs_of_one_study_share_the_work(
    make_ledger: Make, shared_storage: str, plan: Plan, facts: StudyFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_POLL_S", 0.01)
    engines = [FakeEngine(seconds=0.03) for _ in range(3)]
    studies = [StudyRun(plan, make_ledger(shared_storage), facts) for _ in engines]
    heard: list[Counter[Trial]] = [Counter() for _ in engines]

    def work(i: int) -> None:
        studies[i].run(engines[i], lambda trial, _: heard[i].update([trial]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ran = [trial for engine in engines for trial in engine.ran]
    assert len(ran) == len(distinct(ran)) == 24
    assert sum(bool(engine.ran) for engine in engines) >= 2
    for study, told in zip(studies, heard, strict=True):
        assert study.counts() == (24, 24)
        assert set(told) == set(ran)  # each one's progress bar sees all of them, once
        assert set(told.values()) == {1}
    assert {block: len(c) for block, c in signatures(shared_storage, plan).items()} == {
        "grid": 12,
        "fusion": 8,
        "ablation": 6,
    }
    assert all(set(counts.values()) == {1} for counts in signatures(shared_storage, plan).values())


def test_what_a_run_that_dies_had_taken_another_does(
    make_ledger: Make, shared_storage: str, plan: Plan, facts: StudyFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_POLL_S", 0.01)
    dead = make_ledger(shared_storage).leases()
    dead._me = "elsewhere 1 x"
    first = plan.design.trials("grid", Pair(1, 1))[3].signature(facts.fingerprint)
    dead._change(lambda _: None)
    assert dead.take([first], 1) == [first]
    monkeypatch.setattr(leases, "BEAT_S", 0.02)  # for the run that lives
    engine = FakeEngine()
    study = run(plan, make_ledger(shared_storage), facts, engine)
    assert study.counts() == (24, 24)
    assert len(engine.ran) == 24
    assert first in {trial.signature(facts.fingerprint) for trial in engine.ran}


def test_while_a_run_waits_for_another_its_engine_rests(
    make_ledger: Make, shared_storage: str, plan: Plan, facts: StudyFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.driver._POLL_S", 0.01)
    monkeypatch.setattr("study.driver._REST_S", 0.1)
    one, other = (StudyRun(plan, make_ledger(shared_storage), facts) for _ in range(2))
    waiting = FakeEngine()

    class Slow(FakeEngine):
        """An engine that ends its first trial only when the engine of the other run rests."""

        def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
            pending = iter(trials)
            first = next(pending)
            if not waiting.rested:
                thread.start()
                while not waiting.rested:
                    time.sleep(0.01)
            self.ran.append(first)
            yield first, invented(first)
            yield from super().run(pending)

    thread = threading.Thread(target=lambda: other.run(waiting, lambda *_: None))
    slow = Slow()
    one.run(slow, lambda *_: None)
    thread.join()
    assert one.counts() == other.counts() == (24, 24)
    assert set(Counter([*waiting.ran, *slow.ran]).values()) == {1}


def test_a_trial_that_fails_for_one_run_is_not_tried_by_the_others_in_turn(
    make_ledger: Make, shared_storage: str, plan: Plan, facts: StudyFacts
) -> None:
    def fails(trial: Trial) -> bool:
        return trial.configuration.pair == Pair(1, 2) and trial.seed == 1

    one, other = (StudyRun(plan, make_ledger(shared_storage), facts) for _ in range(2))
    ran = []
    engine = FakeEngine(fails=fails)

    class Between(FakeEngine):
        """An engine that waits with its first outcome until the other run has done the rest."""

        def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
            if not engine.ran:
                other_done = threading.Thread(target=lambda: other.run(engine, lambda *_: None))
                pending = iter(trials)
                first = next(pending)
                other_done.start()
                while len(engine.ran) < 11:
                    time.sleep(0.01)
                ran.append(first)
                yield first, invented(first)
                trials = pending
                yield from super().run(trials)
                other_done.join()
            else:
                yield from super().run(trials)

    own = Between(fails=fails)
    one.run(own, lambda *_: None)
    everything = Counter([*ran, *own.ran, *engine.ran])
    assert set(everything.values()) == {1}
    assert one.counts() == (24, 23)
    again = FakeEngine()
    assert run(plan, make_ledger(shared_storage), facts, again).counts() == (24, 24)
    assert [(t.configuration.pair, t.seed) for t in again.ran] == [(Pair(1, 2), 1)]


def test_a_failed_trial_names_its_log(
    make_ledger: Make, plan: Plan, facts: StudyFacts, caplog: pytest.LogCaptureFixture
) -> None:
    study = StudyRun(plan, make_ledger(), facts)
    study.run(FakeEngine(fails=lambda trial: trial.seed == 1), lambda *_: None, log="logs/a.jsonl")
    outcomes = make_ledger().new_outcomes("grid").values()
    assert {(o.status, o.log) for o in outcomes} == {("done", ""), ("failed", "logs/a.jsonl")}
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {record.reason for record in told} == {"ValueError: told to"}  # type: ignore[attr-defined]
    assert all(record.signature for record in told)  # type: ignore[attr-defined]


# Blocks of a user, beside those of the paper.

WIDTH = Block("width", factors=[Factor("hidden_dim", [8, 16, 512])])
GRAPHLESS = Block("graphless", systems=["concat_mlp", "logistic"])
NAMED = Block("named", configurations={"theirs": {"hidden_dim": 8}, "mine": {"hidden_dim": 32}}, reference="theirs")


def planned(plan: Plan, *blocks: Block, run: tuple[str, ...], **changes: object) -> Plan:
    """Return a plan with additional blocks that runs only the named ones."""
    design = replace(plan.design, blocks={**plan.design.blocks, **{block.name: block for block in blocks}})
    return replace(plan, **{"design": design, "blocks": run, **changes})  # type: ignore[arg-type]


def test_blocks_that_need_no_pair_run_first(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    engine = FakeEngine()
    study = run(planned(plan, WIDTH, GRAPHLESS, run=("width", "graphless", "grid")), make_ledger(), facts, engine)
    assert study.pair() == Pair(2, 1)
    first, then = engine.ran[: 2 * (2 + 6)], engine.ran[2 * (2 + 6) :]
    assert Counter(trial.configuration.get("system") for trial in first) == {
        **{"concat_mlp": 2, "logistic": 2, "cemobam": 12}
    }
    # at the pair that the grid chose, with seeds that took no part in the choice
    assert {(trial.configuration.pair, trial.seed) for trial in then} == {(Pair(2, 1), 2), (Pair(2, 1), 3)}
    widths = Counter(trial.configuration.get("hidden_dim") for trial in then)
    assert widths == {8: 2, 16: 2, 512: 2}
    assert plan.design.base.get("hidden_dim") == 16
    assert {block: len(make_ledger().new_outcomes(block)) for block in ("width", "graphless", "grid")} == {
        **{"width": 6, "graphless": 4, "grid": 12}
    }


def test_what_blocks_share_under_other_names_is_trained_once_and_recorded_in_each(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    engine = FakeEngine()
    asked = planned(plan, WIDTH, NAMED, run=("width", "named"), at=Pair(1, 2))
    heard: list[Trial] = []
    study = StudyRun(asked, make_ledger(), facts)
    assert study.counts() == (8, 0)
    study.run(engine, lambda trial, _: heard.append(trial))
    assert len(engine.ran) == len(heard) == 8
    assert study.counts() == (8, 8)
    assert {block: len(make_ledger().new_outcomes(block)) for block in ("width", "named")} == {"width": 6, "named": 4}
    place = make_ledger().storage
    params = [one.params for one in optuna.load_study(study_name="demo/named", storage=place).trials]
    assert {(one["profile"], one["seed"]) for one in params} == {(n, s) for n in ("theirs", "mine") for s in (0, 1)}
    again = FakeEngine()
    run(asked, make_ledger(), facts, again)
    assert again.ran == []


def test_a_failure_in_one_block_is_made_good_in_all_that_share_the_trial(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    asked = planned(plan, WIDTH, NAMED, run=("width", "named"), at=Pair(1, 2))
    study = run(asked, make_ledger(), facts, FakeEngine(fails=lambda trial: trial.configuration.get("hidden_dim") == 8))
    assert study.counts() == (8, 6)
    engine = FakeEngine()
    assert run(asked, make_ledger(), facts, engine).counts() == (8, 8)
    assert len(engine.ran) == 2
    for block in ("width", "named"):
        assert {outcome.status for outcome in make_ledger().new_outcomes(block).values()} == {"done"}


def test_the_pair_is_given_chosen_or_the_usual_one(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    own = planned(plan, WIDTH, run=("width",), otherwise=Pair(5, 4))
    new = StudyRun(own, make_ledger(), facts)
    assert (new.pair(), new.pair_from) == (Pair(5, 4), "usual")
    engine = FakeEngine()
    run(own, make_ledger(), facts, engine)
    assert {trial.configuration.pair for trial in engine.ran} == {Pair(5, 4)}
    with_grid = replace(own, blocks=("width", "grid"))
    waits = StudyRun(with_grid, make_ledger(), facts)
    assert (waits.pair(), waits.pair_from) == (None, "chosen")  # the choosing block will run, so the others wait for it
    assert waits.trials("width") == []
    given = StudyRun(replace(with_grid, at=Pair(1, 1)), make_ledger(), facts)
    assert (given.pair(), given.pair_from) == (Pair(1, 1), "given")
    run(with_grid, make_ledger(), facts, FakeEngine())
    later = StudyRun(own, make_ledger(), facts)
    assert (later.pair(), later.pair_from) == (Pair(2, 1), "chosen")  # by the grid in the ledger, which ran before


def test_a_study_without_a_grid_has_the_usual_pair_or_none(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    bare = replace(plan, design=replace(plan.design, blocks={"width": WIDTH}), blocks=("width",))
    study = StudyRun(bare, make_ledger(), facts)
    assert (study.pair(), study.trials("width"), study.counts()) == (None, [], (6, 0))
    assert first_pair(bare.design) == ANY_PAIR
    usual = StudyRun(replace(bare, otherwise=Pair(3, 3)), make_ledger(), facts)
    assert (usual.pair(), usual.pair_from, len(usual.trials("width"))) == (Pair(3, 3), "usual", 6)


def test_a_grid_of_systems_without_a_graph_chooses_no_pair(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    engine = FakeEngine()
    grid = replace(plan, design=replace(plan.design, system="concat_mlp"), blocks=("grid",))
    study = run(grid, make_ledger(), facts, engine)
    assert (len(engine.ran), study.counts(), study.pair()) == (2, (2, 2), None)
    assert first_pair(grid.design) == ANY_PAIR


def test_values_that_are_added_to_a_block_are_run_alone(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    first = planned(plan, WIDTH, run=("width",), at=Pair(1, 2))
    run(first, make_ledger(), facts, FakeEngine())
    larger = planned(plan, with_values(WIDTH, {"hidden_dim": (4, 8, 16, 512)}), run=("width",), at=Pair(1, 2))
    engine = FakeEngine()
    assert run(larger, make_ledger(), facts, engine).counts() == (8, 8)
    assert {trial.configuration.get("hidden_dim") for trial in engine.ran} == {4}
    # the storage may have more trials than are asked for
    assert StudyRun(first, make_ledger(), facts).counts() == (6, 6)


def test_an_engine_that_stacks_is_given_those_together_that_can_be_one_stack(
    make_ledger: Make, plan: Plan, facts: StudyFacts
) -> None:
    class Stacking(FakeEngine):
        stacks = True

    engine = Stacking()
    run(planned(plan, WIDTH, run=("width",), at=Pair(1, 2)), make_ledger(), facts, engine)
    assert [t.configuration.get("hidden_dim") for t in engine.ran] == [8, 8, 16, 16, 512, 512]
    one_by_one = FakeEngine()
    run(planned(plan, WIDTH, run=("width",), at=Pair(2, 2)), make_ledger(), facts, one_by_one)
    assert [t.configuration.get("hidden_dim") for t in one_by_one.ran] == [8, 16, 512, 8, 16, 512]

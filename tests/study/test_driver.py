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
from invented import FakeEngine, demo_facts, demo_plan, invented
from runs import ROOT, recorded, start_python, until

from cemobam_core.config import FUSIONS, MODULES
from study import driver
from study.design import Pair, Trial, distinct
from study.driver import Plan, StudyRun
from study.ledger import leases
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.storages import open_storage

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
    assert {block: len(again.news(block)) for block in plan.blocks} == {"grid": 12, "fusion": 8, "ablation": 6}
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
    assert {block: len(make_ledger().news(block)) for block in plan.blocks} == {
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
    """Trials here take no time, so that nearly every kill comes while the ledger is written."""
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
    assert study.counts() == (11 * 100, 11 * 100)
    assert study.outcomes == {t.signature("abc"): invented(t) for b in plan.blocks for t in study.trials(b)}
    assert all(set(counts.values()) == {1} for counts in signatures("sqlite:///study.db", plan).values())
    assert counts[-1] < 11 * 100  # not even the last kill came after the end


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
    assert len(make_ledger().news("ablation")) == 2


def signatures(storage: str, plan: Plan) -> dict[str, Counter[str]]:
    """How often each block's study has each signature, as Optuna reads it."""
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
    assert len(ran) == len(distinct(ran)) == 22
    assert sum(bool(engine.ran) for engine in engines) >= 2
    for study, told in zip(studies, heard, strict=True):
        assert study.counts() == (22, 22)
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
    monkeypatch.setattr(leases, "BEAT_S", 0.02)  # of the one that lives
    engine = FakeEngine()
    study = run(plan, make_ledger(shared_storage), facts, engine)
    assert study.counts() == (22, 22)
    assert len(engine.ran) == 22
    assert first in {trial.signature(facts.fingerprint) for trial in engine.ran}


def test_a_trial_that_fails_for_one_run_is_not_tried_by_the_others_in_turn(
    make_ledger: Make, shared_storage: str, plan: Plan, facts: StudyFacts
) -> None:
    def fails(trial: Trial) -> bool:
        return trial.configuration.pair == Pair(1, 2) and trial.seed == 1

    one, other = (StudyRun(plan, make_ledger(shared_storage), facts) for _ in range(2))
    ran = []
    engine = FakeEngine(fails=fails)

    class Between(FakeEngine):
        """While it is asked for its first outcome, the other run does everything."""

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
    assert one.counts() == (22, 21)
    again = FakeEngine()
    assert run(plan, make_ledger(shared_storage), facts, again).counts() == (22, 22)
    assert [(t.configuration.pair, t.seed) for t in again.ran] == [(Pair(1, 2), 1)]


def test_a_failed_trial_names_its_log(
    make_ledger: Make, plan: Plan, facts: StudyFacts, caplog: pytest.LogCaptureFixture
) -> None:
    study = StudyRun(plan, make_ledger(), facts)
    study.run(FakeEngine(fails=lambda trial: trial.seed == 1), lambda *_: None, log="logs/a.jsonl")
    outcomes = make_ledger().news("grid").values()
    assert {(o.status, o.log) for o in outcomes} == {("done", ""), ("failed", "logs/a.jsonl")}
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {record.reason for record in told} == {"ValueError: told to"}  # type: ignore[attr-defined]
    assert all(record.signature for record in told)  # type: ignore[attr-defined]

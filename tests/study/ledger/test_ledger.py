from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from invented import invented

from cemobam_core import InputError
from study.design import Pair, Trial
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.storages import LedgerFailed, open_storage

Make = Callable[..., Ledger]


def test_what_is_recorded_is_read_again(make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts) -> None:
    ledger = make_ledger(storage)
    trials = plan.design.trials("grid", Pair(1, 1))[:4]
    for trial in trials:
        signature = trial.signature(facts.fingerprint)
        assert ledger.record("grid", trial, invented(trial)) == {signature: invented(trial)}
    assert ledger.news("grid") == {}
    expected = {t.signature(facts.fingerprint): invented(t) for t in trials}
    assert make_ledger(storage).news("grid") == expected
    assert make_ledger(storage).news("fusion") == {}
    assert make_ledger(storage).facts() == facts


def test_each_of_two_hears_what_the_other_records_and_a_trial_done_is_recorded_once(
    make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts
) -> None:
    one, two = make_ledger(storage), make_ledger(storage)
    first, second, *_ = plan.design.trials("grid", Pair(1, 1))
    one.record("grid", first, invented(first))
    late = replace(invented(first), seconds=9.0)
    assert two.record("grid", first, late) == {first.signature(facts.fingerprint): invented(first)}
    assert two.record("grid", second, invented(second)) == {second.signature(facts.fingerprint): invented(second)}
    assert one.news("grid") == {second.signature(facts.fingerprint): invented(second)}
    assert one.news("grid") == {}
    assert len(make_ledger(storage).news("grid")) == 2


def test_what_is_written_in_bulk_is_what_optuna_writes(plan: Plan, facts: StudyFacts, storage: str) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[5]
    curve = {1: 0.25, 2: float("nan"), 3: float("inf")}  # not that a validation WA could be
    ledger = Ledger(storage, name="demo")
    ledger.open(facts)
    for outcome in (invented(trial), Outcome(status="failed", seconds=0.1, device="cpu", reason="x", curve=curve)):
        ledger.record("grid", trial, outcome)
    ledger.record("grid", trial, replace(invented(trial), curve=curve))
    ours = optuna.load_study(study_name="demo/grid", storage=open_storage(storage).optuna)
    theirs = optuna.create_study(study_name="other", storage=open_storage(storage).optuna, direction="maximize")
    theirs.add_trials(ours.trials)
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        for name in ("number", "state", "params", "distributions", "user_attrs", "system_attrs", "duration"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.values == other.values
        assert repr(one.intermediate_values) == repr(other.intermediate_values)  # nan is not nan
        assert one.datetime_start == other.datetime_start
    assert [t.state.name for t in ours.trials] == ["COMPLETE", "FAIL"][: len(ours.trials)]


def test_the_dashboard_finds_a_study_worth_browsing(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[5]
    make_ledger().record("grid", trial, invented(trial))
    study = optuna.load_study(study_name="demo/grid", storage=f"sqlite:///{tmp_path / 'study.db'}")
    (recorded,) = study.trials
    assert recorded.params == {"k_audio": 2, "k_text": 3, "fusion": "min", "modules": "full", "fold": 0, "seed": 0}
    assert recorded.value == recorded.user_attrs["val_wa"] == invented(trial).metrics["val_wa"]
    assert recorded.intermediate_values == invented(trial).curve
    assert set(METRICS) <= recorded.user_attrs.keys()
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert recorded.duration is not None
    assert recorded.duration.total_seconds() == pytest.approx(0.5)


def test_a_done_trial_outranks_its_failures(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    ledger = make_ledger()
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    failed = Outcome(status="failed", seconds=0.0, device="cpu", reason="killed")
    ledger.record("grid", trial, failed)
    assert make_ledger().news("grid")[trial.signature(facts.fingerprint)].reason == "killed"
    ledger.record("grid", trial, invented(trial))
    ledger.record("grid", trial, failed)
    assert make_ledger().news("grid")[trial.signature(facts.fingerprint)] == invented(trial)


def test_other_features_are_refused(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    make_ledger().record("grid", trial, invented(trial))
    other = replace(facts, fingerprint="xyz")
    with pytest.raises(InputError, match=r"'demo/grid' was made from other features.*abc, now xyz.*--name"):
        make_ledger().open(other)
    with pytest.raises(InputError, match="other features"):
        make_ledger(tag="epochs=7").open(other)
    make_ledger(name="demo2").open(other)


def test_other_settings_are_another_study(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    make_ledger().record("grid", trial, invented(trial))
    make_ledger(tag="epochs=7,lr=0.1").record("grid", trial, invented(trial))
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'study.db'}")
    assert names == ["demo/grid", "demo/grid epochs=7,lr=0.1"]
    assert make_ledger(tag="epochs=8").facts() is None


def test_a_study_made_but_not_described_is_taken_up(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    optuna.create_study(study_name="demo/grid", storage=f"sqlite:///{tmp_path / 'study.db'}", direction="maximize")
    ledger = make_ledger()  # a kill came in between
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    ledger.record("grid", trial, invented(trial))
    assert len(make_ledger().news("grid")) == 1
    assert make_ledger().facts() is not None


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////nowhere/at/all/study.db", "postgresql://localhost:1/x", "ftp://x"]
)
def test_a_wrong_storage_is_named(url: str) -> None:
    with pytest.raises(InputError, match="cannot be opened as an Optuna storage"):
        Ledger(url, name="demo")


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("k_audio,k_text\n1,2\n")
    with pytest.raises(InputError, match="file is not a database"):
        Ledger(f"sqlite:///{tmp_path / 'study.db'}", name="demo")


def test_a_storage_that_refuses_says_so(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    ledger = make_ledger()
    trials: list[Trial] = plan.design.trials("grid", Pair(1, 1))
    ledger.record("grid", trials[0], invented(trials[0]))
    with sqlite3.connect(tmp_path / "study.db") as database:
        (pages,) = database.execute("pragma page_count").fetchone()
    engine = ledger._storage.optuna.engine  # type: ignore[attr-defined]

    @sqlalchemy.event.listens_for(engine, "connect")
    def fill_the_disk(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"pragma max_page_count={pages}")  # as SQLite sees a full disk: no page more

    engine.dispose()
    with pytest.raises(LedgerFailed, match="full"):
        for trial in trials[1:]:
            ledger.record("grid", trial, invented(trial))
    whole = make_ledger().news("grid")
    assert all(set(outcome.metrics) == set(METRICS) for outcome in whole.values())


def test_the_options_of_the_last_run_are_kept(
    make_ledger: Callable[..., Ledger], plan: Plan, facts: StudyFacts, storage: str
) -> None:
    ledger = make_ledger(storage)
    ledger.keep_options(["--seeds", "2"])
    assert ledger.recorded() == []  # nothing is recorded before there is a trial
    first, *_ = StudyRun(plan, ledger, facts).trials("grid")
    ledger.record("grid", first, invented(first))
    make_ledger(storage, tag="epochs=2").record("grid", first, invented(first))
    (plain, tagged) = make_ledger(storage).recorded()
    assert (plain.name, plain.tag, plain.asked, plain.facts) == ("demo", "", ("--seeds", "2"), facts)
    assert (tagged.tag, tagged.asked) == ("epochs=2", ())
    make_ledger(storage).keep_options(["--seeds", "0,7"])
    assert [study.asked for study in make_ledger(storage).recorded()] == [("--seeds", "0,7"), ()]

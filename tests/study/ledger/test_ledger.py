from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import sqlalchemy
from invented import demo_plan, invented
from own_systems import GRU

from cemobam_core import InputError
from study import Block, Factor
from study.design.configuration import Trial
from study.design.design import ANY_PAIR, Design
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger, block_of
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.storages import LedgerFailed, open_storage
from study.ledger.utterances import TestUtterances

Make = Callable[..., Ledger]

GRID = demo_plan().design.blocks["grid"]


def test_what_is_recorded_is_read_again(make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts) -> None:
    ledger = make_ledger(storage)
    trials = plan.design.trials("grid", Pair(1, 1))[:4]
    for trial in trials:
        signature = trial.signature(facts.fingerprint)
        assert ledger.record(GRID, trial, invented(trial)) == {signature: invented(trial)}
    assert ledger.new_outcomes("grid") == {}
    expected = {t.signature(facts.fingerprint): invented(t) for t in trials}
    assert make_ledger(storage).new_outcomes("grid") == expected
    assert make_ledger(storage).new_outcomes("fusion") == {}
    assert make_ledger(storage).facts() == facts


def test_each_of_two_hears_what_the_other_records_and_a_trial_done_is_recorded_once(
    make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts
) -> None:
    one, two = make_ledger(storage), make_ledger(storage)
    first, second, *_ = plan.design.trials("grid", Pair(1, 1))
    one.record(GRID, first, invented(first))
    late = replace(invented(first), seconds=9.0)
    assert two.record(GRID, first, late) == {first.signature(facts.fingerprint): invented(first)}
    assert two.record(GRID, second, invented(second)) == {second.signature(facts.fingerprint): invented(second)}
    assert one.new_outcomes("grid") == {second.signature(facts.fingerprint): invented(second)}
    assert one.new_outcomes("grid") == {}
    assert len(make_ledger(storage).new_outcomes("grid")) == 2


def test_what_is_written_in_bulk_is_what_optuna_writes(plan: Plan, facts: StudyFacts, storage: str) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[5]
    curve = {1: 0.25, 2: float("nan"), 3: float("inf")}  # a real validation WA has no such values
    ledger = Ledger(storage, name="demo")
    ledger.open(facts)
    for outcome in (
        replace(invented(trial), predicted=b"\0\1"),
        Outcome(status="failed", seconds=0.1, device="cpu", reason="x", curve=curve),
    ):
        ledger.record(GRID, trial, outcome)
    ledger.record(GRID, trial, replace(invented(trial), curve=curve))
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
    make_ledger().record(GRID, trial, invented(trial))
    study = optuna.load_study(study_name="demo/grid", storage=f"sqlite:///{tmp_path / 'study.db'}")
    (recorded,) = study.trials
    assert recorded.params == {
        **{"system": "cemobam", "k_audio": 2, "k_text": 3, "fusion": "min", "modules": "full"},
        **{"fold": 0, "seed": 0},
    }
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
    ledger.record(GRID, trial, failed)
    assert make_ledger().new_outcomes("grid")[trial.signature(facts.fingerprint)].reason == "killed"
    ledger.record(GRID, trial, invented(trial))
    ledger.record(GRID, trial, failed)
    assert make_ledger().new_outcomes("grid")[trial.signature(facts.fingerprint)] == invented(trial)


def test_other_features_are_refused(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    make_ledger().record(GRID, trial, invented(trial))
    other = replace(facts, fingerprint="xyz")
    with pytest.raises(InputError, match=r"'demo/grid' was made from other features.*abc, now xyz.*--name"):
        make_ledger().open(other)
    with pytest.raises(InputError, match="other features"):
        make_ledger(tag="epochs=7").open(other)
    make_ledger(name="demo2").open(other)


def test_other_settings_are_another_study(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    make_ledger().record(GRID, trial, invented(trial))
    make_ledger(tag="epochs=7,lr=0.1").record(GRID, trial, invented(trial))
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'study.db'}")
    assert names == ["demo/grid", "demo/grid epochs=7,lr=0.1"]
    assert make_ledger(tag="epochs=8").facts() is None


def test_a_study_made_but_not_described_is_taken_up(make_ledger: Make, plan: Plan, tmp_path: Path) -> None:
    optuna.create_study(study_name="demo/grid", storage=f"sqlite:///{tmp_path / 'study.db'}", direction="maximize")
    ledger = make_ledger()  # the earlier run was killed after creating the study
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    ledger.record(GRID, trial, invented(trial))
    assert len(make_ledger().new_outcomes("grid")) == 1
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
    ledger.record(GRID, trials[0], invented(trials[0]))
    with sqlite3.connect(tmp_path / "study.db") as database:
        (pages,) = database.execute("pragma page_count").fetchone()
    engine = ledger._storage.optuna.engine  # type: ignore[attr-defined]

    @sqlalchemy.event.listens_for(engine, "connect")
    def fill_the_disk(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"pragma max_page_count={pages}")  # to SQLite, this is a full disk: it gets no more pages

    engine.dispose()
    with pytest.raises(LedgerFailed, match="full"):
        for trial in trials[1:]:
            ledger.record(GRID, trial, invented(trial))
    whole = make_ledger().new_outcomes("grid")
    assert all(set(outcome.metrics) == set(METRICS) for outcome in whole.values())


def test_the_options_of_the_last_run_are_kept(
    make_ledger: Callable[..., Ledger], plan: Plan, facts: StudyFacts, storage: str
) -> None:
    ledger = make_ledger(storage)
    ledger.keep_options(["--seeds", "2"])
    assert ledger.recorded() == []  # nothing is recorded before there is a trial
    first, *_ = StudyRun(plan, ledger, facts).trials("grid")
    ledger.record(GRID, first, invented(first))
    make_ledger(storage, tag="epochs=2").record(GRID, first, invented(first))
    (plain, tagged) = make_ledger(storage).recorded()
    assert (plain.name, plain.tag, plain.asked, plain.facts) == ("demo", "", ("--seeds", "2"), facts)
    assert (tagged.tag, tagged.asked) == ("epochs=2", ())
    make_ledger(storage).keep_options(["--seeds", "0,7"])
    assert [study.asked for study in make_ledger(storage).recorded()] == [("--seeds", "0,7"), ()]


# Predictions of trials, and their utterances.

TESTED = TestUtterances(
    ids=("a", "ü\ud800"),
    labels=(0, 1),
    folds=(0, 0),
    speakers=None,
    sessions=("x", "y"),
    seconds=(1.0, 2.0),
    train_sizes=(7,),
)


@pytest.mark.parametrize("utterances", [0, 2, 255, 100_000])
def test_what_a_trial_predicted_is_read_again(
    make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts, utterances: int
) -> None:
    predicted = hashlib.shake_256(b"").digest(utterances)
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    outcome = replace(invented(trial), predicted=predicted)
    signature = trial.signature(facts.fingerprint)
    assert make_ledger(storage).record(GRID, trial, outcome) == {signature: outcome}
    assert make_ledger(storage).new_outcomes("grid") == {signature: outcome}


def test_predictions_are_system_attributes_that_mysql_takes(
    make_ledger: Make, plan: Plan, tmp_path: Path, facts: StudyFacts
) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    noise = hashlib.shake_256(b"").digest(100_000)  # it cannot be compressed
    ledger = make_ledger()
    ledger.open(facts, replace(TESTED, ids=(noise.hex(), "b")))
    ledger.record(GRID, trial, replace(invented(trial), predicted=noise))
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
        parts = database.execute("select key, length(value_json) from trial_system_attributes order by key").fetchall()
        lists = database.execute("select key, length(value_json) from study_system_attributes order by key").fetchall()
    assert [name for name, _ in parts] == ["cemobam:predicted:0", "cemobam:predicted:1", "cemobam:predicted:2"]
    assert [name for name, _ in lists if name.startswith("cemobam:")] == [
        "cemobam:utterances:0", "cemobam:utterances:1", "cemobam:utterances:2"
    ]  # fmt: skip
    assert max(length for _, length in parts + lists) < 2**16
    (recorded,) = optuna.load_study(study_name="demo/grid", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert not any("cemobam:" in name for name in recorded.user_attrs)


@pytest.mark.parametrize("spoilt", ["x", "", 3, "eNpLBAAAYgBj"])
def test_a_trial_whose_predictions_are_damaged_goes_without(
    make_ledger: Make, storage: str, plan: Plan, caplog: pytest.LogCaptureFixture, spoilt: object
) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    make_ledger(storage).record(GRID, trial, replace(invented(trial), predicted=b"abc"))
    place = open_storage(storage).optuna
    study = optuna.load_study(study_name="demo/grid", storage=place)
    (whole,) = study.trials
    whole.system_attrs = {"cemobam:predicted:0": spoilt}
    whole.user_attrs["signature"] = "damaged"
    study.add_trial(whole)
    found = make_ledger(storage).new_outcomes("grid")
    assert (found[trial.signature("abc")].predicted, found["damaged"].predicted) == (b"abc", b"")
    assert found["damaged"].metrics == found[trial.signature("abc")].metrics
    assert "trial damaged is read without its predictions: cemobam:predicted is damaged" in caplog.text


def test_the_test_utterances_are_kept_once_a_study(
    make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts
) -> None:
    trial, other = plan.design.trials("grid", Pair(1, 1))[:2]
    before = make_ledger(storage)
    before.open(facts)
    before.record(GRID, trial, invented(trial))
    assert before.utterances() is None
    assert Ledger(storage, name="demo").utterances() is None  # an older ledger
    ledger = make_ledger(storage)
    ledger.open(facts, TESTED)
    assert ledger.utterances() == TESTED
    ledger.record(GRID, other, invented(other))  # the study exists, and gets them now
    assert Ledger(storage, name="demo").utterances() == TESTED  # --report-only opens nothing
    assert Ledger(storage, name="demo", tag="epochs=7").utterances() is None
    assert Ledger(storage, name="other").utterances() is None
    shorter = replace(TESTED, ids=("c", "d"))
    again = make_ledger(storage)
    again.open(facts, shorter)
    again.keep_options([])
    assert Ledger(storage, name="demo").utterances() == shorter


def test_a_list_of_utterances_that_is_damaged_is_written_anew(
    make_ledger: Make, storage: str, plan: Plan, facts: StudyFacts
) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[0]
    ledger = make_ledger(storage)
    ledger.open(facts, TESTED)
    ledger.record(GRID, trial, invented(trial))
    place = open_storage(storage).optuna
    number = place.get_study_id_from_name("demo/grid")
    for part in range(2):  # one part more than the list has, as left by a longer list
        place.set_study_system_attr(number, f"cemobam:utterances:{part}", "YWJj")
    with pytest.raises(
        InputError, match=r"'demo/grid': cemobam:utterances is damaged .*; run the study's command again"
    ):
        Ledger(storage, name="demo").utterances()
    ledger = make_ledger(storage)
    ledger.open(facts, TESTED)
    ledger.keep_options(["--seeds", "2"])
    assert Ledger(storage, name="demo").utterances() == TESTED


# The settings that blocks vary, as Optuna reads them.

VARIED = {
    "hidden_dim": Factor("hidden_dim", [8, 16]),
    "lr": Factor("lr", [1e-4, 1, 0.003]),
    "weight_decay": Factor("weight_decay", [0, 0.0005]),
    "gat_first_dropout": Factor("gat_first_dropout", [True, False]),
    "channel_gate": Factor("channel_gate", ["sum_of_sigmoids"]),
    "system": Factor("system", ["cemobam", "logistic"]),
    "k_audio": Factor("k_audio", [1, 30]),
}


def design_of(*blocks: Block) -> Design:
    return Design(blocks={block.name: block for block in blocks}, seeds=(0, 11))


def read_by_optuna(storage: str) -> dict[str, list[optuna.trial.FrozenTrial]]:
    """Return the trials of every study, as Optuna and its dashboard read them."""
    place = open_storage(storage).optuna
    app = optuna_dashboard.wsgi(place)

    def get(path: str) -> dict[str, Any]:
        environ = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
        setup_testing_defaults(environ)
        statuses: list[str] = []
        body = b"".join(app(environ, lambda status, *_: statuses.append(status))).decode()
        assert statuses == ["200 OK"], body
        return dict(json.loads(body))

    found = {}
    for one in get("/api/studies")["study_summaries"]:
        read = found[one["study_name"]] = optuna.load_study(study_name=one["study_name"], storage=place).trials
        detail = get(f"/api/studies/{one['study_id']}")
        assert [{p["name"] for p in t["params"]} for t in detail["trials"]] == [set(t.params) for t in read]
        if len(read) > 3:  # the dashboard computes no importance from fewer trials
            get(f"/api/studies/{one['study_id']}/param_importances")
    return found


def recorded_in(ledger: Ledger, block: Block) -> list[Trial]:
    trials = design_of(block).trials(block.name, Pair(2, 1))
    for trial in trials:
        ledger.record(block, trial, invented(trial))
    return trials


KINDS = {"lr": float, "weight_decay": float, "hidden_dim": int, "k_audio": int, "gat_first_dropout": bool}

EXTENDED = {
    "hidden_dim": [8, 16, 32, 1024],
    "lr": [1e-4, 1, 0.003, 1e-7, 20],
    "weight_decay": [0, 0.0005, 3],
    "channel_gate": ["sum_of_sigmoids", "sigmoid_of_sum"],
    "system": ["gcn", "cemobam", "concat_mlp", "logistic"],
    "k_audio": [1, 2, 30, 2000],
}
"""Values that a later run may give the factors."""


def test_every_kind_of_value_is_read_back_by_optuna_beside_those_that_a_later_run_adds(
    make_ledger: Make, storage: str
) -> None:
    ledger = make_ledger(storage)
    trials = {name: recorded_in(ledger, Block(f"x-{name}", factors=[factor])) for name, factor in VARIED.items()}
    for _ in range(2):
        read = read_by_optuna(storage)
        assert read.keys() == {f"demo/x-{name}" for name in VARIED}
        for name, those in trials.items():
            told = ("system", "k_audio", "k_text", "fusion", "modules", name)
            found = read[f"demo/x-{name}"]
            assert [one.params for one in found] == [trial.parameters(told) for trial in those]
            assert {type(one.params[name]) for one in found if name in one.params} == {KINDS.get(name, str)}
            assert [one.user_attrs["signature"] for one in found] == [trial.signature("abc") for trial in those]
        ledger = make_ledger(storage)
        for name, values in EXTENDED.items():
            block = Block(f"x-{name}", factors=[Factor(name, values)])
            assert len(ledger.new_outcomes(block.name)) == len(trials[name])
            more = recorded_in(ledger, block)
            trials[name] += [trial for trial in more if trial not in trials[name]]
            assert block_of(block.name, make_ledger(storage).blocks()[block.name]) == block


def test_a_system_in_a_file_is_recorded_by_its_name(
    make_ledger: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/gru.py").write_text(GRU)
    path = f"{tmp_path}/elsewhere/gru.py:GRU"
    for block in (
        Block("x", systems=["cemobam", path], factors=[Factor("width", [3, 4])]),
        Block("y", configurations={"theirs": {"system": path, "width": 2}, "ours": {"lr": 1}}, reference="ours"),
    ):
        ledger = make_ledger()
        recorded_in(ledger, block)
        assert block_of(block.name, make_ledger().blocks()[block.name]) == block
    read = read_by_optuna(f"sqlite:///{tmp_path / 'study.db'}")
    named = {(one.params["system"], one.params.get("width")) for one in read["demo/x"]}
    assert named == {("cemobam", None), ("gru.py:GRU", 3), ("gru.py:GRU", 4)}
    (space,) = {one.distributions["system"] for one in read["demo/x"]}
    assert space.choices == ("cemobam", "gru.py:GRU")  # type: ignore[attr-defined]
    profiles = {(one.params["profile"], one.params["system"]) for one in read["demo/y"]}
    assert profiles == {("theirs", "gru.py:GRU"), ("ours", "cemobam")}


def test_what_blocks_vary_is_read_back(make_ledger: Make, storage: str) -> None:
    blocks = [
        *(Block(f"x-{name}", question="Is it?", factors=[factor]) for name, factor in VARIED.items()),
        Block("two", factors=[VARIED["lr"], VARIED["system"]]),
        Block("named", configurations={"a b": {"lr": 0.1, "fusion": "max"}, "c": {}}, reference="c"),
    ]
    ledger = make_ledger(storage)
    trial, *_ = design_of(blocks[0]).trials(blocks[0].name, ANY_PAIR)
    for block in blocks:
        ledger.record(block, trial, invented(trial))
    again = [block_of(*found) for found in make_ledger(storage).blocks().items()]
    assert again == blocks
    for one, other in zip(again, blocks, strict=True):
        assert repr(list(one.changes())) == repr(list(other.changes()))  # 1 is not 1.0 here
    assert make_ledger(storage, tag="lr=1").blocks() == {}
    assert make_ledger(storage, name="other").blocks() == {}


@pytest.mark.parametrize(
    "data",
    [
        {"factors": 3},
        {"factors": [["lr"]]},
        {"factors": [["lr", []]]},
        {"factors": [["lr", [1]]], "reference": 2},
        {"configurations": ["a"]},
        {},
        {"factors": [[None, [1]]]},
    ],
)
def test_a_description_that_is_none_is_told(data: dict[str, object]) -> None:
    with pytest.raises(InputError) as error:
        block_of("x", data)
    assert "\n" not in str(error.value)


def test_a_description_of_before_is_read_with_what_it_has() -> None:
    assert block_of("x", {"factors": [["lr", [1]]]}) == Block("x", factors=[Factor("lr", [1])])
    newer = {"configurations": {"a": {}}, "drawn_as": "circle"}
    assert block_of("x", newer) == Block("x", configurations={"a": {}})


def test_rows_of_other_versions_are_read_with_what_they_have(make_ledger: Make, plan: Plan, storage: str) -> None:
    trial = plan.design.trials("grid", ANY_PAIR)[0]
    make_ledger(storage).record(GRID, trial, invented(trial))
    place = open_storage(storage).optuna
    study = optuna.load_study(study_name="demo/grid", storage=place)
    add = optuna.trial.create_trial
    study.add_trial(add(value=0.5, user_attrs={"signature": "older", "val_wa": 0.5, "test_wa": 0.25}))
    study.add_trial(add(value=0.5, user_attrs={"signature": "newer", "val_wa": 0.5, "val_auc": 0.7, "sort": [{}]}))
    study.add_trial(add(state=optuna.trial.TrialState.FAIL, user_attrs={"signature": "failed"}))
    study.add_trial(add(value=0.5))  # by hand, in the dashboard
    study.enqueue_trial({"k_audio": 1})
    found = make_ledger(storage).new_outcomes("grid")
    assert list(found) == [trial.signature("abc"), "older", "newer", "failed"]
    assert found["older"].metrics == {"val_wa": 0.5, "test_wa": 0.25}
    assert found["newer"].metrics == {"val_wa": 0.5}
    assert (found["older"].status, found["older"].device, found["older"].confusion) == ("done", "", ())
    assert math.isnan(found["older"].seconds)
    assert (found["failed"].status, found["failed"].metrics, found["failed"].reason) == ("failed", {}, "")


def test_facts_of_other_versions_are_read_with_what_they_have(
    make_ledger: Make, plan: Plan, facts: StudyFacts, storage: str
) -> None:
    trial = plan.design.trials("grid", ANY_PAIR)[0]
    make_ledger(storage).record(GRID, trial, invented(trial))
    place = open_storage(storage).optuna
    number = place.get_study_id_from_name("demo/grid")
    place.set_study_user_attr(number, "made from", {"dataset": "demo", "fingerprint": "abc", "licence": "none"})
    kept = make_ledger(storage).facts()
    assert kept == StudyFacts(dataset="demo", title="", fingerprint="abc", folds=1, settings={})
    assert [one.facts for one in make_ledger(storage).recorded()] == [kept]
    place.set_study_user_attr(number, "made from", {})
    with pytest.raises(InputError, match="was made from other features"):  # unknown features count as other features
        make_ledger(storage)

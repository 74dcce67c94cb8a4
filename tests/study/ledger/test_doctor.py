"""What can be read of a damaged ledger, what counts as whole, and the checks of everything that is read."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import demo_facts, demo_plan, demo_utterances, invented
from sqlalchemy.exc import OperationalError

from cemobam_core import InputError
from study.design.configuration import Trial
from study.design.factors import Pair
from study.driver import Plan
from study.ledger import doctor
from study.ledger.checked import block_data_of, facts_of, options_of, outcome_of, signature_of
from study.ledger.doctor import Diagnosis, examine, write
from study.ledger.ledger import FACTS, Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.storages import LedgerFailed, Row, open_storage, told
from study.ledger.storages.pages import read_pages

Make = Callable[..., Ledger]


def measured(trial: Trial) -> Outcome:
    """Return an outcome whose predictions, confusion matrix and accuracy agree, as those of a real trial do."""
    outcome = invented(trial)
    labels = demo_utterances().labels
    counts = [[0] * 4 for _ in range(4)]
    for label, predicted in zip(labels, outcome.predicted, strict=True):
        counts[label][predicted] += 1
    return replace(outcome, confusion=tuple(map(tuple, counts)), parameters=7)


def _record(url: str) -> dict[str, Outcome]:
    """Record two blocks and a failed trial, and return the outcomes by signature."""
    plan, ledger = demo_plan(), Ledger(url, name="demo")
    ledger.open(demo_facts(), demo_utterances())
    outcomes: dict[str, Outcome] = {}
    for name in ("grid", "fusion"):
        for trial in plan.design.trials(name, Pair(1, 1))[:5]:
            outcomes |= ledger.record(plan.design.blocks[name], trial, measured(trial))
    failed = plan.design.trials("ablation", Pair(1, 1))[0]
    outcome = Outcome(status="failed", seconds=0.1, device="cpu", reason="killed")
    return outcomes | ledger.record(plan.design.blocks["ablation"], failed, outcome)


@pytest.fixture(scope="module")
def _in_sqlite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    file = tmp_path_factory.mktemp("recorded") / "study.db"
    return file, _record(f"sqlite:///{file}")


@pytest.fixture
def recorded(
    storage: str, tmp_path: Path, _in_sqlite: tuple[Path, dict[str, Outcome]]
) -> tuple[str, dict[str, Outcome]]:
    """A ledger of every kind with two blocks and a failed trial, and its outcomes by signature."""
    if not storage.startswith("sqlite"):
        return storage, _record(storage)
    shutil.copy(_in_sqlite[0], tmp_path / "study.db")
    return storage, dict(_in_sqlite[1])


def saved(diagnosis: Diagnosis, folder: Path) -> dict[str, Outcome]:
    """Write what is whole, and return the outcomes of the new ledger by signature."""
    write(diagnosis, folder / "new.db")
    assert sorted(path.name for path in folder.iterdir() if "new" in path.name) == ["new.db"]
    ledger = Ledger(f"sqlite:///{folder / 'new.db'}", name="demo")
    return {s: o for name in ("grid", "fusion", "ablation") for s, o in ledger.new_outcomes(name).items()}


def sql(folder: Path, statement: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute(statement, values)


only_sqlite = pytest.mark.parametrize("storage", ["sqlite"], indirect=True)
only_journal = pytest.mark.parametrize("storage", ["journal"], indirect=True)


def test_all_of_a_whole_ledger_is_saved(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, facts: StudyFacts, plan: Plan
) -> None:
    url, outcomes = recorded
    diagnosis = examine(url)
    assert (diagnosis.whole, diagnosis.faults, diagnosis.done, diagnosis.others) == (True, (), 10, 0)
    assert saved(diagnosis, tmp_path) == outcomes
    here, there = Ledger(url, name="demo"), Ledger(f"sqlite:///{tmp_path / 'new.db'}", name="demo")
    assert (there.facts(), there.utterances(), there.blocks()) == (facts, here.utterances(), here.blocks())
    before = optuna.load_study(study_name="demo/grid", storage=here.storage).trials
    after = optuna.load_study(study_name="demo/grid", storage=there.storage).trials
    for one, other in zip(before, after, strict=True):
        for name in ("number", "params", "distributions", "values", "datetime_start", "datetime_complete", "state"):
            assert getattr(one, name) == getattr(other, name), name
    assert examine(f"sqlite:///{tmp_path / 'new.db'}").whole


@only_sqlite
def test_a_new_ledger_is_complete_or_not_there(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = examine(recorded[0])
    (tmp_path / "new").mkdir()
    (tmp_path / "new/there.db").write_text("mine")
    with pytest.raises(InputError, match="this file exists, and is not overwritten"):
        write(diagnosis, tmp_path / "new/there.db")
    monkeypatch.setattr(doctor, "packed", lambda *_: {"x": object()})  # it fails in the middle
    with pytest.raises(LedgerFailed):
        write(diagnosis, tmp_path / "new/other.db")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there.db"]
    assert (tmp_path / "new/there.db").read_text() == "mine"


FAULTS = [
    ("update trial_user_attributes set value_json = '1.5' where key = 'val_wa'", "val_wa is 1.5, but must be a num"),
    ("update trial_user_attributes set value_json = '0.5' where key = 'val_ua'", ""),
    ("update trial_user_attributes set value_json = '0.75' where key = 'val_wa'", "but Optuna's objective is"),
    ("update trial_user_attributes set value_json = 'NaN' where key = 'test_loss'", "test_loss is nan, but must be"),
    ("update trial_user_attributes set value_json = '[[1]]' where key = 'test_confusion'", "confusion matrix gives 1"),
    ("update trial_user_attributes set value_json = '\"xyz\"' where key = 'signature'", "its signature is lost or"),
    ("update trial_user_attributes set value_json = '{' where key = 'device'", "device is not JSON"),
    ("update trial_user_attributes set value_json = '\"failed\"' where key = 'status'", "but Optuna's state is COMPL"),
    ("update trials set state = 'RUNNING'", ""),
    ("update trial_system_attributes set value_json = '\"eJwDAAAAAAE=\"'", "its predictions are lost"),
    ("update trial_system_attributes set value_json = '\"x\"'", "cemobam:predicted is damaged"),
    ("update trial_intermediate_values set intermediate_value = 7 where step = 1", "step 1 of its learning curve is 7"),
    ("update trial_user_attributes set key = 'x' where key = 'test_wa'", "its metrics are lost"),
]


@only_sqlite
@pytest.mark.parametrize(("statement", "said"), FAULTS)
def test_a_trial_that_no_run_wrote_so_is_left_out(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, statement: str, said: str
) -> None:
    url, outcomes = recorded
    sql(tmp_path, f"{statement} {'and' if 'where' in statement else 'where'} trial_id = 3")
    diagnosis = examine(url)
    third = list(outcomes)[2]
    if said:
        fault = diagnosis.faults[-1]
        assert all("Optuna" in one for one in diagnosis.faults[:-1])  # it refuses what is not JSON, too
        assert fault.startswith("demo/grid: trial with id 3: ")
        assert said in fault
        outcomes.pop(third)
    else:
        assert diagnosis.whole  # it is as good as another, or Optuna runs it
    if diagnosis.others:
        outcomes.pop(third)
    assert saved(diagnosis, tmp_path).keys() == outcomes.keys()


@only_sqlite
def test_predictions_for_other_utterances_are_noticed(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, plan: Plan, make_ledger: Make
) -> None:
    trial = plan.design.trials("grid", Pair(1, 1))[6]
    make_ledger(recorded[0]).record(plan.design.blocks["grid"], trial, replace(measured(trial), predicted=b"\0" * 31))
    (fault,) = examine(recorded[0]).faults
    assert fault == "demo/grid: trial with id 12: it has 31 predictions for 32 test utterances"


@only_sqlite
def test_a_signature_is_kept_once(recorded: tuple[str, dict[str, Outcome]], tmp_path: Path) -> None:
    url, outcomes = recorded
    for study in [optuna.load_study(study_name="demo/grid", storage=url)]:
        study.add_trial(study.trials[1])
    diagnosis = examine(url)
    (fault,) = diagnosis.faults
    assert fault.endswith(f"trial with id 12: its signature {list(outcomes)[1]} is there twice")
    assert saved(diagnosis, tmp_path) == outcomes


@only_sqlite
def test_what_one_block_has_lost_another_still_has(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, facts: StudyFacts
) -> None:
    url, outcomes = recorded
    sql(tmp_path, "update study_user_attributes set value_json = '3' where key = ? and study_id = 1", FACTS)
    sql(tmp_path, "delete from study_system_attributes where study_id = 1")
    with pytest.raises(LedgerFailed, match=r"study.db: study 'demo/grid', attribute 'made from': it is 3, but must be"):
        Ledger(url, name="demo").facts()
    diagnosis = examine(url)
    assert diagnosis.faults == ("demo/grid: attribute 'made from': it is 3, but must be an object",)
    assert saved(diagnosis, tmp_path) == outcomes
    ledger = Ledger(f"sqlite:///{tmp_path / 'new.db'}", name="demo")
    assert ledger.facts() == facts
    assert ledger.utterances() == demo_utterances()


@only_sqlite
def test_facts_that_are_lost_everywhere_are_written_again_by_the_next_run(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, facts: StudyFacts, make_ledger: Make
) -> None:
    url, outcomes = recorded
    sql(tmp_path, "delete from study_user_attributes where key = ?", FACTS)
    diagnosis = examine(url)
    assert "run its command once without --report-only, which writes its facts again" in diagnosis.faults[-1]
    assert saved(diagnosis, tmp_path) == outcomes
    new = f"sqlite:///{tmp_path / 'new.db'}"
    make_ledger(new).keep_options([])
    assert Ledger(new, name="demo").facts() == facts


@only_sqlite
def test_a_transaction_that_was_cut_short_is_rolled_back(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path
) -> None:
    _, outcomes = recorded
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute("pragma cache_size = 1")  # so that it writes pages before the end of the transaction
        database.execute("update trial_user_attributes set value_json = 'half written' || hex(zeroblob(2000))")
        (tmp_path / "cut").mkdir()
        for name in ("study.db", "study.db-journal"):
            shutil.copy(tmp_path / name, tmp_path / "cut" / name)
        database.rollback()
    before = (tmp_path / "cut/study.db").read_bytes()
    assert b"half written" in before
    diagnosis = examine(f"sqlite:///{tmp_path / 'cut/study.db'}")
    assert diagnosis.whole
    assert saved(diagnosis, tmp_path) == outcomes
    assert (tmp_path / "cut/study.db").read_bytes() == before


@only_journal
def test_an_entry_behind_a_torn_one_is_not_lost(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, make_ledger: Make
) -> None:
    url, outcomes = recorded
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if b'"op_code":4' in line]
    torn, behind = places[2], places[3]
    lines[torn] = lines[torn][:-100]
    lines[behind - 1 : behind] = [] if behind - 1 != torn else [lines[torn]]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(
        LedgerFailed, match=r"study.journal: this ledger is damaged .*cemobam doctor --storage journal:"
    ):
        Ledger(url, name="demo")
    diagnosis = examine(url)
    assert diagnosis.units[1] == 1
    outcomes.pop(list(outcomes)[2])
    assert saved(diagnosis, tmp_path) == outcomes


@only_journal
def test_nothing_is_appended_to_a_journal_that_nobody_could_read_afterwards(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, make_ledger: Make, plan: Plan
) -> None:
    journal = tmp_path / "study.journal"
    trial = plan.design.trials("grid", Pair(1, 1))[7]
    ledger, whole = make_ledger(recorded[0]), journal.read_bytes()
    for content, said in ((whole + b'{"op_', "ends in the middle of an entry"), (whole[:-200], "its end was cut off")):
        journal.write_bytes(content)
        with pytest.raises(LedgerFailed, match=said):
            ledger.record(plan.design.blocks["grid"], trial, measured(trial))
        assert journal.read_bytes() == content
    journal.unlink()
    with pytest.raises(LedgerFailed, match="the ledger's file is gone"):
        ledger.record(plan.design.blocks["grid"], trial, measured(trial))
    assert not journal.exists()


@pytest.mark.postgres
@pytest.mark.parametrize("storage", ["postgresql"], indirect=True)
def test_a_table_that_a_server_has_lost_is_told(recorded: tuple[str, dict[str, Outcome]], tmp_path: Path) -> None:
    url, _ = recorded
    here = open_storage(url).optuna
    with here.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("drop table trial_params")
        connection.exec_driver_sql("update trial_user_attributes set value_json = '{' where key = 'seconds'")
    diagnosis = examine(url)
    assert diagnosis.faults[0].startswith("the table trial_params cannot be read")
    assert saved(diagnosis, tmp_path) == {}
    assert diagnosis.faults[1].endswith("seconds is not JSON")


# The pages of an SQLite file, against SQLite.

values = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=50)
long = st.sampled_from([0, 100, 3000, 4050, 4060, 4070, 20_000, 70_000])


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), values, long), max_size=60, unique_by=lambda row: row[0]),
    st.sampled_from([512, 1024, 4096, 65536]),
    st.lists(st.integers(0, 59), max_size=10),
)
def test_pages_are_read_as_sqlite_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, Any, int]], size: int, deleted: list[int]
) -> None:
    path = tmp_path_factory.mktemp("pages") / "x.db"
    rows = [(n, None if isinstance(x, str) and "\0" in x else x, length) for n, x, length in rows]
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"pragma page_size = {size}")
        database.execute("create table t (id integer primary key, x, y text)")
        database.executemany("insert into t values (?, ?, ?)", [(n, x, "ü" * length) for n, x, length in rows])
        for n in deleted:
            if n < len(rows):
                database.execute("delete from t where id = ?", (rows[n][0],))
        wanted = database.execute("select * from t order by id").fetchall()
    content = read_pages(path)
    assert content is not None
    found = sorted((cell.id, *cell.values[1:]) for cell in content.tables["t"])
    assert [repr(row) for row in found] == [repr(row) for row in wanted]
    assert (content.damaged, content.lost, content.strays) == (set(), 0, {})


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 9000])
def test_what_is_no_sqlite_file_is_read_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    found = read_pages(tmp_path / "x.db")
    assert found is None or not any(found.tables.values())


# What is checked when it is read.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folds": 10**9}, "folds is 1000000000, but must be a whole number from 1 to 1000"),
        ({"folds": 0}, "folds is 0"),
        ({"folds": True}, "folds is True"),
        ({"folds": "3"}, "folds is '3'"),
        ({"class_names": "abc"}, "class_names is 'abc', but must be a list"),
        ({"class_names": ["a", "a"]}, "must be a list without repeated names"),
        ({"class_names": ["a"] * 2000}, "a list of at most 1000 values"),
        ({"settings": [1]}, "settings is"),
        ({"settings": {"lr": float("nan")}}, r"settings\['lr'\] is nan, but must be a finite number"),
        ({"settings": {"lr": {}}}, r"settings\['lr'\] is {}"),
        ({"made_with": {"python": 3}}, r"made_with\['python'\] is 3"),
        ({"dataset": None}, "dataset is None, but must be text"),
        ({"fingerprint": "x" * 10_000}, "fingerprint is 'xxx.*…, but must be text of at most 500 characters"),
    ],
)
def test_a_fact_that_no_study_wrote_is_named(facts: StudyFacts, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        facts_of({"dataset": "demo", "folds": 1, **change})


@pytest.mark.parametrize("kept", [None, 3, "x", []])
def test_facts_that_are_none_are_refused(kept: Any) -> None:
    for parse in (facts_of, block_data_of):
        with pytest.raises(InputError, match=r"it is .*, but must be an object"):
            parse(kept)


@pytest.mark.parametrize("kept", [None, {}, [1], ["--seeds", None], "--seeds 2"])
def test_options_that_are_none_are_refused(kept: Any) -> None:
    with pytest.raises(InputError, match="but must be"):
        options_of(kept)


GOOD = {"signature": "0" * 16, **dict.fromkeys(METRICS, 0.5), "seconds": 1.0, "device": "cpu"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_wa": 1.01}, "test_wa is 1.01, but must be a number from 0 to 1"),
        ({"test_wa": "1"}, "test_wa is '1'"),
        ({"val_loss": float("inf")}, "val_loss is inf, but must be a finite number"),
        ({"val_loss": 10**400}, "val_loss is 1000.*…, but must be a finite number"),
        ({"seconds": -1}, "seconds is -1, but must be a finite number of at least 0"),
        ({"device": 3}, "device is 3, but must be text"),
        ({"parameters": 1.5}, "parameters is 1.5"),
        ({"test_confusion": [[1, 2]]}, "test_confusion is .*, but must be as many rows as columns"),
        ({"test_confusion": [[1.5]]}, "a value of test_confusion is 1.5"),
        ({"test_confusion": {}}, "test_confusion is {}"),
        ({"signature": 3}, "signature is 3"),
        ({"signature": "../x"}, "signature is '../x'"),
    ],
)
def test_a_value_of_a_trial_that_no_run_wrote_is_named(change: dict[str, Any], said: str) -> None:
    row = Row(7, True, {**GOOD, **change}, {1: 0.5}, {})
    with pytest.raises(InputError, match=said):
        assert signature_of(row)
        outcome_of(row)


@pytest.mark.parametrize("curve", [{1: "x"}, {1: 2.0}, {1: float("nan")}, {-1: 0.5}, {"a": 0.5}])
def test_a_learning_curve_is_checked(curve: Any) -> None:
    with pytest.raises(InputError, match="of its learning curve is"):
        outcome_of(Row(7, True, GOOD, curve, {}))


@only_sqlite
def test_the_trial_is_named(recorded: tuple[str, dict[str, Outcome]], tmp_path: Path) -> None:
    sql(tmp_path, "update trial_user_attributes set value_json = '-1' where key = 'seconds' and trial_id = 2")
    with pytest.raises(LedgerFailed, match=r"study.db: study 'demo/grid', trial with id 2: seconds is -1, but must be"):
        Ledger(recorded[0], name="demo").new_outcomes("grid")
    sql(tmp_path, "update trial_user_attributes set value_json = '{' where key = 'seconds' and trial_id = 2")
    with pytest.raises(LedgerFailed, match="attribute 'seconds' of the trial with id 2 is not JSON"):
        Ledger(recorded[0], name="demo").new_outcomes("grid")


@only_sqlite
def test_folds_are_those_of_the_test_utterances(recorded: tuple[str, dict[str, Outcome]], tmp_path: Path) -> None:
    sql(
        tmp_path,
        "update study_user_attributes set value_json = json_set(value_json, '$.folds', 900) where key = ?",
        FACTS,
    )
    with pytest.raises(LedgerFailed, match="folds is 900, but the list of test utterances has 1; to save"):
        Ledger(recorded[0], name="demo").facts()
    diagnosis = examine(recorded[0])
    assert "folds is 900, but the list of test utterances has another number" in diagnosis.faults[0]
    write(diagnosis, tmp_path / "new.db")
    facts = Ledger(f"sqlite:///{tmp_path / 'new.db'}", name="demo").facts()
    assert facts
    assert facts.folds == 1


@only_sqlite
@pytest.mark.parametrize("name", ["../../x/grid", "demo", "demo/grid\nx", "x" * 100 + "/grid", "/grid"])
def test_a_study_whose_name_is_no_folder_is_refused(
    recorded: tuple[str, dict[str, Outcome]], tmp_path: Path, name: str
) -> None:
    sql(tmp_path, "update studies set study_name = ? where study_id = 1", name)
    with pytest.raises(LedgerFailed, match="the name of a study is"):
        Ledger(recorded[0], name="").recorded()


def test_errors_of_a_storage_become_one_line_without_the_password() -> None:
    url = "postgresql://me:secret@host/x"
    lost = OperationalError("select 1", None, Exception(f"connection to {url} lost\nsecond line"))
    with (
        pytest.raises(LedgerFailed, match=r"^postgresql://me:\*\*\*@host/x: the ledger cannot be used now") as error,
        told(url),
    ):
        raise lost
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert "run the same command again to continue" in str(error.value)
    with (
        pytest.raises(LedgerFailed, match=r"this ledger is damaged .* --storage 'postgresql://me:") as error,
        told(url),
    ):
        json.loads("{")
    assert "secret" not in str(error.value)
    with pytest.raises(ZeroDivisionError), told(url):
        _ = 1 / 0

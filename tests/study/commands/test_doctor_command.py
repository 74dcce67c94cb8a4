"""Damaged ledgers: one line instead of a traceback, what is whole is saved, and a run loses nothing."""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hostile.ledgers import as_journal, hostile
from runs import SMALL, TRIALS, cemobam_here, run_here, trials

from study.commands import cemobam, running
from study.commands.progress import Progress
from study.findings.evidence import Evidence

LEDGER = Path("results/demo/study.db")


def pages_of(table: str, database: Path = LEDGER) -> list[int]:
    """Return the leaf pages of a table, by what SQLite says of each page's rows."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
    data = database.read_bytes()
    page = data[(root - 1) * 4096 : root * 4096]
    if page[0] == 0x0D:
        return [root]
    count = int.from_bytes(page[3:5], "big")
    cells = [int.from_bytes(page[12 + 2 * i : 14 + 2 * i], "big") for i in range(count)]
    return [int.from_bytes(page[at : at + 4], "big") for at in cells] + [int.from_bytes(page[8:12], "big")]


def overwrite(page: int, database: Path = LEDGER) -> None:
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def said_in_one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def test_a_whole_ledger_is_whole(small_study: Path) -> None:
    before = LEDGER.read_bytes()
    out, err = cemobam_here("doctor")
    assert "results/demo/study.db: whole" in out
    assert re.search(r"demo/grid epochs=2: trials +8 +0", out)
    assert not err
    assert LEDGER.read_bytes() == before
    cemobam_here("doctor", "--to", "copy.db")
    before_csv = trials()
    run_here("--report-only", "--storage", "sqlite:///copy.db")
    pd.testing.assert_frame_equal(trials(), before_csv)


def test_a_damaged_page_loses_the_trials_on_it_and_a_run_trains_only_these_again(
    small_study: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None
) -> None:
    whole = trials()
    overwrite(pages_of("trial_user_attributes")[2])
    _, err = run_here("--report-only", status=2)
    assert "malformed" in said_in_one_line(err)
    assert "cemobam doctor --storage sqlite:///results/demo/study.db --to NEW.db" in err
    out, _ = cemobam_here("doctor", "--to", "new.db", status=1)
    (kept,) = re.findall(r"written: new.db, with (\d+) done trials; \d+ damaged trials are left out", out)
    assert 12 <= int(kept) < 22
    assert "damaged" in out
    ran, _ = run_here(*SMALL, "--storage", "sqlite:///new.db")
    (missing,) = re.findall(r"20 trials, \d+ done, (\d+) to run", ran)
    assert 0 < int(missing) <= 22 - int(kept)
    pd.testing.assert_frame_equal(trials(), whole)
    cemobam_here("doctor", "--storage", "sqlite:///new.db")


@pytest.mark.parametrize("table", ["studies", "trials", "trial_params", "sqlite_master"])
def test_what_other_pages_tell_of_a_damaged_one_is_not_lost(small_study: Path, table: str) -> None:
    page = 1 if table == "sqlite_master" else pages_of(table)[0]
    overwrite(page)
    out, _ = cemobam_here("doctor", "--to", "new.db", status=1)
    assert "written: new.db, with 22 done trials" in out
    cemobam_here("doctor", "--storage", "sqlite:///new.db")


def test_what_a_flipped_bit_changes_is_noticed(small_study: Path) -> None:
    with contextlib.closing(sqlite3.connect(LEDGER)) as database, database:
        database.execute("update trial_user_attributes set value_json = '0.5' where key = 'test_wa' and trial_id = 3")
    out, _ = cemobam_here("doctor", status=1)
    assert re.search(r"demo/grid epochs=2: trial with id 3: test_wa is 0.5, but the confusion matrix gives 0\.\d+", out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "results/demo/study.db"], "this file exists, and is not overwritten"),
        (["--dataset", "esd"], "results/esd/study.db: there is no ledger"),
        (["--storage", "journal:///nowhere"], "nowhere: there is no ledger"),
        (["--storage", "sqlite:///README"], "this is not an SQLite file"),
        (["--storage", "journal:///README"], "README: this is not a journal of Optuna"),
        (["--storage", "postgresql://me:secret@127.0.0.1:1/x"], "postgresql://me:***@127.0.0.1:1/x: cannot be opened"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_written(small_study: Path, words: list[str], said: str) -> None:
    Path("README").write_text("once upon a time\n" * 1000)
    before = LEDGER.read_bytes()
    _, err = cemobam_here("doctor", *words, status=2)
    assert said in said_in_one_line(err)
    assert "secret" not in err
    assert LEDGER.read_bytes() == before


# While a run is under way.


def delete_the_file(_: Path) -> None:
    LEDGER.unlink()


def break_the_pages(_: Path) -> None:
    data = LEDGER.read_bytes()
    with LEDGER.open("r+b") as file:
        file.seek(24)
        file.write(b"\xa5" * (len(data) - 24))


def delete_the_study(_: Path) -> None:
    optuna.delete_study(study_name="demo/grid epochs=2", storage=f"sqlite:///{LEDGER}")


def tear_the_journal(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","study_id":0,"datet')


def delete_the_journal(journal: Path) -> None:
    journal.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (delete_the_file, "study.db: the ledger's file is gone"),
        (break_the_pages, "study.db: this ledger is damaged"),
        (delete_the_study, "a study in it was deleted while this run was using it"),
        (tear_the_journal, "shared.journal: this ledger is damaged (it ends in the middle of an entry"),
        (delete_the_journal, "shared.journal: the ledger's file is gone"),
    ],
)
def test_a_ledger_that_breaks_under_a_run_stops_it_and_no_trained_trial_is_lost(
    in_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_figures: None,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    journal = in_folder / "shared.journal"
    there = ["--storage", f"journal:///{journal}"] if "journal" in damage.__name__ else []
    told: list[Any] = []
    on_outcome = Progress.on_outcome

    def then_damage(self: Progress, *about: Any) -> None:
        on_outcome(self, *about)
        told.append(about)
        if len(told) == 4:
            damage(journal)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_outcome", then_damage)
        _, err = run_here(*SMALL, *there, status=2)
    (line,) = [line for line in err.splitlines() if line.startswith("run_grid.py: error:")]
    assert said in line
    assert "Traceback" not in err
    (kept,) = re.findall(r"(\d+) finished trials of this study are kept in results/demo/rescued.db", line)
    assert 5 <= int(kept) <= 7  # four recorded, the one that was refused, and those that were running
    if damage in (break_the_pages, tear_the_journal):
        storage = there[1] if there else f"sqlite:///{LEDGER}"
        if damage is tear_the_journal:
            cemobam_here("doctor", "--storage", storage, "--to", "new.db", status=1)
        there = ["--storage", "sqlite:///new.db"]
    out, _ = run_here(*SMALL, *there)
    assert f"{TRIALS} trials, {kept} done, {TRIALS - int(kept)} to run" in out
    assert not Path("results/demo/rescued.db").exists()
    assert (trials().status == "done").all()


def test_what_cannot_be_kept_is_counted(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_outcome = Progress.on_outcome

    def then_damage(self: Progress, *about: Any) -> None:
        on_outcome(self, *about)
        break_the_pages(in_folder)
        Path("results/demo/rescued.db").mkdir(exist_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_outcome", then_damage)
        _, err = run_here(*SMALL, status=2)
    assert re.search(r"[123] finished trials are lost, and the next run trains them again", err)


# Hostile ledgers.


@pytest.fixture(scope="module")
def ledgers(_small_study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A ledger in SQLite, and the same in a journal file."""
    journal = tmp_path_factory.mktemp("ledgers") / "good.journal"
    as_journal(_small_study / LEDGER, journal)
    return _small_study / LEDGER, journal


def _survives(seed: int, ledgers: tuple[Path, Path], folder: Path) -> None:
    """Check that a report and the doctor take a hostile ledger, and that a report takes what the doctor saved."""
    url, what = hostile(seed, *ledgers, folder)
    _ends_normally(what, "run", "--report-only", "--storage", url)
    for file in folder.glob("hostile.*"):
        file.unlink()
    hostile(seed, *ledgers, folder)  # the report may have written into it
    status = _ends_normally(what, "doctor", "--storage", url, "--to", "new.db")
    assert Path("new.db").exists() == (status != 2), what
    if status != 2:
        _ends_normally(what, "run", "--report-only", "--storage", "sqlite:///new.db")


def _ends_normally(what: str, *words: str) -> int:
    """Run a command, which may refuse a ledger in one line, and return its exit status."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = cemobam(list(words))
        except (Exception, SystemExit) as error:
            pytest.fail(f"{what}: {words}: {error!r}")
    errors = [line for line in err.getvalue().splitlines() if line.startswith("cemobam")]
    assert len(errors) == (status == 2), f"{what}: {err.getvalue()}"
    assert not errors or err.getvalue().endswith(f"{errors[0]}\n"), f"{what}: {err.getvalue()}"
    return status


@pytest.fixture
def evidence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read everything that a report needs, and write nothing."""

    def read(request: Any, run: Any, **_: Any) -> None:
        assert Evidence.of(run, name=request.name, models=request.models).analysis

    monkeypatch.setattr(running, "write_report", read)


@pytest.mark.parametrize("seed", [*range(60), *(pytest.param(n, marks=pytest.mark.hostile) for n in range(60, 360))])
def test_a_hostile_ledger_is_told_in_one_line(
    seed: int, ledgers: tuple[Path, Path], in_folder: Path, evidence_only: None
) -> None:
    _survives(seed, ledgers, in_folder)


@pytest.mark.hostile
@pytest.mark.parametrize("seed", range(360, 390))
def test_a_whole_report_takes_a_hostile_ledger(
    seed: int, ledgers: tuple[Path, Path], in_folder: Path, without_figures: None
) -> None:
    _survives(seed, ledgers, in_folder)

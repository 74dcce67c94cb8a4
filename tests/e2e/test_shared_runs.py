"""Several runs of one study at once, and their failures."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
import sqlalchemy
from runs import ended, run_here, start, trials, until
from servers import PostgreSQL

from study.ledger.storages import open_storage

pytestmark = [pytest.mark.process, pytest.mark.slow]
STUDY = ["--k-audio", "1,3", "--k-text", "1:2", "--seeds", "10", "--epochs", "20", "--workers", "1"]
TRIALS = 10 * (2 * 2 + 4 + 2)


def counted(storage: str) -> list[int]:
    """Return the number of trials of each block's study, after checking that none is there twice."""
    place = open_storage(storage).optuna
    numbers = []
    for name in optuna.get_all_study_names(place):
        signatures = [
            trial.user_attrs["signature"] for trial in optuna.load_study(study_name=name, storage=place).trials
        ]
        assert len(set(signatures)) == len(signatures)
        numbers.append(len(signatures))
    return numbers


def has_run(name: str) -> bool:
    """Return whether a run has done a trial itself, by its log."""
    return any("trial done" in path.read_text() for path in Path(f"{name}/demo/logs").glob("*"))


@pytest.fixture
def undisturbed(in_folder: Path, without_figures: None) -> pd.DataFrame:
    run_here(*STUDY, "--results", "undisturbed")
    return trials("undisturbed/demo")


def test_two_runs_over_a_journal_do_one_study(in_folder: Path, undisturbed: pd.DataFrame) -> None:
    storage = "journal:///shared.journal"
    arguments = [*STUDY, "--storage", storage]
    both = [start(*arguments, "--results", name) for name in ("one", "two")]
    for process in both:
        assert f"{TRIALS} of {TRIALS} trials done" in ended(process)[0]
    for name in ("one", "two"):
        pd.testing.assert_frame_equal(trials(f"{name}/demo"), undisturbed)
    assert sorted(counted(storage)) == [30, 40, 40]
    assert has_run("one")
    assert has_run("two")


@pytest.mark.postgres
def test_over_postgresql_a_run_is_killed_and_the_server_started_again(
    in_folder: Path, undisturbed: pd.DataFrame, postgresql: PostgreSQL
) -> None:
    storage = postgresql.new_database()
    arguments = [*STUDY, "--storage", storage, "--verbose"]
    killed, living = (start(*arguments, "--results", name) for name in ("killed", "living"))
    ledger = sqlalchemy.create_engine(storage, poolclass=sqlalchemy.NullPool)

    def recorded() -> int:
        with ledger.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("trials"):
                return 0
            return connection.scalar(sqlalchemy.text("select count(*) from trials")) or 0

    until(lambda: has_run("killed"), "the run that is to be killed has done a trial", killed)
    killed.kill()
    killed.communicate()
    so_far = recorded()
    assert so_far < TRIALS - 20
    until(lambda: recorded() >= so_far + 2, "the other does not go on")
    postgresql.stop()
    time.sleep(1)  # long enough for a refusal of the run, which it reports only at its end
    postgresql.start()
    out, err = ended(living)
    pd.testing.assert_frame_equal(trials("living/demo"), undisturbed)
    assert sorted(counted(storage)) == [30, 40, 40]
    assert "is dead; its" in err
    assert "does not answer" in err
    for text in (
        out,
        err,
        *(
            path.read_text()
            for path in Path("living/demo").rglob("*")
            if path.suffix in {".jsonl", ".md", ".html", ".json"}
        ),
    ):
        assert "secret-word" not in text
    assert "postgresql://tester:***@127.0.0.1" in out + err

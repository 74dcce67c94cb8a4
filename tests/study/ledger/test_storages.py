from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest
from servers import PostgreSQL
from sqlalchemy.exc import OperationalError

from study.ledger.storages import Board, LedgerFailed, masked, open_storage, sql
from study.ledger.storages.journal import JournalStorage


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("postgresql://me:word@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("mysql+pymysql://me:w@rd:x@host/db", "mysql+pymysql://me:***@host/db"),
        ("postgresql://:word@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?user=me&password=word", "postgresql://host/db?user=me&password=***"),
        (
            "could not open postgresql://me:word@host/db, nor that",
            "could not open postgresql://me:***@host/db, nor that",
        ),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:///results/a@b/study.db", "sqlite:///results/a@b/study.db"),
        ("sqlite:////C:/x@y/study.db", "sqlite:////C:/x@y/study.db"),
    ],
)
def test_a_password_is_not_printed(text: str, printed: str) -> None:
    assert masked(text) == printed


def test_several_change_a_board_one_after_another(shared_storage: str) -> None:
    def count(board: Board) -> None:
        board["n"] = board.get("n", 0) + 1

    def run() -> None:
        mine = open_storage(shared_storage)
        for _ in range(20):
            mine.change("a", count)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_storage(shared_storage).change("a", dict) == {"n": 60}
    assert open_storage(shared_storage).change("b", dict) == {}


def test_a_run_that_fails_while_it_changes_a_board_leaves_it_as_it_was(shared_storage: str) -> None:
    def breaks(board: Board) -> None:
        board["n"] = 2
        raise ZeroDivisionError

    here = open_storage(shared_storage)
    here.change("a", lambda board: board.update(n=1))
    with pytest.raises(ZeroDivisionError):
        here.change("a", breaks)
    assert open_storage(shared_storage).change("a", dict) == {"n": 1}


class Sets(logging.Handler):
    """A log handler that sets an event when the server does not answer."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def emit(self, record: logging.LogRecord) -> None:
        if "does not answer" in record.getMessage():
            self.event.set()


@pytest.mark.postgres
def test_a_server_that_is_started_again_is_waited_for(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = open_storage(postgresql.new_database())
    here.change("a", lambda board: board.update(n=1))
    postgresql.stop()
    refused = threading.Event()
    starting = threading.Thread(target=lambda: (refused.wait(), postgresql.start()))
    starting.start()
    logging.getLogger("study").addHandler(handler := Sets(refused))
    try:
        assert here.change("a", dict) == {"n": 1}
    finally:
        refused.set()
        starting.join()
        logging.getLogger("study").removeHandler(handler)
    assert "does not answer" in caplog.text
    assert "secret-word" not in caplog.text
    monkeypatch.setattr(sql, "PATIENCE_S", 0.5)
    postgresql.stop()
    try:
        with pytest.raises(LedgerFailed):
            here.change("a", dict)
    finally:
        postgresql.start()


def test_a_file_that_refuses_is_not_asked_again(tmp_path: Path) -> None:
    here = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    asked = 0

    def refuses() -> None:
        nonlocal asked
        asked += 1
        raise OperationalError("insert", None, Exception("database or disk is full"))

    with pytest.raises(LedgerFailed, match="database or disk is full"):
        here.retried(refuses)
    assert asked == 1


def test_the_lock_of_a_killed_run_does_not_stay(tmp_path: Path) -> None:
    here = JournalStorage(str(tmp_path / "study.journal"))
    here._lock.grace_period = 1
    here._lock.acquire()  # and never release it
    here.change("a", lambda board: board.update(n=1))
    assert json.loads((tmp_path / "study.journal.boards").read_text()) == {"a": {"n": 1}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.journal", "study.journal.boards"]

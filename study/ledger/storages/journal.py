"""Optuna studies in a journal file, for several runs at once on a file system that they share."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from cemobam_core.files import written_atomically
from study.ledger.storages import DELETED, Board, Row, told

T = TypeVar("T")

_log = logging.getLogger(__name__)


class JournalStorage:
    """Optuna studies in a journal file.

    The file is only appended to, so it is safe on network file systems, where SQLite is not.

    Args:
        path: Path of the file. It is created if it does not exist.

    Raises:
        Exception: Any error of Optuna or the file system.
    """

    shared = True

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._url = f"journal:///{path}"
        # Optuna's own lock covers one entry; this lock covers a read and the write after it. A run holds it for
        # milliseconds. If the run is killed in that time, the lock is released after the grace period, in seconds.
        self._lock = JournalFileOpenLock(f"{path}.runs", grace_period=15)
        lock = _SafeLock(self._path)
        backend = JournalFileBackend(path, lock)
        lock.seen = self._path.stat()
        self.optuna = optuna.storages.JournalStorage(backend)

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id."""
        return _Transaction(self.optuna, study_id).read(after)

    @contextmanager
    def transaction(self, study_id: int) -> Iterator[_Transaction]:
        """Yield the study while only this run writes to it."""
        with self._alone():
            if study_id not in {study._study_id for study in self.optuna.get_all_studies()}:
                raise ValueError(DELETED)
            yield _Transaction(self.optuna, study_id)

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Call ``change`` on a board while no other run changes it, and return its result."""
        path = self._path.with_name(f"{self._path.name}.boards")

        def changed() -> T:
            with self._alone():
                boards = _boards(path)
                result = change(boards.setdefault(board, {}))
                with written_atomically(path) as beside:
                    beside.write_text(json.dumps(boards))
                return result

        return self.retried(changed)

    def retried(self, action: Callable[[], T]) -> T:
        """Run ``action``. A file needs no retries: it answers or refuses at once.

        Raises:
            LedgerFailed: If the file system refuses, or the file holds something that cannot be read.
        """
        with told(self._url):
            return action()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # another run took the lock: this process was stopped for too long
                self._lock.release()


def _boards(path: Path) -> dict[str, Board]:
    """Return the boards in a file. A file that nobody could have written counts as empty: boards only save work."""
    try:
        boards = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        boards = None
    if isinstance(boards, dict) and all(isinstance(board, dict) for board in boards.values()):
        return boards
    _log.warning("%s: cannot be read, so this run does not know which trials other runs are training", path)
    return {}


class _SafeLock(JournalFileSymlinkLock):
    """Optuna's lock for an entry of the journal. It refuses an entry that nobody could read afterwards.

    Optuna appends to whatever is there. After an entry that was torn, because the run that wrote it was killed, the
    next entry would be lost too. If the file was deleted, the entry would begin a new file without its study.

    Args:
        path: Path of the journal.

    Attributes:
        seen: The file when it was last seen. `None` if it was not seen yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self.seen: os.stat_result | None = None

    def acquire(self) -> bool:
        """Lock the file, and check that an entry can be appended to it.

        Raises:
            FileNotFoundError: If the file was deleted or replaced.
            ValueError: If it was cut off, or ends in the middle of an entry.
        """
        acquired = super().acquire()
        try:
            self._check()
        except BaseException:
            self.release()
            raise
        return acquired

    def _check(self) -> None:
        with self._path.open("rb") as file:
            now = os.fstat(file.fileno())
            before = self.seen or now
            if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino) or now.st_size < before.st_size:
                raise ValueError("another file has taken its place, or its end was cut off")
            if now.st_size:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    raise ValueError("it ends in the middle of an entry, because a run was killed while it wrote")
            self.seen = now


class _Transaction:
    """One study of the journal."""

    def __init__(self, storage: optuna.storages.JournalStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def read(self, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id."""
        trials = [
            trial
            for trial in self._storage.get_all_trials(self._study_id, deepcopy=False)
            if trial._trial_id > after and trial.state.is_finished()
        ]
        rows = [
            Row(t._trial_id, t.state == TrialState.COMPLETE, t.user_attrs, t.intermediate_values, t.system_attrs)
            for t in trials
        ]
        return rows, max((trial._trial_id for trial in trials), default=after)

    def add(self, trial: FrozenTrial) -> int:
        """Add an ended trial as one entry of the journal, and return its id."""
        return self._storage.create_new_trial(self._study_id, template_trial=trial)

"""Optuna studies in a journal file, for several runs at once on a file system that they share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from cemobam_core.files import written_atomically
from study.ledger.storages import Board, LedgerFailed, Row

T = TypeVar("T")


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
        # Optuna's own lock covers one entry; this lock covers a read and the write after it. A run holds it for
        # milliseconds. If the run is killed in that time, the lock is released after the grace period, in seconds.
        self._lock = JournalFileOpenLock(f"{path}.runs", grace_period=15)
        self.optuna = optuna.storages.JournalStorage(JournalFileBackend(path))

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id."""
        return _Transaction(self.optuna, study_id).read(after)

    @contextmanager
    def transaction(self, study_id: int) -> Iterator[_Transaction]:
        """Yield the study while only this run writes to it."""
        with self._alone():
            yield _Transaction(self.optuna, study_id)

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Call ``change`` on a board while no other run changes it, and return its result."""
        path = self._path.with_name(f"{self._path.name}.boards")

        def changed() -> T:
            with self._alone():
                boards = json.loads(path.read_text()) if path.exists() else {}
                result = change(boards.setdefault(board, {}))
                with written_atomically(path) as beside:
                    beside.write_text(json.dumps(boards))
                return result

        return self.retried(changed)

    def retried(self, action: Callable[[], T]) -> T:
        """Run ``action``. A file needs no retries: it answers or refuses at once.

        Raises:
            LedgerFailed: If the file system refuses.
        """
        try:
            return action()
        except OSError as error:
            raise LedgerFailed(f"{self._path}: {error.strerror}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # another run took the lock: this process was stopped for too long
                self._lock.release()


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
            Row(t.state == TrialState.COMPLETE, t.user_attrs, t.intermediate_values, t.system_attrs) for t in trials
        ]
        return rows, max((trial._trial_id for trial in trials), default=after)

    def add(self, trial: FrozenTrial) -> int:
        """Add an ended trial as one entry of the journal, and return its id."""
        return self._storage.create_new_trial(self._study_id, template_trial=trial)

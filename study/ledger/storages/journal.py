"""Optuna studies in a journal file: several runs at once, on a file system that all of them see."""

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
    """Optuna studies in a journal file, which only grows: sound on network file systems, where SQLite is not.

    Args:
        path: the file; made if it is not there.

    Raises:
        Exception: whatever Optuna and the file system say against it.
    """

    shared = True

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        # Optuna's lock of the file covers one entry; this one covers reading and then writing. A run that is killed
        # while it holds it, which is for milliseconds, holds it for so many seconds.
        self._lock = JournalFileOpenLock(f"{path}.runs", grace_period=15)
        self.optuna = optuna.storages.JournalStorage(JournalFileBackend(path))

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """The trials that ended after the one of this id, and the last one's id."""
        return _Transaction(self.optuna, study_id).read(after)

    @contextmanager
    def transaction(self, study_id: int) -> Iterator[_Transaction]:
        """The study for this run alone."""
        with self._alone():
            yield _Transaction(self.optuna, study_id)

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Change what stands on a board, while nobody else does; gives what ``change`` gives."""
        path = self._path.with_name(f"{self._path.name}.boards")

        def changed() -> T:
            with self._alone():
                boards = json.loads(path.read_text()) if path.exists() else {}
                result = change(boards.setdefault(board, {}))
                with written_atomically(path) as beside:
                    beside.write_text(json.dumps(boards))
                return result

        return self.lasting(changed)

    def lasting(self, action: Callable[[], T]) -> T:
        """Do it.

        Raises:
            LedgerFailed: the file system refuses.
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
            with suppress(RuntimeError):  # taken from us: this process was stopped for longer than that
                self._lock.release()


class _Transaction:
    """One study of the journal."""

    def __init__(self, storage: optuna.storages.JournalStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id

    def read(self, after: int) -> tuple[list[Row], int]:
        """The trials that ended after the one of this id, and the last one's id."""
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
        """Add an ended trial, one entry of the journal; gives its id."""
        return self._storage.create_new_trial(self._study_id, template_trial=trial)

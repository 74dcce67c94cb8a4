"""Leases: which run trains what, where several share a study.

A run takes a lease on a trial before it trains it, and gives it back when the trial is recorded. Each says that it
lives by a beat that counts up; one whose beat stands still is dead, and what it held is free again. No clock is
compared with another machine's: a run counts the others' beats in its own, and its own stand still too while the
server is away.

A lease saves work, it does not guard the ledger: a run that was taken for dead, and was only asleep, may train a
trial that another trains too, and the ledger takes the first of the two outcomes.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from study.ledger.storages import Board, LedgerFailed, Storage

T = TypeVar("T")

BEAT_S = 5.0
"""Seconds from one beat to the next."""

PATIENCE = 12
"""A run is dead when its beat has stood still for so many of ours."""

_log = logging.getLogger(__name__)


class Leases:
    """This run's leases on trials of one study; in its context the run lives, after it all leases are given back.

    Args:
        storage: where the runs meet.
        study: what the study is called there.
        beat_s: seconds from one beat to the next; None: :data:`BEAT_S`.
    """

    def __init__(self, storage: Storage, study: str, *, beat_s: float | None = None) -> None:
        self._storage = storage
        self._study = study
        self._beat_s = beat_s or BEAT_S
        self._me = f"{_machine()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._beat = 0
        self._seen: dict[str, tuple[int, int]] = {}  # of another run: its beat, and ours when it was first seen
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._live, name="cemobam-leases", daemon=True)

    def __enter__(self) -> Leases:
        """Begin to live."""
        self._change(lambda _: None)
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back all that is held; where the storage does not answer, others see soon that this run is dead."""
        self._over.set()
        self._heart.join(BEAT_S)

    def take(self, trials: Iterable[str], at_most: int) -> list[str]:
        """Take leases on the first of these trials that nobody holds.

        What is taken may have been done in the meantime: look into the ledger after taking, not before.

        Args:
            trials: signatures.
            at_most: how many leases.
        """

        def taken(board: Board) -> list[str]:
            held = {signature for run in board.values() for signature in run["holds"]}
            free = [signature for signature in dict.fromkeys(trials) if signature not in held][:at_most]
            board[self._me]["holds"] += free
            return free

        trials = list(trials)
        return self._change(taken)

    def give_back(self, trials: Sequence[str]) -> None:
        """Give back leases."""
        gone = set(trials)

        def given(board: Board) -> None:
            board[self._me]["holds"] = [s for s in board[self._me]["holds"] if s not in gone]

        self._change(given)

    def _live(self) -> None:
        while not self._over.wait(self._beat_s):
            self._sign(self._beaten)
        self._sign(lambda _: None, leave=True)

    def _sign(self, change: Callable[[Board], None], *, leave: bool = False) -> None:
        try:
            self._change(change, leave=leave)
        except LedgerFailed as failure:  # the run itself meets it too, and says so
            _log.warning("no sign of life could be given: %s", failure)

    def _beaten(self, board: Board) -> None:
        self._beat += 1
        board[self._me]["beat"] = self._beat

    def _change(self, change: Callable[[Board], T], *, leave: bool = False) -> T:
        """Change the board, on which this run stands and the dead no longer do."""

        def changed(board: Board) -> T:
            for run in [run for run in board if run != self._me and self._is_dead(run, board[run]["beat"])]:
                _log.warning("the run %s is dead; its %d trials are free", run, len(board.pop(run)["holds"]))
            if self._me not in board and self._beat:
                _log.warning("this run was taken for dead: others may have taken the trials that it is training")
            board.setdefault(self._me, {"beat": self._beat, "holds": []})
            result = change(board)
            if leave:
                del board[self._me]
            return result

        return self._storage.change(self._study, changed)

    def _is_dead(self, run: str, beat: int) -> bool:
        machine, pid, _ = run.rsplit(" ", 2)
        if machine == _machine() and not _is_running(int(pid)):
            return True
        before, since = self._seen.get(run, (None, self._beat))
        if before != beat:
            since = self._beat
        self._seen[run] = (beat, since)
        return self._beat - since >= PATIENCE


def _machine() -> str:
    """The machine since it was started, and the container in it: where process ids mean the same."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()}/{booted}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{platform.node()}/{uuid.getnode():x}"


def _is_running(pid: int) -> bool:
    """Whether there is such a process; if the number has gone to another, its beat will tell."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's
        return True

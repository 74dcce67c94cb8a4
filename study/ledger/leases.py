"""Leases: which run trains which trial when several runs share a study.

A run takes a lease on a trial before it trains the trial, and gives the lease back when the trial is recorded. Each
run has a heartbeat: a counter that it increases at a fixed interval. A run whose counter stops is dead, and its leases
are free again. Clocks of different machines are never compared: a run measures the heartbeats of the others in its own
heartbeats, and these stop too while the server does not answer.

A lease saves work but does not protect the ledger. A run that was only suspended, and counted as dead, may train a
trial that another run trains too. The ledger then keeps the first of the two outcomes.
"""

from __future__ import annotations

import logging
import os
import platform
import re
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
"""Seconds from one heartbeat to the next."""

PATIENCE = 12
"""Number of this run's own heartbeats without one of another run after which the other run counts as dead."""

_log = logging.getLogger(__name__)


class Leases:
    """The leases of this run on trials of one study.

    The heartbeat runs inside the context. All leases are given back when the context ends.

    Args:
        storage: Storage that the runs share.
        study: Name of the study in the storage.
        beat_s: Seconds from one heartbeat to the next. `None` means :data:`BEAT_S`.
    """

    def __init__(self, storage: Storage, study: str, *, beat_s: float | None = None) -> None:
        self._storage = storage
        self._study = study
        self._beat_s = beat_s or BEAT_S
        self._me = f"{_machine()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._beat = 0
        self._seen: dict[str, tuple[int, int]] = {}  # another run's latest beat, and our beat when we first saw it
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._keep_beating, name="cemobam-leases", daemon=True)

    def __enter__(self) -> Leases:
        """Register the run and start its heartbeat."""
        self._change(lambda _: None)
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back all leases. If the storage does not answer, other runs soon see that this run is dead."""
        self._over.set()
        self._heart.join(BEAT_S)

    def take(self, trials: Iterable[str], at_most: int) -> list[str]:
        """Take leases on the first of these trials that no run holds.

        Another run may have finished a trial in the meantime. Read the ledger after taking a lease, not before.

        Args:
            trials: Signatures of the trials.
            at_most: Largest number of leases to take.

        Returns:
            Signatures of the trials that were taken.
        """

        def taken(board: Board) -> list[str]:
            held = {signature for run in board.values() for signature in run["holds"]}
            free = [signature for signature in dict.fromkeys(trials) if signature not in held][:at_most]
            board[self._me]["holds"] += free
            return free

        trials = list(trials)
        return self._change(taken)

    def give_back(self, trials: Sequence[str]) -> None:
        """Give back leases.

        Args:
            trials: Signatures of the trials.
        """
        returned = set(trials)

        def given(board: Board) -> None:
            board[self._me]["holds"] = [s for s in board[self._me]["holds"] if s not in returned]

        self._change(given)

    def _keep_beating(self) -> None:
        while not self._over.wait(self._beat_s):
            self._try_change(self._add_beat)
        self._try_change(lambda _: None, leave=True)

    def _try_change(self, change: Callable[[Board], None], *, leave: bool = False) -> None:
        try:
            self._change(change, leave=leave)
        except LedgerFailed as failure:  # the run itself meets the same failure, and reports it
            _log.warning("the heartbeat of this run could not be written: %s", failure)

    def _add_beat(self, board: Board) -> None:
        self._beat += 1
        board[self._me]["beat"] = self._beat

    def _change(self, change: Callable[[Board], T], *, leave: bool = False) -> T:
        """Change the board, after removing dead runs from it and adding this run to it."""

        def changed(board: Board) -> T:
            for run in [run for run, entry in board.items() if not _is_entry(run, entry)]:
                _log.warning("the leases of %r are no leases of a run, and do not count", run[:80])
                del board[run]
            for run in [run for run in board if run != self._me and self._is_dead(run, board[run]["beat"])]:
                _log.warning("the run %s is dead; its %d trials are free again", run, len(board.pop(run)["holds"]))
            if self._me not in board and self._beat:
                _log.warning("other runs took this run for dead; they may be training its trials as well")
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


def _is_entry(run: str, entry: object) -> bool:
    """Return whether a run wrote this entry of a board."""
    if not (re.fullmatch(r".+ \d{1,9} \S+", run) and isinstance(entry, dict) and entry.keys() == {"beat", "holds"}):
        return False
    holds = entry["holds"]
    return type(entry["beat"]) is int and isinstance(holds, list) and all(isinstance(one, str) for one in holds)


def _machine() -> str:
    """Return an identifier of the machine, its current boot and its container: the scope of process ids."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()}/{booted}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{platform.node()}/{uuid.getnode():x}"


def _is_running(pid: int) -> bool:
    """Return whether a process with this id is running.

    If another process has got the id since, the heartbeat shows that the run is dead.
    """
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it belongs to another user
        return True

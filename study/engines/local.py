"""The local engine: parallel worker processes on this machine."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Literal

import torch
import torch.multiprocessing

from cemobam_core.errors import InputError
from cemobam_core.training.memory import keep_freed_memory
from study.design.configuration import Trial
from study.engines.execution import TRIES, Attempts, Group, StudyData, at_once, groups, ran_past, unfinished
from study.engines.server import BLOCKED, FORKS, start_server, without_main_module
from study.ledger.outcomes import Outcome


class LocalEngine:
    """Runs trials in worker processes. Each worker trains one trial at a time, with one thread.

    The features and the rankings are in shared memory, once for all workers. Features that stay in their files
    (:class:`cemobam_core.rows.Rows`) are read there by each worker. If a worker dies, only its trial is lost,
    and the worker is replaced. When the driver dies, even by kill -9, its workers end too.

    Args:
        data: Data that all trials share.
        devices: Devices of the workers, one entry per worker. If several trials share a GPU, list it several times.
        trial_timeout: Seconds after which a trial is given up and its worker replaced. `None` means never.
    """

    def __init__(self, data: StudyData, devices: Sequence[str], *, trial_timeout: float | None = None) -> None:
        self._data = data
        self._devices = list(devices)
        self._trial_timeout = trial_timeout
        # A fork server that has torch loaded starts a worker in milliseconds. Unlike a plain fork, the worker inherits
        # none of the driver's threads, locks or connections.
        self._context: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        self._workers: list[_Worker] = []

    @property
    def stacks(self) -> bool:
        """Whether the engine trains several trials as one stack. It does on a GPU."""
        return at_once(self._devices[0]) > 1

    def __enter__(self) -> LocalEngine:
        """Move the data into shared memory. Workers start once there are trials to run.

        Raises:
            InputError: If the shared memory is too small.
        """
        try:
            for tensor in self._data.tensors():
                tensor.share_memory_()
        except RuntimeError as error:
            size = sum(t.numel() * t.element_size() for t in self._data.tensors()) / 2**20
            raise InputError(
                f"the features do not fit into shared memory, which needs {size:.0f} MB "
                f"({' '.join(str(error).split())}); give it more room: "
                "in Docker --shm-size, elsewhere remount /dev/shm larger"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers at once. Running trials are lost."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials and yield each with its outcome once, in the order in which they end.

        A trial is taken when a worker is free for it. On a GPU, the trials of a whole group are taken at once.
        """
        again: deque[tuple[Group, int]] = deque()  # groups that came back unfinished, with the number of their try
        fresh = groups(trials, at_once(self._devices[0]))

        def waiting() -> tuple[Group, int] | None:
            if again:
                return again.popleft()
            group = next(fresh, None)
            return None if group is None else (group, 1)

        for worker in self._workers:
            worker.take(waiting())
        while len(self._workers) < len(self._devices) and (assignment := waiting()):
            self._workers.append(self._start(self._devices[len(self._workers)]))
            self._workers[-1].take(assignment)
        while busy := [worker for worker in self._workers if worker.assignment]:
            ready = wait([worker.connection for worker in busy], self._patience(busy))
            for worker in busy:
                assert worker.assignment
                group, tries = worker.assignment
                if worker.connection in ready:
                    answer = worker.receive()
                    if answer == "begun":
                        worker.since = time.monotonic()
                        continue
                    outcomes = answer
                elif time.monotonic() - worker.since > self._limit(group):
                    outcomes = [ran_past(self._limit(group), worker.device)] if len(group) == 1 else []
                    worker = self._replace(worker)  # noqa: PLW2901
                else:
                    continue
                if outcomes is None:  # it died
                    died = Outcome(status="failed", seconds=0.0, device=worker.device, reason=worker.cause_of_death())
                    worker = self._replace(worker)  # noqa: PLW2901
                    outcomes = [died] if len(group) == 1 and tries == TRIES else []
                again.extend(unfinished(group, outcomes, tries))
                # Give out work before the driver records these outcomes, so that no worker waits for the ledger.
                # Idle workers take their share of the trials that came back.
                idle = [other for other in self._workers if other is not worker and not other.assignment]
                for free in (worker, *idle):
                    free.take(waiting())
                yield from zip(group, outcomes, strict=False)

    def rest(self) -> None:
        """Do nothing: no other run waits for a worker of this one."""

    def _limit(self, group: Group) -> float:
        """Return the number of seconds after which a group is given up."""
        return math.inf if self._trial_timeout is None else self._trial_timeout * len(group)

    def _patience(self, busy: Sequence[_Worker]) -> float | None:
        """Return the seconds until the first running group exceeds its limit, or `None` if there is no limit."""
        first = min(worker.since + self._limit(worker.assignment[0]) for worker in busy if worker.assignment)
        return None if first == math.inf else max(0.0, first - time.monotonic()) + 0.01

    def _replace(self, worker: _Worker) -> _Worker:
        worker.end()
        self._workers.remove(worker)
        self._workers.append(self._start(worker.device))
        return self._workers[-1]

    def _start(self, device: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._data, device), name="cemobam-worker", daemon=True
        )
        start_server()
        with without_main_module():
            process.start()
        theirs.close()
        return _Worker(process, ours, device)


@dataclass
class _Worker:
    """The driver's end of one worker process."""

    process: BaseProcess
    connection: Connection
    device: str
    assignment: tuple[Group, int] | None = None
    since: float = math.inf
    """Time at which the worker began the assignment. Infinity while the worker is still starting."""

    def take(self, assignment: tuple[Group, int] | None) -> None:
        """Send the next group to the worker, if there is one."""
        self.assignment = assignment
        if self.since < math.inf:
            self.since = time.monotonic()
        if assignment:
            # If the worker has just died, this is noticed when its answer is received.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(assignment[0])

    def receive(self) -> list[Outcome] | Literal["begun"] | None:
        """Return the outcomes of the assignment, or "begun" when the worker has started. `None` if it died."""
        try:
            message: list[Outcome] | Literal["begun"] = self.connection.recv()
        except (EOFError, OSError):  # the pipe was closed, perhaps in the middle of an answer
            return None
        return message

    def cause_of_death(self) -> str:
        """Describe the cause of the worker's death, from its exit code."""
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return f"its worker was killed {TRIES} times (SIGKILL: often out of memory; try fewer --workers)"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"its worker died {TRIES} times ({name})"

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, data: StudyData, device: str) -> None:
    """Run as a worker process: receive a group and send its outcomes, until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if FORKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    attempts = Attempts(data, device)
    connection.send("begun")
    while True:
        try:
            group: Group = connection.recv()
        except EOFError:
            return
        connection.send(attempts.attempt(group))


def _end_with_the_driver() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)

"""The local engine: worker processes side by side on this machine."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Literal

import torch
import torch.multiprocessing

from cemobam_core.errors import InputError
from study.design import Trial
from study.engines.server import FORKS, start_server
from study.execution import TRIES, StudyData, attempt, ran_past
from study.ledger import Outcome


class LocalEngine:
    """Runs trials in worker processes, one trial with one thread in each at a time.

    The features and the rankings lie in shared memory, once for all workers. A worker that dies costs only its trial,
    and is replaced. When the driver dies, even by kill -9, its workers end too.

    Args:
        data: what all trials share.
        devices: one worker for each entry; a GPU that several trials share stands several times.
        trial_timeout: seconds after which a trial is given up and its worker replaced; None: never.
    """

    def __init__(self, data: StudyData, devices: Sequence[str], *, trial_timeout: float | None = None) -> None:
        self._data = data
        self._devices = list(devices)
        self._trial_timeout = trial_timeout
        # A forked server that has torch loaded makes a worker in milliseconds and, unlike a plain fork, holds none
        # of the driver's threads, locks or connections.
        self._context: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalEngine:
        """Move the data into shared memory; workers start when there is something to run.

        Raises:
            InputError: the shared memory is too small.
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
        """End all workers at once; a trial in flight is lost."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials, giving each with its outcome once, in the order in which they end.

        A trial is asked for when a worker is free for it.
        """
        outcome: Outcome | Literal["begun"] | None
        waiting = ((trial, 1) for trial in trials)
        for worker in self._workers:
            worker.take(waiting)
        while len(self._workers) < len(self._devices) and (assignment := next(waiting, None)):
            self._workers.append(self._start(self._devices[len(self._workers)]))
            self._workers[-1].take(iter([assignment]))
        while busy := [worker for worker in self._workers if worker.assignment]:
            ready = wait([worker.connection for worker in busy], self._patience(busy))
            for worker in busy:
                assert worker.assignment
                trial, tries = worker.assignment
                if worker.connection in ready:
                    outcome = worker.receive()
                    if outcome == "begun":
                        worker.since = time.monotonic()
                        continue
                elif self._trial_timeout is not None and time.monotonic() - worker.since > self._trial_timeout:
                    outcome = ran_past(self._trial_timeout, worker.device)
                    worker = self._replace(worker)  # noqa: PLW2901
                else:
                    continue
                if outcome is None:  # it died
                    outcome = Outcome(
                        status="failed", seconds=0.0, device=worker.device, reason=worker.cause_of_death()
                    )
                    worker = self._replace(worker)  # noqa: PLW2901
                    if tries < TRIES:
                        worker.take(iter([(trial, tries + 1)]))
                        continue
                worker.take(waiting)  # before the driver records this outcome: nobody waits for the ledger
                yield trial, outcome

    def _patience(self, busy: Sequence[_Worker]) -> float | None:
        """Seconds until the first of the trials in flight runs past its time; None: none can."""
        first = min(worker.since for worker in busy)
        if self._trial_timeout is None or first == math.inf:
            return None
        return max(0.0, first + self._trial_timeout - time.monotonic()) + 0.01

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
        process.start()
        theirs.close()
        return _Worker(process, ours, device)


@dataclass
class _Worker:
    """The driver's end of one worker process."""

    process: BaseProcess
    connection: Connection
    device: str
    assignment: tuple[Trial, int] | None = None
    since: float = math.inf
    """When it began with the assignment; infinity: it is still starting."""

    def take(self, waiting: Iterator[tuple[Trial, int]]) -> None:
        """Give the worker the next trial, if there is one."""
        self.assignment = next(waiting, None)
        if self.since < math.inf:
            self.since = time.monotonic()
        if self.assignment:
            # One that has just died is noticed when its answer is waited for.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(self.assignment[0])

    def receive(self) -> Outcome | Literal["begun"] | None:
        """The outcome of the assignment, or that the worker has begun its life; None if it died."""
        try:
            message: Outcome | Literal["begun"] = self.connection.recv()
        except (EOFError, OSError):  # the pipe ends, perhaps in the middle of an answer
            return None
        return message

    def cause_of_death(self) -> str:
        """In words, from the exit code."""
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
    """A worker's life: take a trial, give its outcome, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    torch.set_num_threads(1)
    connection.send("begun")
    while True:
        try:
            trial: Trial = connection.recv()
        except EOFError:
            return
        connection.send(attempt(trial, data, device))


def _end_with_the_driver() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)

"""The local engine: worker processes side by side on this machine."""

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
from study.engines.execution import TRIES, Attempts, Group, StudyData, at_once, groups, ran_past, undone
from study.engines.server import FORKS, start_server, without_main_module
from study.ledger.outcomes import Outcome


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

    @property
    def stacks(self) -> bool:
        """Whether it trains several trials as one stack: on a GPU."""
        return at_once(self._devices[0]) > 1

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

        A trial is asked for when a worker is free for it, on a GPU as many as make a group.
        """
        again: deque[tuple[Group, int]] = deque()  # what came back undone, and which try it is
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
                again.extend(undone(group, outcomes, tries))
                # Before the driver records these outcomes: nobody waits for the ledger. Another worker, for which there
                # was nothing more, takes its part of what came back.
                idle = [other for other in self._workers if other is not worker and not other.assignment]
                for free in (worker, *idle):
                    free.take(waiting())
                yield from zip(group, outcomes, strict=False)

    def _limit(self, group: Group) -> float:
        """Seconds after which a group is given up."""
        return math.inf if self._trial_timeout is None else self._trial_timeout * len(group)

    def _patience(self, busy: Sequence[_Worker]) -> float | None:
        """Seconds until the first of the trials in flight runs past its time; None: none can."""
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
    """When it began with the assignment; infinity: it is still starting."""

    def take(self, assignment: tuple[Group, int] | None) -> None:
        """Give the worker the next group, if there is one."""
        self.assignment = assignment
        if self.since < math.inf:
            self.since = time.monotonic()
        if assignment:
            # One that has just died is noticed when its answer is waited for.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(assignment[0])

    def receive(self) -> list[Outcome] | Literal["begun"] | None:
        """Outcomes of the assignment, or that the worker has begun its life; None if it died."""
        try:
            message: list[Outcome] | Literal["begun"] = self.connection.recv()
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
    """A worker's life: take a group, give outcomes, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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

"""A driver: one run of the study command, which is started again until the study is complete."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from soaking.processes import family, is_ray_worker, start, words
from soaking.results import Sent, complaint

_ROOT = Path(__file__).resolve().parent.parent.parent

_AFTERMATH_S = 20.0
"""Seconds after a disturbance of a server in which a driver that starts may still be refused."""


class Driver:
    """One of the runs that share a study.

    Args:
        number: Number of the driver.
        arguments: Arguments of ``run_grid.py``.
        folder: Working folder, and place of what the driver prints.
        environment: Environment variables.

    Attributes:
        process: The running process, or `None` between two runs.
        sent: Signals that the running process got.
        complete: Whether a run has ended with all trials done.
        runs: Number of runs.
    """

    def __init__(self, number: int, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.number = number
        self._arguments = arguments
        self._folder = folder
        self._environment = environment
        self._output = folder
        self._began = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.sent: list[Sent] = []
        self.complete = False
        self.runs = 0

    def start(self) -> None:
        """Start a run."""
        self.runs += 1
        self.sent = []
        self._began = time.monotonic()
        self._output = self._folder / f"driver-{self.number}-{self.runs}"
        command = [sys.executable, str(_ROOT / "run_grid.py"), *self._arguments]
        self.process = start(command, self._output, cwd=self._folder, env=dict(self._environment))

    def ended(self, *, workers: bool, servers: float) -> tuple[int, str] | None:
        """Return the exit status of a run that has ended, and what is wrong with its end. `None` while it runs.

        Args:
            workers: Whether workers of the study were disturbed.
            servers: When the database or Ray was last disturbed.
        """
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        self.complete = status == 0
        err = self._output.with_suffix(".err").read_text(errors="replace")
        disturbed = {"workers": workers, "servers": servers > self._began - _AFTERMATH_S}
        wrong = complaint(status, self.sent, disturbed, err)
        return status, wrong and f"{self._output.name}: {wrong}"

    def _family(self) -> list[psutil.Process]:
        return family(self.process.pid) if self.process else []

    def fork_servers(self) -> list[psutil.Process]:
        """Return the process that forks the workers of the local engine."""
        ours = self.process.pid if self.process else None
        return [one for one in self._family() if "multiprocessing.forkserver" in words(one) and one.ppid() == ours]

    def workers(self) -> list[psutil.Process]:
        """Return the workers of the local engine, or of a cluster that the driver started."""
        local = [one for server in self.fork_servers() for one in family(server.pid)]
        return local + [one for one in self._family() if is_ray_worker(one)]

    def ray_processes(self) -> list[psutil.Process]:
        """Return Ray's own processes in a cluster that the driver started."""
        return [one for one in self._family() if re.search(r"/ray/|^ray::.*Agent", words(one))]

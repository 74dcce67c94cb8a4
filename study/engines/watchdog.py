"""A small process that ends a Ray cluster when the driver that started it ends, even by kill -9.

Some of Ray's own processes notice a lost driver only after a minute. This one waits for the end of a pipe that the
driver alone holds. It has a session of its own, so signals to the driver's group do not reach it. It is run as a
script: ``python watchdog.py FOLDER``.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"
"""The variable by which Ray's processes get the file of their token. The file of a cluster is in its folder."""

_PATIENCE_S = 30.0
"""Seconds after which the watchdog gives up processes that cannot be killed, such as those that wait for a disk."""


class Watchdog:
    """The driver's end of the watchdog.

    Args:
        folder: The folder of the cluster, which no other cluster has.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        """End every process of the cluster that is left, and return when they have ended."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def watch(folder: str) -> None:
    """Wait for the end of standard input. Then end the cluster in a folder and remove the folder."""
    while sys.stdin.buffer.read(1):
        pass
    deadline = time.monotonic() + _PATIENCE_S
    while (family := [one for one in psutil.process_iter() if _is_of(folder, one)]) and time.monotonic() < deadline:
        for process in family:
            with contextlib.suppress(psutil.Error):  # it has ended
                process.kill()
        psutil.wait_procs(family, timeout=0.2)
    shutil.rmtree(folder, ignore_errors=True)


def _is_of(folder: str, process: psutil.Process) -> bool:
    """Return whether a process belongs to the cluster in a folder.

    A process that changes its name, as most of Ray's do, may lose its environment. It keeps its log in the folder open.
    """
    try:
        if process.environ().get(TOKEN_VARIABLE, "").startswith(folder):
            return process.status() != psutil.STATUS_ZOMBIE
        return process.name().startswith("ray") and any(file.path.startswith(folder) for file in process.open_files())
    except (psutil.Error, OSError):  # it has ended, or belongs to another user
        return False


if __name__ == "__main__":
    watch(sys.argv[1])

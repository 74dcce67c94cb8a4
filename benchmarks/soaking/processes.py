"""The processes that the script started, and those that they started. Nothing else is ever signalled. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36

_STARTED: set[int] = set()
"""Process ids that a ``Popen`` waits for."""


def adopt_orphans() -> None:
    """Let orphans become children of this process, so that :func:`family` also finds what a killed process started.

    Raises:
        OSError: If the system does not allow it.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def start(command: list[str], output: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own.

    Args:
        command: Program and arguments.
        output: Path, without suffix, of the files for standard output and standard error.
        options: Further options of ``Popen``.
    """
    with output.with_suffix(".out").open("ab") as out, output.with_suffix(".err").open("ab") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, **options
        )
    _STARTED.add(process.pid)
    return process


def family(root: int | None = None) -> list[psutil.Process]:
    """Return the living descendants of a process.

    Args:
        root: Process id. `None` means this process.
    """
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is running or stopped. A zombie is neither."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def bury() -> None:
    """Read the exit status of the orphans that have ended."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.pid not in _STARTED and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to processes. One that has ended, or that is not of the family, gets nothing."""
    ours = {process.pid for process in family()}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid in ours:
                process.send_signal(number)  # psutil checks that the id was not given to another process


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and everything that they started, and return when all of them have ended."""
    doomed = {one for process in processes for one in (process, *family(process.pid))}
    send(doomed, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(is_alive, doomed)) and time.monotonic() < deadline:
        bury()
        time.sleep(0.05)


def catches(process: psutil.Process, number: int) -> bool:
    """Return whether a process handles a signal. If not, the signal ends it, as in the moment after its start."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def words(process: psutil.Process) -> str:
    """Return the command line of a process, or an empty string if it has ended."""
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def is_ray_worker(process: psutil.Process) -> bool:
    """Return whether a process of Ray works for a driver. The others wait for one, or are Ray's own."""
    name = words(process)
    return name.startswith("ray::") and not name.startswith("ray::IDLE") and "Agent" not in name

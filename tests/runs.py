"""Runs of the study: in a separate process, as a user types them, or in the test's process if that is enough."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from study.commands import cemobam, main

ROOT = Path(__file__).resolve().parent.parent

SMALL = ["--k-audio", "1,3", "--k-text", "1:2", "--seeds", "2", "--epochs", "2", "--workers", "2", "--device", "cpu"]
TRIALS = 2 * (2 * 2) + 2 * (4 + 2)
"""Trials of the study :data:`SMALL`: the grid with two seeds, then four fusions and two more ablations with two fresh
seeds."""

_STARTED: list[subprocess.Popen[str]] = []

PATIENCE_S = 600.0
"""Seconds after which a run counts as hanging, far more than any run takes even on a busy machine."""


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``run_grid.py`` in a separate process."""
    return start_python(str(ROOT / "run_grid.py"), *arguments, **options)


def start_cemobam(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``cemobam`` in a separate process."""
    return start_python(
        "-c", "import sys; from study.commands import cemobam; sys.exit(cemobam())", *arguments, **options
    )


def start_python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start Python in a separate process, which ends with the test at the latest."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    _STARTED.append(process)
    return process


def end_all() -> None:
    """Kill the processes that a failed test started and did not end, because they would disturb later tests."""
    while _STARTED:
        process = _STARTED.pop()
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def ended(process: subprocess.Popen[str], *, status: int = 0) -> tuple[str, str]:
    """Wait for the end of a process, check its exit status and return what it printed."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, out + err
    return out, err


def run(*arguments: str, status: int = 0) -> str:
    """Run ``run_grid.py`` in a separate process and return its standard output."""
    return ended(start(*arguments), status=status)[0]


def run_here(*arguments: str, status: int = 0) -> tuple[str, str]:
    """Run ``run_grid.py`` in this process and return what it printed."""
    return _here(main, arguments, status)


def cemobam_here(*arguments: str, status: int = 0) -> tuple[str, str]:
    """Run ``cemobam`` in this process and return what it printed."""
    return _here(cemobam, arguments, status)


def _here(command: Callable[[list[str]], int], arguments: tuple[str, ...], status: int) -> tuple[str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            returned = command(list(arguments))
        except SystemExit as stop:  # argparse ends with it
            returned = int(stop.code or 0)
    assert returned == status, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def trials(folder: str = "results/demo") -> pd.DataFrame:
    """Read the trials of a study, without the columns that may differ from run to run."""
    return pd.read_csv(f"{folder}/trials.csv").drop(columns=["seconds", "device"])


def until(condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds. Fail if it never does or the process ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        assert process is None or process.poll() is None, f"{what}: {process.communicate()}"
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C as in a terminal, which signals the whole process group of the run."""
    os.killpg(process.pid, signal.SIGINT)


def alive(process: psutil.Process) -> bool:
    """Return whether a process is running. A zombie, whose exit status was not read yet, is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recorded(database: str = "results/demo/study.db") -> int:
    """Count the trials in a ledger, as another program would that may roll back a transaction left by a kill."""
    if not Path(database).exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            (count,) = connection.execute("select count(*) from trials").fetchone()
            return int(count)
    except sqlite3.OperationalError:  # its tables are just being created
        return 0

"""Readers that do what none may do, one for each check of the harness."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hostile.harness import Reader

from cemobam_core.errors import InputError


class LinesError(InputError):
    """A refusal whose message is as it is."""

    def __init__(self, message: str) -> None:
        super(ValueError, self).__init__(message)


def _raises(path: Path) -> None:
    raise KeyError(path)


def _exits(path: Path) -> None:
    sys.exit(2)


def _leaves_at_once(path: Path) -> None:
    os._exit(0)


def _says_lines(path: Path) -> None:
    raise LinesError("one\ntwo")


def _says_escapes(path: Path) -> None:
    raise LinesError("\x1b[2J")


def _says_too_much(path: Path) -> None:
    raise LinesError("x" * 601)


def _says_nothing(path: Path) -> None:
    raise LinesError("")


def _prints_a_traceback(path: Path) -> None:
    subprocess.run([sys.executable, "-c", "1 / 0"], check=False)


def _prints_escapes(path: Path) -> None:
    print("\x1b[31mred")


def _crashes(path: Path) -> None:
    ctypes.string_at(0)


def _takes_memory(path: Path) -> None:
    len(b"x" * 2_700_000_000)


def _takes_memory_in_a_child(path: Path) -> None:
    subprocess.run([sys.executable, "-c", "len(b'x' * 3_000_000_000)"], check=False)


def _leaves_a_temporary_file(path: Path) -> None:
    tempfile.mkstemp()


def _leaves_a_half_written_file(path: Path) -> None:
    Path(".results.0a1b2c3d.part.csv").touch()


def _writes_beside_the_file(path: Path) -> None:
    path.with_name("canary").touch()


def _changes_the_file(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def _removes_the_file(path: Path) -> None:
    path.unlink()


def _leaves_a_process(path: Path) -> None:
    subprocess.Popen(["sleep", "100"])


def _computes_for_ever(path: Path) -> None:
    while True:
        pass


def _waits(path: Path) -> None:
    time.sleep(5)


def _waits_for_ever(path: Path) -> None:
    time.sleep(1000)


def _good(folder: Path) -> Path:
    (folder / "file").write_bytes(b"content")
    return folder / "file"


def _misbehaving(read: Callable[[Path], None], wrong: str) -> tuple[Reader, str]:
    return Reader(read.__name__.strip("_").replace("_", " "), lambda _: [], _good, read), wrong


SAID = dict(
    _misbehaving(read, wrong)
    for read, wrong in [
        (_raises, "KeyError"),
        (_exits, "SystemExit"),
        (_leaves_at_once, r"ends this process \(exit status 0\)"),
        (_says_lines, "more than printable letters"),
        (_says_escapes, "more than printable letters"),
        (_says_too_much, "a message of 601 letters"),
        (_says_nothing, "a message of 0 letters"),
        (_prints_a_traceback, "prints a traceback"),
        (_prints_escapes, "prints escape sequences"),
        (_crashes, r"crashes \(SIGSEGV\)"),
        (_takes_memory, r"takes [23]\.\d GB"),
        (_takes_memory_in_a_child, r"takes [23]\.\d GB"),
        (_leaves_a_temporary_file, "left tmp/"),
        (_leaves_a_half_written_file, r"left work/\.results"),
        (_writes_beside_the_file, "changed .*canary outside"),
        (_changes_the_file, "changed .*file outside"),
        (_removes_the_file, "changed .*file outside"),
        (_leaves_a_process, "leaves a process behind"),
        (_waits, "waits for 5 s"),
        (_computes_for_ever, r"takes \d+ s of processor time"),
        (_waits_for_ever, "hangs for 15 s"),
    ]
)
"""The readers, and what the harness says of each."""

MISBEHAVING = list(SAID)
SLOW = MISBEHAVING[-3:]
"""Readers that take longer than is allowed."""

"""A forked process that shares nothing with its parent but one pipe.

A forked process starts at once, because everything is imported. But it inherits every open file, socket and lock of its
parent, and its parent's other threads do not exist in it. Here the files are replaced, and nothing of the parent's is
ever collected or ended in the child.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path


class Forked:
    """A forked process.

    Args:
        work: Function of the child's end of the pipe. The process ends with it, with the exit status 1 after an
            exception. It should end when the pipe does.

    Raises:
        OSError: No process can be started.
    """

    def __init__(self, work: Callable[[Connection], object]) -> None:
        self._status: int | None = None
        self.pipe, theirs = Pipe()
        with theirs:
            try:
                with warnings.catch_warnings():  # Python warns of locks that other threads hold; the work takes none
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self._pid = os.fork()
            except OSError:
                self.pipe.close()
                raise
            if not self._pid:
                _work(work, theirs)

    def exit_status(self, seconds: float = 0.0) -> int | None:
        """Return the exit status as :mod:`subprocess` does, or ``None`` if the process runs on.

        Args:
            seconds: How long to wait for its end.
        """
        deadline = time.monotonic() + seconds
        while self._status is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # this process ignores the ends of its children
                self._status = 1
                break
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(0.001)
        return self._status

    def end(self) -> None:
        """Kill the process if it runs, and wait for its end."""
        if self.exit_status() is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.exit_status(float("inf"))
        self.pipe.close()


def _work(work: Callable[[Connection], object], pipe: Connection) -> None:
    """Do the work in the child, and end it whatever happens: the code of the parent must not go on in it."""
    status = 1
    try:
        gc.freeze()  # collecting an open database of the parent, for example, would end what the parent still uses
        faulthandler.disable()  # a crash is not the user's concern
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        _replace_files(pipe)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)  # the threads of this process are those of the parent, and do not exist here
        work(pipe)
        status = 0
    finally:
        os._exit(status)


def _replace_files(pipe: Connection) -> None:
    """Put the null device in place of every open file but the pipe.

    Closed files would free their numbers. Whatever closes such a file later would then close a new one.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(file.name) for file in Path("/proc/self/fd").iterdir()]:
        if number not in (pipe.fileno(), nothing):
            os.dup2(nothing, number, inheritable=number <= 2)

"""The server that worker processes are forked from. It loads their imports once, while the driver continues."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any

import psutil

from cemobam_core.files import place_for_sockets, temporary_folder

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
"""Whether the platform has such a server. On Windows it does not, and each worker is a new process."""

BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if FORKS else set()
"""Signals that the server and its workers do not get. Workers unblock all but Ctrl-C."""


_LONGEST_SOCKET = 39
"""Characters of ``/cemobam-tmp-<8>/listener-<8>``."""


def start_server() -> None:
    """Start the server if it is not running, and return at once.

    The server loads torch in the background, which takes seconds. Signals that end a run do not reach it from the
    start, because the driver handles them.
    """
    if not FORKS:
        return
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415  (not on Windows)

    multiprocessing.get_context("forkserver").set_forkserver_preload(["study.engines.local", "study.engines.loaded"])
    _use_swept_folder()
    resource_tracker.ensure_running()  # it is started with the server, and would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # a signal of the meantime arrives now


_HELD = contextlib.ExitStack()
"""Holds the temporary folder. A process that multiprocessing forks forgets its finalizers. If one of them were the only
owner of the folder, the folder would be removed there."""


def _use_swept_folder() -> None:
    """Give multiprocessing a temporary folder that the next run removes if this process is killed.

    The server's socket is in it. Nobody would ever remove multiprocessing's own folder.
    """
    settings: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if settings.get("tempdir") is None:
        settings["tempdir"] = str(_HELD.enter_context(temporary_folder(place_for_sockets(_LONGEST_SOCKET))))
        Finalize(None, _HELD.close, exitpriority=-100)  # as for multiprocessing's own folder: after all else


def kill_server() -> None:
    """Kill the server and every worker that it has forked, also one that the driver does not know of yet."""
    if (pid := _server()._forkserver_pid if FORKS else None) is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):  # it has ended
        process = psutil.Process(pid)
        process.suspend()
        os.waitpid(pid, os.WUNTRACED)  # it has stopped, so it forks no more
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def end_server() -> None:
    """Kill the server and its workers, so that another one can be started."""
    kill_server()
    if FORKS:
        with contextlib.suppress(ChildProcessError):  # it had ended before
            _server()._stop()


def _server() -> Any:
    from multiprocessing import forkserver  # noqa: PLC0415  (not on Windows)

    return forkserver._forkserver


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep the processes that start in this block from importing the script that the user runs.

    By default, every process that multiprocessing starts imports that script. A script without
    ``if __name__ == "__main__":`` would then run the study again in each worker. Workers need nothing from it.
    """
    with _HIDING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # without a file, so that there is nothing to import
        try:
            yield
        finally:
            sys.modules["__main__"] = main


_HIDING = threading.Lock()

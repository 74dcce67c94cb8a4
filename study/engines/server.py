"""The server that worker processes are forked from. It loads their imports once, while the driver continues."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
"""Whether the platform has such a server. On Windows it does not, and each worker is a new process."""


def start_server() -> None:
    """Start the server if it is not running, and return at once.

    The server loads torch in the background, which takes seconds. It ignores Ctrl-C from the start, and so do its
    workers, because the driver handles it.
    """
    if not FORKS:
        return
    from multiprocessing import forkserver  # noqa: PLC0415  (not on Windows)

    multiprocessing.get_context("forkserver").set_forkserver_preload(["study.engines.local", "study.engines.loaded"])
    if threading.current_thread() is not threading.main_thread():  # signals only arrive in the main thread
        forkserver.ensure_running()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


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

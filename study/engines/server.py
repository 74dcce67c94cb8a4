"""The server that worker processes are forked from: it loads what they need once, while the driver goes on."""

from __future__ import annotations

import multiprocessing
import signal
import threading

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
"""Whether there is such a server; where there is none (Windows), workers start afresh."""


def start_server() -> None:
    """Start it, if it does not run yet; returns at once, while it still loads torch, which takes seconds.

    With Ctrl-C ignored from its first moment, as its workers then do too: it is the driver's to handle.
    """
    if not FORKS:
        return
    from multiprocessing import forkserver  # noqa: PLC0415  (not on Windows)

    multiprocessing.get_context("forkserver").set_forkserver_preload(["study.engines.local", "study.engines.loaded"])
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives anyway
        forkserver.ensure_running()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)

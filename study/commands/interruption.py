"""The end of a command by Ctrl-C, SIGTERM or SIGHUP: once, without a traceback, however often the signals come."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STATUS = 130
"""The exit status of a command that was interrupted."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_AGAIN_S = 1.0
"""Seconds in which a further signal belongs to the first one: a key that is pressed twice, or a signal to a group."""

_PATIENCE_S = 10.0
"""Seconds after which a further signal ends a command at once that has not come to its end."""


class Interruption:
    """The handler of the signals that end a command. It raises a KeyboardInterrupt, as Python does for Ctrl-C.

    While the program handles the KeyboardInterrupt, further signals are ignored, because they would cut off what ends
    the workers and removes half-written files. If that takes too long, a further signal ends the program at once.

    Attributes:
        ending: Whether the command is over. Then signals no longer raise.
    """

    def __init__(self) -> None:
        self.ending = False
        self._since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, as Python calls a handler."""
        now = time.monotonic()
        if self._since is not None and now - self._since > _PATIENCE_S and self._is_handled():
            with contextlib.suppress(Exception):
                _workers_server("kill_server")
            os._exit(STATUS)
        if self._is_handled() or (self._since is not None and now - self._since < _AGAIN_S):
            self._since = self._since or now
            return
        self._since = now
        raise KeyboardInterrupt

    def _is_handled(self) -> bool:
        return self.ending or is_interruption(sys.exception())

    def repeat(self) -> None:
        """Send the signal again in a moment, because the KeyboardInterrupt was lost in a place that ignores errors."""
        self._since = None
        again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()


def is_interruption(error: BaseException | None) -> bool:
    """Return whether an error is a KeyboardInterrupt, or was raised while one was handled."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


@contextmanager
def interruptible(*, to_the_end: bool) -> Iterator[Interruption]:
    """Handle the signals that end a command with an :class:`Interruption`.

    A signal that is ignored stays ignored: ``nohup`` ignores SIGHUP, and a shell without job control ignores SIGINT for
    programs in the background.

    Args:
        to_the_end: Whether the process ends after this block. Then the signals are ignored from there. If not, their
            handlers are what they were before.
    """
    handler = Interruption()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    reported = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            handler.repeat()
        else:
            reported(lost)

    for number, other in before.items():
        if other is not signal.SIG_IGN:
            signal.signal(number, handler)
    sys.unraisablehook = unraisable
    try:
        yield handler
    finally:
        handler.ending = True
        for number, other in before.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else other)
        if not to_the_end:
            sys.unraisablehook = reported


def end_workers() -> None:
    """End the worker processes of the local engine, also those that it does not know of yet."""
    _workers_server("end_server")


def _workers_server(action: str) -> None:
    """Call a function of the server of workers, if this process has loaded it."""
    if server := sys.modules.get("study.engines.server"):
        getattr(server, action)()


def say_interrupted() -> None:
    """Tell the user that the command was interrupted. The terminal may be gone."""
    try:
        print("interrupted; finished trials are kept: run the same command again to continue", file=sys.stderr)
        sys.stdout.flush()
    except (OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nothing, stream.fileno())

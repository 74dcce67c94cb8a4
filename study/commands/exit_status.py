"""How a command ends: its exit status, and the user's mistakes told in one line on standard error."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from cemobam_core.errors import InputError

_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""What the system says of a place that cannot be written to; any other failure of its is not the user's."""


def status_of(run: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run a command and return its exit status: 2 after a mistake of the user's, 130 after an interruption.

    Args:
        run: does what the command is for, and returns its own exit status.
        parser: of the command.
        words: the command line.

    Raises:
        SystemExit: the parser printed its help, or refused the words.
        Exception: a bug, with its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8, a terminal no Unicode
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's polite kill is as good as Ctrl-C
    try:
        args = parser.parse_args(words)
        if getattr(args, "report_only", False):
            from study.commands.recall import recalled

            args = recalled(parser, words, args)
        return run(args)
    except BrokenPipeError:  # whoever read our output has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except Exception as error:
        message = told(error)
        if message is None:
            raise
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        return 2


def told(error: Exception) -> str | None:
    """Return one line on what the user can mend; None: it is a bug."""
    from study.ledger.storages import LedgerFailed

    if isinstance(error, OSError) and error.errno in _PLACES:
        path = f"{error.filename}: " if error.filename else ""
        return f"{path}{error.strerror}; make room or give a place that can be written to (what is recorded is kept)"
    if isinstance(error, LedgerFailed):
        return f"the ledger cannot be used: {error}; what was recorded before is kept, and the same command goes on"
    return " ".join(str(error).split()) if isinstance(error, InputError) else None


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt

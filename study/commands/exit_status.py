"""The exit status of a command, and the one-line error messages on standard error."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from cemobam_core.errors import InputError
from study.commands.interruption import is_interruption
from study.commands.needs import check_extras

_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""System errors about a place that cannot be written to, which the user can correct. Any other is a bug."""


def status_of(run: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run a command and return its exit status: 2 after a mistake of the user.

    Args:
        run: Function that does the work of the command and returns its exit status.
        parser: Parser of the command.
        words: The command line.

    Raises:
        SystemExit: The parser printed its help, or refused the words.
        KeyboardInterrupt: The command was interrupted.
        Exception: A bug, with its traceback, or an error that an interruption caused.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may not be UTF-8, a terminal may lack Unicode
    try:
        args = parser.parse_args(words)
        check_extras(args)
        if getattr(args, "report_only", False):
            from study.commands.recall import recalled

            args = recalled(parser, words, args)
        return run(args)
    except Exception as error:
        if is_interruption(error):
            raise
        if isinstance(error, BrokenPipeError):  # the reader of our output has ended, as head does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        message = told(error)
        if message is None:
            raise
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        return 2


def told(error: Exception) -> str | None:
    """Return one line about a mistake that the user can correct, or None for a bug."""
    if isinstance(error, OSError) and error.errno in _PLACES:
        path = f"{error.filename}: " if error.filename else ""
        return (
            f"{path}{error.strerror}; free some space or give a place that can be written to (recorded trials are kept)"
        )
    return " ".join(str(error).split()) if isinstance(error, InputError) else None

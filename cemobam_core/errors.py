"""The exception for every mistake that the user can correct."""

from __future__ import annotations

import re

_LONGEST = 2_000
"""Letters of the longest message. A longer one, which quotes a file's content, loses its middle."""


class InputError(ValueError):
    """Input that cannot be used: a wrong file, shape, value or setting.

    The message is one line. It names the file or setting, the offending value and the remedy. Commands print it and
    exit with status 2. They catch nothing else, so a bug still shows its traceback.

    Whatever a message quotes, it stays one line that a terminal can show: see :func:`printable`.
    """

    def __init__(self, message: object) -> None:
        line = printable(str(message))
        half = _LONGEST // 2
        super().__init__(line if len(line) <= _LONGEST else f"{line[:half]} … {line[-half:]}")


def printable(text: str) -> str:
    """Return a text as one line, with escapes for characters that cannot be printed.

    A name of a file or a label may contain line breaks, or sequences that a terminal obeys.

    Args:
        text: The text.
    """
    if text.isprintable():
        return text
    line = re.sub(r"\s*[\n\r]\s*", " ", text)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)

"""The exception for every mistake that the user can correct."""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 600
"""Letters of the longest message."""


class InputError(ValueError):
    """Input that cannot be used: a wrong file, shape, value or setting.

    The message is one line. It names the file or setting, the offending value and the remedy. Commands print it and
    exit with status 2. They catch nothing else, so a bug still shows its traceback.

    A message may quote a file that is made to do harm. Line breaks become spaces, letters that control a terminal are
    shown as escapes, and the middle of a very long message is left out.

    Args:
        message: What is wrong, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_shortened(printable(_shortened(message)).strip()))


def printable(text: str) -> str:
    """Return a text in one line, in which letters that control a terminal are shown as escapes.

    Args:
        text: The text.
    """
    line = re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text)
    return "".join(_shown(letter) for letter in line)


def _shown(letter: str) -> str:
    hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs")
    return letter.encode("unicode_escape").decode() if hidden else letter


def _shortened(text: str) -> str:
    end = _LONGEST // 3
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - end - 3]} … {text[-end:]}"

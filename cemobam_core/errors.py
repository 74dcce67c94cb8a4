"""The exception for every mistake that the user can correct."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: a wrong file, shape, value or setting.

    The message is one line. It names the file or setting, the offending value and the remedy. Commands print it and
    exit with status 2. They catch nothing else, so a bug still shows its traceback.
    """

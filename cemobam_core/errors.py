"""The one exception that means: the user can mend this."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: a wrong file, shape, value or setting.

    The message is one line that names the file or setting, the offending value and the remedy. Command lines
    print it and exit with status 2; nothing else is caught, so a bug still shows its traceback.
    """

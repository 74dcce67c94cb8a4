"""Progress bars: a moving line on a terminal or in a notebook, a new line from time to time in a log file."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from tqdm import tqdm


def progress_bar(**options: Any) -> Any:
    """Return a tqdm progress bar that writes to standard error, or to the output of a notebook's cell.

    Args:
        **options: Further options of tqdm.
    """
    if in_notebook():
        return tqdm(file=_CellOutput(), ncols=100, mininterval=0.2, smoothing=0.05, **options)
    return tqdm(dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 30, smoothing=0.05, **options)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _CellOutput:
    """A file for one bar: every line that is written to it replaces the one before, in an output of its own.

    It needs no widgets, and a saved notebook keeps the last line.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        display: Any = import_module("IPython.display").display  # in a notebook, it is there
        self._output = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        """Show a line. The empty line that tqdm writes at the end changes nothing."""
        if line := text.strip("\r\n "):
            self._output.update({"text/plain": line}, raw=True)

    def flush(self) -> None:
        """Do nothing: every line is shown at once."""

"""Progress bars: a moving line on a terminal, a new line from time to time in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(**options: Any) -> Any:
    """Return a tqdm progress bar that writes to standard error.

    Args:
        **options: Further options of tqdm.
    """
    return tqdm(dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 30, smoothing=0.05, **options)

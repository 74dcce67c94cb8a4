"""Progress bars, alike everywhere: a line that moves on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(**options: Any) -> Any:
    """Return a tqdm bar on standard error; options as tqdm's."""
    return tqdm(dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 30, smoothing=0.05, **options)

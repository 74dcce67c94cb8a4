"""Keep freed memory in a worker, so that the next epoch does not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next allocations; only glibc on Linux needs to be told.

    By default glibc hands a large block back to the system as soon as it is freed, and every new one comes page by
    page, zeroed. An epoch makes and frees the same large tensors each time: on 2 cores that was about half the time of
    an epoch of the plain model (``benchmarks/epoch.py``).

    It changes the whole process, which then holds the most memory that it ever needed until it ends. So a study's
    workers call it when they start, and no function of this package calls it for you.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)

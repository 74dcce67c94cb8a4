"""Keep freed memory in a worker process, so that the next epoch need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees for its next allocations. It has an effect with glibc only.

    By default glibc returns a large block to the system as soon as it is freed, and the system hands out every new
    block page by page, zeroed. An epoch allocates and frees the same large tensors each time. On 2 cores, this took
    about half of the time of an epoch of the plain model (``benchmarks/epoch.py``).

    The setting affects the whole process, which holds its peak memory until it ends. A study's workers call this
    function when they start. No function of this package calls it for you.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)

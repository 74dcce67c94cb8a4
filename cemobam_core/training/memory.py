"""How freed memory is kept, so that the next epoch does not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, for what it allocates next; on Linux with glibc, elsewhere nothing.

    By default glibc hands a large block back to the system as soon as it is freed, and every new one comes page by
    page, zeroed. An epoch makes and frees the same large tensors each time: on 2 cores that was about half the time of
    the plain model's. The process then holds what it once needed until it ends; nothing else changes.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)

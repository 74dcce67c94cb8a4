"""Keep freed memory in a worker process, so that the next epoch need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h

_MOST_BLOCKS = 65536
"""The default of M_MMAP_MAX."""


@cache
def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees for its next allocations. It has an effect with glibc only.

    By default glibc returns a large block to the system as soon as it is freed, and the system hands out every new
    block page by page, zeroed. An epoch allocates and frees the same large tensors each time. On 2 cores, this took
    about half of the time of an epoch of the plain model (``benchmarks/epoch.py``).

    The setting affects the whole process, which holds its peak memory until it ends. A study's workers call this
    function when they start. No function of this package calls it for you.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


@contextmanager
def returning_large_blocks() -> Iterator[None]:
    """Undo :func:`keep_freed_memory` for large blocks while this block runs. It has no effect if that was not called.

    A pass over a large split takes a few blocks of very different sizes. Kept blocks have gaps between them: at 20,000
    utterances they took twice as much memory as the tensors.
    """
    libc = _glibc() if keep_freed_memory.cache_info().currsize else None
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_MAX, _MOST_BLOCKS)
    libc.malloc_trim(0)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, 0)


def _glibc() -> Any:
    """Return the C library if it is glibc, else `None`."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt  # noqa: B018
    except (OSError, AttributeError):
        return None
    return libc

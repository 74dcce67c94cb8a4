"""Loading of data in a thread while the device computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def ahead(items: Iterable[Item], load: Callable[[Item], Loaded]) -> Iterator[tuple[Item, Loaded]]:
    """Yield each item with the result of ``load``, in order, while a thread loads the next item.

    At most two results are held in memory.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: tuple[Item, Future[Loaded]] | None = None
        for item in items:
            coming = (item, pool.submit(load, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

import pytest

from cemobam_core.training.memory import keep_freed_memory, returning_large_blocks


@pytest.fixture(autouse=True)
def _not_called_yet() -> Iterator[None]:
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


class Library:
    """A C library that records what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, option: int, value: int) -> int:
        self.told.append((option, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append((0, pad))
        return 1


def test_glibc_is_told_once_to_keep_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for _ in range(3):
        keep_freed_memory()
    assert library.told == [(-4, 0), (-1, -1)]


def test_large_blocks_are_returned_within_a_block_if_freed_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(sys, "platform", "linux")
    with returning_large_blocks():
        assert library.told == []
    keep_freed_memory()
    library.told.clear()
    with pytest.raises(RuntimeError, match="stop"), returning_large_blocks():
        assert library.told == [(-4, 65536), (0, 0)]
        raise RuntimeError("stop")
    assert library.told[2:] == [(-4, 0)]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("it was asked for"))
    keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()

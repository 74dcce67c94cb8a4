"""Sound files: read, check and resample them, behind the wall.

A few child processes decode every file of a run. They start when they are first needed and end with
:func:`end_decoders` or with this process.
"""

from __future__ import annotations

import atexit
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cemobam_core.corpora.utterances import Part
from cemobam_core.encoders.decoding import LONGEST, SAMPLE_RATE, decoded, resampled
from cemobam_core.errors import InputError
from cemobam_core.wall import Content, Wall

_MEMORY, _SECONDS = 2**30, 17
"""Memory in bytes and processor time in seconds that decoding may take beyond what the size of a file allows."""
_MOST = (LONGEST + 1) * SAMPLE_RATE
"""Most samples of a clip. The memory for them is only taken when it is used."""
_FEW = 2**22
"""Samples whose shared memory is kept for the next clip: four minutes."""

READING_AHEAD = 2
"""Threads that read clips ahead: while one waits for its decoder, the other takes its samples."""


def read_audio(sound: Path | Part) -> npt.NDArray[np.float32]:
    """Read a sound file as mono samples at 16 kHz.

    libsndfile reads the file in any of its formats (WAV and FLAC among them), rates and bit depths. FFmpeg decodes
    other formats, such as the sound of an mp4. Channels are averaged. Other sampling rates are resampled by soxr in
    high quality.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: The file is missing, no regular file, empty, truncated, unreadable, hours long or silent, contains
            NaN or too many samples, or ends its decoder.
    """
    with _readers.one() as reader:
        return reader.read(sound)


def seconds_of(sound: Path | Part) -> float:
    """Return the duration of a sound file in seconds. The whole file is read and checked.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: As for ``read_audio``.
    """
    with _measurers.one() as wall:
        _, seconds = wall(Path(sound), sound)
    return float(seconds)


def end_decoders() -> None:
    """End the child processes that no thread uses. The next file starts new ones."""
    _readers.end()
    _measurers.end()


class _Reader(Wall):
    """A child that leaves samples in memory that it shares with this process, because a file would cost more time."""

    def __init__(self) -> None:
        super().__init__(self._fill, memory=_MEMORY, seconds=_SECONDS)
        self._shared = mmap.mmap(-1, 4 * _MOST)

    def read(self, sound: Path | Part) -> npt.NDArray[np.float32]:
        """Return the samples of a sound file."""
        _, count = self(Path(sound), sound)
        if not isinstance(count, int) or not 0 < count <= _MOST:
            raise InputError(f"{sound}: its decoder gives {count!r:.40} samples; get the file again")
        samples = np.frombuffer(self._shared, dtype=np.float32, count=count).copy()
        if count > _FEW and sys.platform == "linux":
            self._shared.madvise(mmap.MADV_REMOVE)
        return samples

    def _fill(self, _path: Path, sound: Path | Part) -> Content:
        there, count = np.frombuffer(self._shared, dtype=np.float32), 0
        for block in resampled(sound):
            there[count : count + len(block)] = block
            count += len(block)
        return {}, count


def _measure(_path: Path, sound: Path | Part) -> Content:
    """Return the duration of a sound file in seconds."""
    count, rate = 0, SAMPLE_RATE
    for rate, block in decoded(sound):  # noqa: B007
        count += len(block)
    return {}, count / rate


_AnyWall = TypeVar("_AnyWall", bound=Wall)


class _Pool(Generic[_AnyWall]):
    """Walls that are used again. There are as many as threads that read at the same time."""

    def __init__(self, make: Callable[[], _AnyWall]) -> None:
        self._make = make
        self._by_process: dict[int, list[_AnyWall]] = {}  # a forked process has no part in the walls of its parent

    @contextmanager
    def one(self) -> Iterator[_AnyWall]:
        """Yield a wall that no other thread uses in the meantime."""
        try:
            wall = self._idle.pop()
        except IndexError:
            wall = self._make()
        try:
            yield wall
        finally:
            self._idle.append(wall)

    @property
    def _idle(self) -> list[_AnyWall]:
        return self._by_process.setdefault(os.getpid(), [])

    def end(self) -> None:
        """End the walls that are not used."""
        while self._idle:
            with self._idle.pop():
                pass


_readers = _Pool(_Reader)
_measurers = _Pool(lambda: Wall(_measure, memory=_MEMORY, seconds=_SECONDS))
atexit.register(end_decoders)

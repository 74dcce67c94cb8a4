"""Decoding of sound files, block by block: a long file with many channels takes no more memory than a short one.

Everything in here runs behind the wall, see ``sound``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cemobam_core.corpora.utterances import Part
from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.files import is_lfs_pointer

try:
    import soundfile
    import soxr

    from cemobam_core.encoders import containers
except ModuleNotFoundError:
    require("features", "cemobam_core.encoders.decoding")
    raise

Block = npt.NDArray[np.float32]
"""Mono samples, (samples,)."""

SAMPLE_RATE = 16_000
"""Sampling rate in Hz of every clip that is read. The audio encoders were trained on it."""

LONGEST = 7_200
"""Longest accepted clip in seconds."""

_RATES = (1_000, 768_000)
"""Accepted sampling rates in Hz. A header with another rate is damaged, and resampling could need any memory."""
_MOST_SAMPLES = LONGEST * 48_000 * 2
"""Most samples in all channels: two hours of stereo at 48 kHz."""
_BLOCK = 2**20
"""Samples of all channels that are decoded at once."""

_OTHER_FORMATS = frozenset({1, 3})
"""Errors of libsndfile for files that FFmpeg may read: unknown format, unknown encoding."""


def resampled(sound: Path | Part) -> Iterator[Block]:
    """Yield the mono samples of a sound file at 16 kHz.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: As for ``read_audio``. Blocks may come before it.
    """
    stream: soxr.ResampleStream | None = None
    there = False
    for rate, block in decoded(sound):
        if rate != SAMPLE_RATE:
            stream = stream or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            block = stream.resample_chunk(block)  # noqa: PLW2901
        there |= len(block) > 0
        yield block
    if stream:
        block = stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        there |= len(block) > 0
        yield block
    if not there:
        raise InputError(f"{sound}: is shorter than one sample at {SAMPLE_RATE} Hz")


def decoded(sound: Path | Part) -> Iterator[tuple[int, Block]]:
    """Yield the mono samples of a sound file, each block with their rate in Hz.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: As for ``read_audio``. Blocks may come before it.
    """
    path, part = Path(sound), sound if isinstance(sound, Part) else None
    lowest, highest = np.float32(np.inf), np.float32(-np.inf)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        if is_lfs_pointer(path):
            raise InputError(f"{path}: is a Git LFS pointer, not the sound itself; fetch the sound with git lfs pull")
        _refuse_truncated_wav(path)
        for rate, block in _read(path, part):
            if len(block):
                if not np.isfinite(block).all():
                    raise InputError(f"{sound}: contains NaN or infinite samples")
                lowest, highest = min(lowest, block.min()), max(highest, block.max())
                yield rate, block
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from None
    if lowest > highest:
        raise InputError(f"{sound}: contains no samples")
    if lowest == highest:
        raise InputError(f"{sound}: is silent: every sample is {lowest:g}")


def _read(path: Path, part: Part | None) -> Iterator[tuple[int, Block]]:
    """Yield the means over the channels of a file or a part of it, and the rate."""
    # Pass an open file, because the binding of libsndfile accepts only UTF-8 names.
    with path.open("rb") as raw:
        try:
            file = soundfile.SoundFile(raw)
        except soundfile.LibsndfileError as error:
            if error.code not in _OTHER_FORMATS:
                raise
        else:
            with file:
                yield from _of_libsndfile(file, path, part)
            return
    yield from _of_ffmpeg(path, part)


def _of_libsndfile(file: soundfile.SoundFile, path: Path, part: Part | None) -> Iterator[tuple[int, Block]]:
    rate, channels = file.samplerate, file.channels
    _refuse_odd(path, rate, 0.0, channels)
    first, last = _samples_of(part, file.frames, rate)
    _refuse_odd(path, rate, (last - first) / rate, channels)
    if first:
        file.seek(first)
    done = first
    while done < last:
        samples = file.read(min(last - done, max(1, _BLOCK // channels)), dtype="float32", always_2d=True)
        if not len(samples):
            raise InputError(f"{part or path}: is cut short: it has {done - first} of {last - first} samples")
        done += len(samples)
        yield rate, samples[:, 0] if channels == 1 else samples.mean(axis=1)


def _of_ffmpeg(path: Path, part: Part | None) -> Iterator[tuple[int, Block]]:
    done, rate = 0, SAMPLE_RATE
    for rate, block in containers.decoded(path, partial(_refuse_odd, path), _BLOCK):
        first, last = (round(part.start * rate), round(part.end * rate)) if part else (0, done + len(block))
        yield rate, block[max(0, first - done) : max(0, last - done)]
        done += len(block)
    _samples_of(part, done, rate)


def _samples_of(part: Part | None, length: int, rate: int) -> tuple[int, int]:
    """Return the first sample of a part and the one after its last. Without a part, these are the file's.

    Raises:
        InputError: The part ends more than a tenth of a second after the file.
    """
    if part is None:
        return 0, length
    if part.end > length / rate + 0.1:
        raise InputError(f"{part}: the file lasts {length / rate:g} s only; it may be cut short")
    return min(round(part.start * rate), length), min(round(part.end * rate), length)


def _refuse_odd(path: Path, rate: int, seconds: float, channels: int) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(
            f"{path}: its sampling rate is {rate} Hz, but {_RATES[0]} to {_RATES[1]} Hz are expected; replace the file"
        )
    if seconds > LONGEST:
        raise InputError(f"{path}: lasts {seconds / 3600:.1f} hours; cut it into utterances first")
    if seconds * rate * channels > _MOST_SAMPLES:
        raise InputError(
            f"{path}: lasts {seconds / 60:.3g} minutes with {channels} channels at {rate} Hz, which are more than "
            f"{_MOST_SAMPLES / 1e6:.0f} million samples; cut it into utterances first, or mix it to one channel"
        )


def _refuse_truncated_wav(path: Path) -> None:
    """Raise InputError if a WAV or an AVI is shorter than its header says: the libraries do not report this."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if (head := file.read(12))[:4] != b"RIFF":
            return
        promised = int.from_bytes(head[4:8], "little") + 8
        if head[8:] == b"AVI " and size < promised < 0xFFFF_F000:
            raise InputError(f"{path}: is cut short: it has {size} of {promised} bytes")
        while len(head := file.read(8)) == 8:
            promised = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                there = size - file.tell()
                # A program that writes to a pipe does not know the length. It writes 0 or the largest number.
                if there < promised < 0xFFFF_F000:
                    raise InputError(f"{path}: is cut short: it has {there} of {promised} bytes of sound")
                return
            file.seek(promised + promised % 2, os.SEEK_CUR)


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).rstrip(".")
    return getattr(error, "strerror", None) or str(error)

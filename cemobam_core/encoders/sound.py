"""Sound files: read, check and resample them."""

from __future__ import annotations

import os
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
    require("features", "cemobam_core.encoders.sound")
    raise

SAMPLE_RATE = 16_000
"""Sampling rate in Hz of every clip that is read. The audio encoders were trained on it."""

_RATES = (1_000, 768_000)
"""Accepted sampling rates in Hz. A header with another rate is damaged, and resampling could need any memory."""
_LONGEST = 7_200
"""Longest accepted clip in seconds."""

_OTHER_FORMATS = frozenset({1, 3})
"""Errors of libsndfile for files that FFmpeg may read: unknown format, unknown encoding."""


def read_audio(sound: Path | Part) -> npt.NDArray[np.float32]:
    """Read a sound file as mono samples at 16 kHz.

    libsndfile reads the file in any of its formats (WAV and FLAC among them), rates and bit depths. FFmpeg decodes
    other formats, such as the sound of an mp4. Channels are averaged. Other sampling rates are resampled by soxr in
    high quality.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: The file is missing, empty, truncated, unreadable, hours long or silent, or contains NaN.
    """
    samples, rate = _decode(sound)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")
    if not len(samples):
        raise InputError(f"{sound}: is shorter than one sample at {SAMPLE_RATE} Hz")
    return samples


def seconds_of(sound: Path | Part) -> float:
    """Return the duration of a sound file in seconds. The whole file is read and checked.

    Args:
        sound: The sound file, or a part of it.

    Raises:
        InputError: As for ``read_audio``.
    """
    samples, rate = _decode(sound)
    return len(samples) / rate


def _decode(sound: Path | Part) -> tuple[npt.NDArray[np.float32], int]:
    path = Path(sound)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        if is_lfs_pointer(path):
            raise InputError(f"{path}: is a Git LFS pointer, not the sound itself; fetch the sound with git lfs pull")
        _refuse_truncated_wav(path)
        mono, rate = _read(path, sound if isinstance(sound, Part) else None)
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from None
    if not len(mono):
        raise InputError(f"{sound}: contains no samples")
    if not np.isfinite(mono).all():
        raise InputError(f"{sound}: contains NaN or infinite samples")
    if mono.min() == mono.max():
        raise InputError(f"{sound}: is silent: every sample is {mono[0]:g}")
    return mono, rate


def _read(path: Path, part: Part | None) -> tuple[npt.NDArray[np.float32], int]:
    """Return the mean over the channels of a file or a part of it, and the rate."""
    # Pass an open file, because the binding of libsndfile accepts only UTF-8 names.
    with path.open("rb") as raw:
        try:
            file = soundfile.SoundFile(raw)
        except soundfile.LibsndfileError as error:
            if error.code not in _OTHER_FORMATS:
                raise
            mono, rate = containers.decode(path, partial(_refuse_odd, path))
            first, last = _samples_of(part, len(mono), rate)
            return mono[first:last], rate
        with file:
            rate = file.samplerate
            _refuse_odd(path, rate, 0.0)
            first, last = _samples_of(part, file.frames, rate)
            _refuse_odd(path, rate, (last - first) / rate)
            if first:
                file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True)
    if len(samples) < last - first:
        raise InputError(f"{part or path}: is cut short: it has {len(samples)} of {last - first} samples")
    return samples.mean(axis=1), rate


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


def _refuse_odd(path: Path, rate: int, seconds: float) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(
            f"{path}: its sampling rate is {rate} Hz, but {_RATES[0]} to {_RATES[1]} Hz are expected; replace the file"
        )
    if seconds > _LONGEST:
        raise InputError(f"{path}: lasts {seconds / 3600:.1f} hours; cut it into utterances first")


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

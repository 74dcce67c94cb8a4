"""Sound files: read, check and resample them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cemobam_core.errors import InputError
from cemobam_core.extras import require

try:
    import soundfile
    import soxr
except ModuleNotFoundError:
    require("features", "cemobam_core.encoders.sound")
    raise

SAMPLE_RATE = 16_000
"""Sampling rate in Hz of every clip that is read. The audio encoders were trained on it."""

_RATES = (1_000, 768_000)
"""Accepted sampling rates in Hz. A header with another rate is damaged, and resampling could need any memory."""
_LONGEST = 7_200
"""Longest accepted clip in seconds."""


def read_audio(path: Path) -> npt.NDArray[np.float32]:
    """Read a sound file as mono samples at 16 kHz.

    libsndfile reads the file in any of its formats (WAV and FLAC among them), rates and bit depths. Channels are
    averaged. Other sampling rates are resampled by soxr in high quality.

    Args:
        path: The sound file.

    Raises:
        InputError: The file is missing, empty, truncated, unreadable, hours long or silent, or contains NaN.
    """
    samples, rate = _decode(path)
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")
    if not len(samples):
        raise InputError(f"{path}: is shorter than one sample at {SAMPLE_RATE} Hz")
    return samples


def seconds_of(path: Path) -> float:
    """Return the duration of a sound file in seconds. The whole file is read and checked.

    Args:
        path: The sound file.

    Raises:
        InputError: As for ``read_audio``.
    """
    samples, rate = _decode(path)
    return len(samples) / rate


def _decode(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty")
        _refuse_truncated_wav(path)
        # Pass an open file, because the binding of libsndfile accepts only UTF-8 names.
        with path.open("rb") as raw, soundfile.SoundFile(raw) as file:
            expected, rate = file.frames, file.samplerate
            if not _RATES[0] <= rate <= _RATES[1]:
                raise InputError(
                    f"{path}: its sampling rate is {rate} Hz, but {_RATES[0]} to {_RATES[1]} Hz are "
                    "expected; replace the file"
                )
            if expected > _LONGEST * rate:
                hours = expected / rate / 3600
                raise InputError(f"{path}: lasts {hours:.1f} hours; cut it into utterances first")
            samples = file.read(dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({_reason(error)})") from None
    if not len(samples):
        raise InputError(f"{path}: contains no samples")
    if len(samples) < expected:
        raise InputError(f"{path}: is cut short: it has {len(samples)} of {expected} samples")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: contains NaN or infinite samples")
    if mono.min() == mono.max():
        raise InputError(f"{path}: is silent: every sample is {mono[0]:g}")
    return mono, rate


def _refuse_truncated_wav(path: Path) -> None:
    """Raise InputError if a WAV is shorter than its header says: libsndfile does not report this."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return
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

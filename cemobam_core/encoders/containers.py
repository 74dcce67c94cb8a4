"""Sound in containers that libsndfile cannot read, such as mp4, m4a, avi and webm, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cemobam_core.errors import InputError
from cemobam_core.extras import require

try:
    import av
except ModuleNotFoundError:
    require("features", "cemobam_core.encoders.containers")
    raise

_ALONE = {"protocol_whitelist": "none"}
"""Keeps FFmpeg to the given file. A playlist could name other files or addresses."""


def decoded(
    path: Path, allow: Callable[[int, float, int], None], size: int
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Decode the first audio stream of a file. Channels are averaged.

    Args:
        path: The file.
        allow: Function that raises InputError for a sampling rate (Hz), a length (seconds) or a number of channels that
            is not accepted. It is called before anything is decoded, and again for every decoded frame.
        size: Smallest number of samples of a block, all channels together. The last one may be shorter.

    Yields:
        The rate in Hz, and a block of samples with a full scale of 1.

    Raises:
        InputError: The file is no container, has no audio stream, is cut short or damaged, or is not accepted.
    """
    _refuse_truncated_mp4(path)
    try:
        # Pass an open file, because a name may not be valid UTF-8, or may look like an address.
        with path.open("rb") as raw, av.open(raw, "r", options=_ALONE) as container:
            if not container.streams.audio:
                kinds = sorted({stream.type for stream in container.streams})
                raise InputError(f"{path}: contains no sound ({' and '.join(kinds) or 'no stream'} only)")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise InputError(f"{path}: its sound has an encoding that FFmpeg does not know")
            stream.codec_context.thread_count = 1
            rate = stream.rate or 0
            if stream.duration is not None and stream.time_base is not None:
                length = float(stream.duration * stream.time_base)
            else:
                length = (container.duration or 0) / av.time_base
            allow(rate, length, stream.codec_context.channels)
            frames: list[npt.NDArray[np.float32]] = []
            count, waiting = 0, 0
            for frame in container.decode(stream):
                if frame.sample_rate != rate:
                    raise InputError(f"{path}: its sampling rate changes from {rate} to {frame.sample_rate} Hz")
                count += frame.samples
                allow(rate, count / rate, channels := frame.layout.nb_channels)
                frames.append(_mono(frame))
                waiting += frame.samples * channels
                if waiting >= size:
                    yield rate, np.concatenate(frames)
                    frames, waiting = [], 0
            if frames:
                yield rate, np.concatenate(frames)
    except av.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as audio ({error.strerror})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as audio ({error.strerror or error})") from None


def _refuse_truncated_mp4(path: Path) -> None:
    """Raise InputError if an mp4 has lost its index or its end. A file of another kind passes.

    An mp4 is a list of boxes: four bytes of length, four letters, and the content. The box ``moov`` is the index of the
    sound in the box ``mdat`` (ISO/IEC 14496-12).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return
        file.seek(0)
        names = set()
        while len(head := file.read(8)) == 8:
            start = file.tell() - 8
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a long box: the length follows in eight bytes
                length = int.from_bytes(file.read(8), "big")
            elif length == 0:  # the last box: it ends with the file
                length = size - start
            names.add(head[4:])
            if length < 8 or start + length > size:
                raise InputError(f"{path}: is cut short or damaged: it has {size} of {start + length} bytes")
            file.seek(start + length, os.SEEK_SET)
    if b"moov" not in names and b"moof" not in names:
        raise InputError(f"{path}: is cut short: its index is missing (no moov atom)")


def _mono(frame: av.AudioFrame) -> npt.NDArray[np.float32]:
    """Return the mean over the channels of a frame, (samples,), with a full scale of 1."""
    samples = frame.to_ndarray()  # planar: (channels, samples); packed: (1, samples · channels)
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    mono: npt.NDArray[np.float64] = samples.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind != "f":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        mono = (mono - (half if samples.dtype.kind == "u" else 0)) / half
    return mono.astype(np.float32)

"""Hostile sound files: headers that claim what is not there, damaged containers, and playlists that lead elsewhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from hostile.harness import Reader
from hostile.impostors import impostors
from more_trees import write_container

from cemobam_core.encoders.sound import end_decoders, read_audio, seconds_of

_RATE = 16_000


def _read(path: Path) -> object:
    try:
        return seconds_of(path), len(read_audio(path))
    finally:
        end_decoders()


def _tone(seconds: float = 0.2, channels: int = 1, rate: int = _RATE) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave[:, None], channels)


def _good_wav(folder: Path) -> Path:
    soundfile.write(folder / "clip.wav", _tone(), _RATE, subtype="PCM_16")
    return folder / "clip.wav"


def _good_flac(folder: Path) -> Path:
    soundfile.write(folder / "clip.flac", _tone(channels=2, rate=44_100), 44_100, subtype="PCM_16")
    return folder / "clip.flac"


def _good_ogg(folder: Path) -> Path:
    soundfile.write(folder / "clip.ogg", _tone(), _RATE)
    return folder / "clip.ogg"


def _good_mp3(folder: Path) -> Path:
    soundfile.write(folder / "clip.mp3", _tone(), _RATE)
    return folder / "clip.mp3"


def _good_mp4(folder: Path) -> Path:
    return write_container(folder / "clip.mp4", [440.0], video=True)


def _good_mkv(folder: Path) -> Path:
    return write_container(folder / "clip.mkv", [440.0], codec="pcm_s16le", rate=_RATE)


# WAV: what stands where in the header of 44 bytes.

_FIELDS = {
    "size of the file": (4, 4),
    "size of the format": (16, 4),
    "format": (20, 2),
    "channels": (22, 2),
    "rate": (24, 4),
    "bytes a second": (28, 4),
    "bytes a frame": (32, 2),
    "bits": (34, 2),
    "size of the sound": (40, 4),
}
_NUMBERS = (0, 1, 1024, 2**16 - 1, 2**31 - 1, 2**32 - 1)


def _wavs(folder: Path) -> Iterator[tuple[str, Path]]:
    path = _good_wav(folder)
    good = path.read_bytes()
    for field, (at, size) in _FIELDS.items():
        for number in sorted({number % 256**size for number in _NUMBERS}):
            path.write_bytes(good[:at] + number.to_bytes(size, "little") + good[at + size :])
            yield f"WAV: {number} as {field}", path
    path.write_bytes(good[:12] + b"junk\0\0\0\0" * 500_000 + good[12:])
    yield "WAV: half a million empty chunks", path
    path.write_bytes(good[:36] + b"LIST" + struct.pack("<I", 2**32 - 2) + good[36:])
    yield "WAV: a list of 4 GB", path
    path.write_bytes(good[:40] + struct.pack("<I", 0))
    yield "WAV: no sound", path
    for name, value in {"not a number": np.nan, "infinite": np.inf, "1e300": 1e300, "denormal": 1e-310}.items():
        sound = _tone()
        sound[100] = value
        soundfile.write(path, sound, _RATE, subtype="DOUBLE")
        yield f"WAV: a sample that is {name}", path
    soundfile.write(path, np.full((8_000, 1), 1e308), _RATE, subtype="DOUBLE")
    yield "WAV: all samples are too large", path
    soundfile.write(path, _tone(channels=1024, seconds=0.01), _RATE)
    yield "WAV: 1024 channels", path
    soundfile.write(path, _tone(seconds=1 / _RATE), _RATE)
    yield "WAV: one sample", path
    for suffix in ("aiff", "au", "caf", "w64"):
        other = folder / f"clip.{suffix}"
        soundfile.write(other, _tone(), _RATE)
        raw = bytearray(other.read_bytes())
        for at in range(0, 64, 8):
            other.write_bytes(raw[:at] + b"\x7f\xff\xff\xff" + raw[at + 4 :])
            yield f"{suffix}: 2^31 at {at}", other
    yield from impostors(folder / "clip2.wav")


# FLAC: 20 bits of rate, 3 of channels, 5 of bits, 36 of samples, from byte 18.


def _claim(good: bytes, *, rate: int, channels: int, samples: int) -> bytes:
    said = rate << 44 | (channels - 1) << 41 | 15 << 36 | samples
    return good[:18] + said.to_bytes(8, "big") + good[26:]


def _flacs(folder: Path) -> Iterator[tuple[str, Path]]:
    path = _good_flac(folder)
    good = path.read_bytes()
    for rate, channels, samples in (
        *((96_000, 8, 1_300_000_000), (96_000, 8, 38 * 60 * 96_000), (655_350, 8, 2**36 - 1), (44_100, 2, 0)),
        *((44_100, 2, 7_000 * 44_100), (44_100, 8, 1_900 * 44_100), (1, 1, 10_000), (0, 2, 8_820), (44_100, 1, 8_820)),
    ):
        path.write_bytes(_claim(good, rate=rate, channels=channels, samples=samples))
        yield f"FLAC: claims {samples} samples of {channels} channels at {rate} Hz", path
    for kind in range(1, 127, 18):
        path.write_bytes(good[:4] + bytes([kind]) + b"\xff\xff\xff" + good[8:])
        yield f"FLAC: a block of kind {kind} and 16 MB", path
    picture = b"\x06" + (8 * 10**5).to_bytes(3, "big") + b"\xff" * 8 * 10**5
    path.write_bytes(good[:42] + picture * 3 + good[42:])
    yield "FLAC: pictures with sizes of 4 GB", path
    comments = b"\0\0\0\0\xff\xff\xff\x7f" + b"\xff\xff\xff\x7f" * 100
    path.write_bytes(good[:42] + b"\x04" + len(comments).to_bytes(3, "big") + comments + good[42:])
    yield "FLAC: 2^31 comments", path
    path.write_bytes(good[:42] + good[42:] * 300)
    yield "FLAC: many times the same", path


# Containers.

_BOXES = (
    *(b"moov", b"trak", b"mdia", b"stsd", b"stsz", b"stco"),
    *(b"stsc", b"stts", b"mdhd", b"mp4a", b"esds", b"mvhd"),
)


def _mp4s(folder: Path) -> Iterator[tuple[str, Path]]:
    path = _good_mp4(folder)
    good = path.read_bytes()
    for box in _BOXES:
        at = good.index(box)
        for number in (0, 2**16, 2**32 - 1):
            path.write_bytes(good[: at - 4] + number.to_bytes(4, "big") + good[at:])
            yield f"mp4: a box {box.decode()} of {number} bytes", path
            path.write_bytes(good[: at + 12] + number.to_bytes(4, "big") + good[at + 16 :])
            yield f"mp4: {number} in a box {box.decode()}", path
    path.write_bytes(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 500_000)
    yield "mp4: half a million boxes", path
    path.write_bytes(
        b"\0\0\0\x08ftyp" + b"".join(struct.pack(">I4s", 8 * (20_000 - i), b"moov") for i in range(20_000))
    )
    yield "mp4: boxes in boxes", path
    for name, content in _LEADING_ELSEWHERE.items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        yield f"a playlist {name}", path
    for suffix in ("webm", "avi", "mkv"):
        codec = "libopus" if suffix == "webm" else "pcm_s16le"
        path = write_container(folder / f"clip.{suffix}", [440.0], codec=codec)
        raw = path.read_bytes()
        for at in range(0, min(len(raw), 600), 60):
            path.write_bytes(raw[:at] + b"\x7f\xff\xff\xff\xff\xff\xff\xff" + raw[at + 8 :])
            yield f"{suffix}: a large number at {at}", path


_LEADING_ELSEWHERE = {
    "clip.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nfile:///dev/zero\n#EXT-X-ENDLIST\n",
    "clip2.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile /dev/zero\n",
    "clip.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "clip.mpd": '<?xml version="1.0"?><MPD><Period><BaseURL>file:///dev/zero</BaseURL></Period></MPD>',
}


def _none(_folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ()


READERS = [
    Reader("sound: WAV", _wavs, _good_wav, _read, every=5),
    Reader("sound: FLAC", _flacs, _good_flac, _read, every=5),
    Reader("sound: Ogg", _none, _good_ogg, _read, every=5),
    Reader("sound: mp3", _none, _good_mp3, _read, every=5),
    Reader("sound: mp4", _mp4s, _good_mp4, _read, every=5),
    Reader("sound: Matroska", _none, _good_mkv, _read, every=5),
]

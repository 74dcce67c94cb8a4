from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import soxr
from more_trees import write_container

from cemobam_core import wall
from cemobam_core.corpora.utterances import Part
from cemobam_core.encoders import decoding
from cemobam_core.encoders.sound import end_decoders, read_audio, seconds_of
from cemobam_core.errors import InputError

needs_limits = pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")


@pytest.fixture(autouse=True)
def _no_decoder_outlives_its_test() -> Iterator[None]:
    yield
    end_decoders()


def tone(hertz: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def loudest_hertz(samples: np.ndarray) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / 16_000)[np.abs(np.fft.rfft(samples)).argmax()])


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE"),
     ("flac", "PCM_16"), ("flac", "PCM_24")],
)  # fmt: skip
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_and_depth_is_the_same_sound(tmp_path: Path, suffix: str, subtype: str, rate: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(1000, 0.5, rate), rate, subtype=subtype)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(8_000, abs=2)
    assert loudest_hertz(samples) == pytest.approx(1000, abs=3)
    # Away from the edges, where a resampler lacks samples, the sine is exact.
    np.testing.assert_allclose(samples[500:-500], tone(1000, 0.5, 16_000)[500 : len(samples) - 500], atol=0.01)


def test_what_16_khz_cannot_hold_is_gone_and_not_folded_back(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", tone(12_000, 0.5, 48_000), 48_000)
    assert np.abs(read_audio(tmp_path / "high.wav")[500:-500]).max() < 1e-3  # dropping samples would give 4 kHz


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(500, 0.2, 16_000), tone(900, 0.2, 16_000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "stereo.wav"), (left + right) / 2, atol=1e-6)


def test_seconds(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(500, 0.05, 44_100), 44_100)
    assert seconds_of(tmp_path / "a.wav") == pytest.approx(0.05)


def _damaged(folder: Path, how: str) -> Path:
    path = folder / f"{how}.{'flac' if 'flac' in how else 'wav'}"
    soundfile.write(path, tone(500, 0.5, 16_000), 16_000)
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no sound")
    elif how in {"cut short", "flac cut short"}:
        os.truncate(path, path.stat().st_size // 2)
    elif how == "no samples":
        soundfile.write(path, np.zeros(0), 16_000)
    elif how == "silent":
        soundfile.write(path, np.zeros(8_000), 16_000)
    elif how == "NaN":
        soundfile.write(path, np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "endless":
        path.unlink()
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "the file is empty"),
        ("text", "cannot be read as audio"),
        ("cut short", "is cut short"),
        ("flac cut short", ""),
        ("no samples", "contains no samples"),
        ("silent", "is silent"),
        ("NaN", "contains NaN"),
        ("missing", "cannot be read (No such file or directory); check the path"),
        ("folder", "is a folder; give a regular file"),
        ("pipe", "is a pipe; give a regular file"),
        ("endless", "is a device; give a regular file"),
    ],
)
@pytest.mark.parametrize("read", [read_audio, seconds_of])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, how: str, said: str, read) -> None:
    path = _damaged(tmp_path, how)
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wav_from_a_pipe_that_does_not_know_its_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone(500, 0.2, 16_000), 16_000)
    raw = bytearray(path.read_bytes())
    raw[4:8] = b"\xff\xff\xff\xff"
    raw[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert len(read_audio(path)) == 3_200


def test_a_wav_whose_writer_counted_its_header_too_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "riff.wav"
    soundfile.write(path, tone(500, 0.2, 16_000), 16_000)
    raw = bytearray(path.read_bytes())
    raw[4:8] = (int.from_bytes(raw[4:8], "little") + 8).to_bytes(4, "little")
    path.write_bytes(raw)
    assert len(read_audio(path)) == 3_200


def test_a_wav_whose_sound_was_cut_is_found_out_whatever_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone(500, 0.2, 16_000), 16_000)
    raw = bytearray(path.read_bytes()[:-3_000])
    raw[4:8] = (len(raw) - 8).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match="3400 of 6400 bytes of sound"):
        read_audio(path)


def test_a_rate_that_is_damage_asks_for_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    soundfile.write(path, tone(5, 0.2, 16_000), 16_000)
    raw = bytearray(path.read_bytes())
    raw[24:28] = (1).to_bytes(4, "little")
    path.write_bytes(raw)
    for read in (read_audio, seconds_of):
        with pytest.raises(InputError, match="its sampling rate is 1 Hz"):
            read(path)


def test_hours_are_no_utterance(tmp_path: Path) -> None:
    path = tmp_path / "hours.wav"
    soundfile.write(path, np.arange(1_000 * 7_300) % 7 / 7, 1_000, subtype="PCM_U8")
    with pytest.raises(InputError, match=r"lasts 2\.0 hours"):
        read_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mkv"])
def test_a_part_of_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    sound = np.concatenate([tone(500, 1.0, 16_000), tone(1500, 0.5, 16_000)])
    if suffix == "mkv":
        write_container(path, [500.0], codec="pcm_s16le", rate=16_000, seconds=1.0)
    else:
        soundfile.write(path, sound, 16_000)
    part = Part(file=path, start=0.5, end=1.0)
    assert seconds_of(part) == 0.5
    np.testing.assert_array_equal(read_audio(part), read_audio(path)[8_000:16_000])
    beyond = Part(file=path, start=0.9, end=1.7)
    with pytest.raises(
        InputError, match=r"long\.\w+ from 0\.9 to 1\.7 s: the file lasts 1(\.5)? s only; it may be cut"
    ):
        read_audio(beyond)
    a_little = Part(file=path, start=0.9, end=seconds_of(path) + 0.05)
    assert seconds_of(a_little) == pytest.approx(seconds_of(path) - 0.9)


def test_a_part_of_hours_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "hours.wav"
    soundfile.write(path, np.arange(1_000 * 7_300) % 7 / 7, 1_000, subtype="PCM_U8")
    assert seconds_of(Part(file=path, start=7_000.0, end=7_002.5)) == 2.5
    with pytest.raises(InputError, match=r"lasts 2\.0 hours"):
        seconds_of(Part(file=path, start=0.0, end=7_300.0))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_and_their_channels_are_the_whole_file(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.flac"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (rate, 3)).astype(np.float32)
    soundfile.write(path, sound, rate, subtype="PCM_24")
    whole = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    expected = whole if rate == 16_000 else soxr.resample(whole, rate, 16_000, quality="HQ")
    monkeypatch.setattr(decoding, "_BLOCK", 3_000)
    np.testing.assert_array_equal(np.concatenate(list(decoding.resampled(path))), expected)
    np.testing.assert_array_equal(read_audio(path), expected)


def _claiming(path: Path, frames: int, channels: int, rate: int) -> Path:
    """Write a short FLAC whose header claims more."""
    soundfile.write(path, np.tile(tone(500, 0.2, 16_000)[:, None], channels), 16_000, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    said = int.from_bytes(raw[18:26], "big")  # 20 bits rate, 3 bits channels - 1, 5 bits bits - 1, 36 bits samples
    said = rate << 44 | (said & 0xFF0_0000_0000 & ~(0xFFFFF << 44)) | frames
    raw[18:26] = said.to_bytes(8, "big")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("read", [read_audio, seconds_of])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(
    tmp_path: Path, read, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = _claiming(tmp_path / "hours.flac", 1_300_000_000, 8, 96_000)
    with pytest.raises(InputError, match=r"hours\.flac: lasts 3\.8 hours; cut it into utterances first"):
        read(hours)
    channels = _claiming(tmp_path / "channels.flac", 38 * 60 * 96_000, 8, 96_000)
    with pytest.raises(InputError, match=r"lasts 38 minutes with 8 channels at 96000 Hz, .* mix it to one channel"):
        read(channels)
    empty = _claiming(tmp_path / "empty.flac", 40_000 * 3_600, 2, 44_100)
    with pytest.raises(InputError, match=r"empty\.flac"):
        read(empty)


@needs_limits
def test_one_child_for_each_thread_decodes_all_clips(tmp_path: Path) -> None:
    clips = [tmp_path / f"{i}.wav" for i in range(30)]
    for i, clip in enumerate(clips):
        soundfile.write(clip, tone(100 * (i + 1), 0.1, 16_000), 16_000)
    before = set(psutil.Process().children())
    with ThreadPoolExecutor(3) as pool:
        read = list(pool.map(read_audio, clips))
    assert [round(loudest_hertz(samples), -2) for samples in read] == [100 * (i + 1) for i in range(30)]
    assert 1 <= len(set(psutil.Process().children()) - before) <= 3
    end_decoders()
    assert set(psutil.Process().children()) <= before
    assert seconds_of(clips[0]) == pytest.approx(0.1)


@needs_limits
def test_a_decoder_that_crashes_is_one_line_about_its_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, evil = tmp_path / "good.wav", tmp_path / "evil.wav"
    for path in (good, evil):
        soundfile.write(path, tone(500, 0.1, 16_000), 16_000)
    real = decoding._read

    def crashing(path: Path, part: Part | None) -> Iterator[tuple[int, np.ndarray]]:
        if path == evil:
            ctypes.string_at(0)
        return real(path, part)

    monkeypatch.setattr(decoding, "_read", crashing)
    for read in (read_audio, seconds_of):
        read(good)
        with pytest.raises(InputError, match=r"evil\.wav: reading it crashes \(SIGSEGV\); .*: get it again"):
            read(evil)
        read(good)

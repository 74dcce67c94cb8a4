from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from more_trees import write_container

from cemobam_core.encoders import decoding
from cemobam_core.encoders.sound import end_decoders, read_audio, seconds_of
from cemobam_core.errors import InputError


@pytest.fixture(autouse=True)
def _no_decoder_outlives_its_test() -> Iterator[None]:
    yield
    end_decoders()


def loudest_hertz(samples: np.ndarray) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / 16_000)[np.abs(np.fft.rfft(samples)).argmax()])


def refusal(path: Path) -> str:
    told = []
    for read in (read_audio, seconds_of):
        with pytest.raises(InputError) as raised:
            read(path)
        told.append(str(raised.value))
    assert told[0] == told[1]
    assert told[0].startswith(f"{path}: ")
    assert "\n" not in told[0]
    return told[0]


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "aac", 48_000), ("a.m4a", "aac", 16_000), ("a.mkv", "pcm_s16le", 8_000), ("a.mkv", "pcm_u8", 8_000),
     ("a.mkv", "pcm_f32le", 44_100), ("a.webm", "libopus", 48_000), ("a.avi", "pcm_s16le", 44_100)],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_the_sound_of_a_container(tmp_path: Path, name: str, codec: str, rate: int, layout: str) -> None:
    path = write_container(tmp_path / name, [500.0], codec=codec, rate=rate, layout=layout, seconds=0.5)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(8_000, abs=700)  # an encoder fills its last frame
    assert loudest_hertz(samples) == pytest.approx(500, abs=4)
    assert np.abs(samples[1_000:7_000]).max() == pytest.approx(0.4, abs=0.07)  # the channel of low tones has none
    assert seconds_of(path) == pytest.approx(len(samples) / 16_000, abs=1e-3)


def test_the_sound_beside_a_picture_and_the_first_of_several(tmp_path: Path) -> None:
    path = write_container(tmp_path / "clip.mp4", [500.0, 1500.0], video=True)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio"]
    assert loudest_hertz(read_audio(path)) == pytest.approx(500, abs=4)


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.mp4", [500.0])
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    path.rename(odd)
    assert len(read_audio(odd))


def test_a_video_without_sound(tmp_path: Path) -> None:
    assert "contains no sound (video only)" in refusal(write_container(tmp_path / "mute.mp4", [], video=True))


def test_an_mp4_that_is_cut_short(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_container(tmp_path / "end.mp4", [500.0])
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert f"is cut short or damaged: it has {size - 1} of {size} bytes" in refusal(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"moov") - 4])
    assert "is cut short: its index is missing (no moov atom)" in refusal(path)
    first = write_container(tmp_path / "start.mp4", [500.0], options={"movflags": "faststart"})
    os.truncate(first, first.stat().st_size // 2)
    assert "is cut short" in refusal(first)
    avi = write_container(tmp_path / "a.avi", [500.0], codec="pcm_s16le")
    os.truncate(avi, avi.stat().st_size // 2)
    assert "is cut short" in refusal(avi)
    assert capfd.readouterr() == ("", "")


def test_damage_is_one_line_and_nothing_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_container(tmp_path / "a.mp4", [500.0], seconds=2.0)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(raw)
    assert "cannot be read as audio" in refusal(path)
    for name, junk in {
        "ftyp.mp4": b"\0\0\0\x08ftyp\0\0\0\x08moov",
        "a.mp4": b"no sound",
        "b.mp4": bytes(4_000),
    }.items():
        (tmp_path / name).write_bytes(junk)
        assert "cannot be read as audio" in refusal(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    other = write_container(tmp_path / "other.ts", [500.0])
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nfile:{other}\n#EXT-X-ENDLIST\n"
    for name, text in {"a.m3u8": playlist, "a.mp4": "ffconcat version 1.0\nfile other.ts\n"}.items():
        (tmp_path / name).write_text(text)
        with av.open(str(tmp_path / name)) as container:  # FFmpeg by itself would follow it
            assert container.streams.audio
        assert "cannot be read as audio" in refusal(tmp_path / name)


def test_silence_and_no_samples_in_a_container(tmp_path: Path) -> None:
    assert "is silent" in refusal(write_container(tmp_path / "a.mkv", [0.0], codec="pcm_s16le"))
    nan = write_container(tmp_path / "nan.mkv", [float("nan")], codec="pcm_f32le")
    assert "contains NaN" in refusal(nan)


def test_hours_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LONGEST", 1)
    path = write_container(tmp_path / "told.mp4", [500.0], seconds=3.0)
    with monkeypatch.context() as patched, pytest.raises(InputError, match=r"lasts 0\.0 hours"):
        patched.setattr("cemobam_core.encoders.containers._mono", lambda frame: pytest.fail("a frame was decoded"))
        list(decoding.decoded(path))
    frames = []
    monkeypatch.setattr("cemobam_core.encoders.containers._mono", lambda frame: frames.append(frame) or np.zeros(1))
    untold = write_container(tmp_path / "untold.webm", [500.0], codec="libopus", seconds=3.0, options={"live": "1"})
    with pytest.raises(InputError, match=r"lasts 0\.0 hours"):
        list(decoding.decoded(untold))
    assert 0 < len(frames) < 70  # a frame of Opus lasts 20 ms


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "1001_DFA_ANG_XX.wav"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 72958\n")
    assert "is a Git LFS pointer, not the sound itself; fetch the sound with git lfs pull" in refusal(path)


@pytest.mark.parametrize(("rate", "subtype"), [(192_000, "PCM_24"), (16_000, "PCM_U8"), (11_025, "ULAW")])
def test_unusual_wavs_stay_with_libsndfile(tmp_path: Path, rate: int, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 500 * np.arange(rate // 2) / rate), rate, subtype=subtype)
    samples = read_audio(path)
    assert len(samples) == pytest.approx(8_000, abs=2)
    assert loudest_hertz(samples) == pytest.approx(500, abs=4)

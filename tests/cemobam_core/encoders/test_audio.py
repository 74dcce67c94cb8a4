from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_bert, make_wav2vec2
from transformers import AutoFeatureExtractor, AutoModel

from cemobam_core.encoders.audio import AudioEncoder, averaged_down
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.errors import InputError


def test_a_model_whose_frames_would_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    from transformers import SEWConfig, SEWModel, Wav2Vec2Config, Wav2Vec2Model

    SEWModel(
        SEWConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(tmp_path / "sew")
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, add_adapter=True
    )
    Wav2Vec2Model(config).save_pretrained(tmp_path / "adapter")
    for folder, said in (
        ("sew", r"this sew model is not supported \(it shortens the sequence .*\); give one of these types: .*wavlm"),
        ("adapter", r"this wav2vec2 model is not supported \(it has an adapter, .*\); give one of these types: "),
    ):
        with pytest.raises(InputError, match=said):
            AudioEncoder(find_pretrained(str(tmp_path / folder), "--audio-encoder"), max_seconds=1.0, steps=8)


@pytest.fixture(params=["group", "layer"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AudioEncoder:
    folder = make_wav2vec2(tmp_path_factory.mktemp("encoder"), norm=request.param)
    return AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)


def clips(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n).astype(np.float32) * (i + 1) for i, n in enumerate(lengths)]


def test_frames_are_those_of_transformers(encoder: AudioEncoder) -> None:
    (clip,) = clips(9_000)
    extractor = AutoFeatureExtractor.from_pretrained(encoder.pretrained.folder)
    model = AutoModel.from_pretrained(encoder.pretrained.folder)
    with torch.no_grad():
        expected = model(**extractor(clip, sampling_rate=16_000, return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode([clip])[0], expected, atol=1e-5, rtol=0)


def test_a_clip_gives_the_same_alone_as_in_a_batch(encoder: AudioEncoder) -> None:
    several = clips(3_000, 16_000, 100, 9_000, 40_000, 800)
    for together, clip in zip(encoder.encode(several), several, strict=True):
        torch.testing.assert_close(together, encoder.encode([clip])[0], atol=1e-5, rtol=0)


@given(lengths=st.lists(st.integers(1, 30_000), min_size=1, max_size=5), batch_seconds=st.floats(0.1, 5))
def test_how_clips_are_batched_changes_nothing(lengths: list[int], batch_seconds: float) -> None:
    encoder = _shared_encoder()
    encoder.batch_inputs = round(batch_seconds * 16_000)
    several = clips(*lengths)
    for together, clip in zip(encoder.encode(several), several, strict=True):
        torch.testing.assert_close(together, encoder.encode([clip])[0], atol=1e-5, rtol=0)


_SHARED: list[AudioEncoder] = []


def _shared_encoder() -> AudioEncoder:
    if not _SHARED:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            make_wav2vec2(Path(folder))
            _SHARED.append(AudioEncoder(find_pretrained(folder, "--audio-encoder"), max_seconds=1.0, steps=8))
    return _SHARED[0]


def test_over_long_clips_are_windows_averaged_by_their_length(encoder: AudioEncoder) -> None:
    (clip,) = clips(40_000)  # 2.5 s: three windows of 0.83 s
    windows = encoder.windows(encoder.prepare(clip))
    assert [len(window) for window in windows] == [13_334, 13_333, 13_333]
    with torch.no_grad():
        frames = [encoder([window])[0][0] for window in windows]
    means = torch.stack([window.mean(dim=0) for window in frames])
    weights = torch.tensor([float(len(window)) for window in frames])
    expected = (means * weights[:, None]).sum(dim=0) / weights.sum()
    torch.testing.assert_close(encoder.embed([clip], sequence=False)[0], expected[None], atol=1e-5, rtol=0)


def test_ten_minutes_are_no_trouble(encoder: AudioEncoder) -> None:
    (embedding,) = encoder.embed(clips(600 * 16_000), sequence=True)
    assert embedding.shape == (8, 24)
    assert torch.isfinite(embedding).all()


def test_sequences_are_averaged_down_by_hand() -> None:
    frames = torch.arange(10.0)[:, None]
    assert averaged_down(frames, 3).flatten().tolist() == [1.5, 5.0, 8.0]  # 0-3, 4-6, 7-9
    assert averaged_down(frames, 10) is frames
    assert averaged_down(frames, 1).item() == 4.5


@given(n=st.integers(1, 200), steps=st.integers(1, 40))
def test_averaging_down_keeps_the_range_and_the_order(n: int, steps: int) -> None:
    down = averaged_down(torch.arange(float(n))[:, None], steps).flatten()
    assert len(down) == min(n, steps)
    assert (down.diff() > 0).all()
    assert down[0] >= 0 and down[-1] <= n - 1


def test_a_model_that_wants_raw_audio_gets_it(tmp_path: Path) -> None:
    folder = make_wav2vec2(tmp_path / "raw", normalise=False)
    encoder = AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)
    (clip,) = clips(5_000)
    torch.testing.assert_close(encoder.prepare(clip), torch.from_numpy(clip), atol=0, rtol=0)


def test_without_word_of_it_audio_is_normalised(tmp_path: Path) -> None:
    folder = make_wav2vec2(tmp_path / "silent")
    (folder / "preprocessor_config.json").unlink()
    encoder = AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)
    prepared = encoder.prepare(7 + 3 * clips(5_000)[0])
    assert prepared.mean().abs() < 1e-5
    assert prepared.std(correction=0) == pytest.approx(1, abs=1e-4)


def test_a_damaged_preprocessor_configuration_is_named(tmp_path: Path) -> None:
    folder = make_wav2vec2(tmp_path / "damaged")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match=r"preprocessor_config\.json cannot be read"):
        AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)


def test_a_model_for_another_rate_is_refused(tmp_path: Path) -> None:
    folder = make_wav2vec2(tmp_path / "slow")
    config = (folder / "preprocessor_config.json").read_text().replace("16000", "8000")
    (folder / "preprocessor_config.json").write_text(config)
    with pytest.raises(InputError, match="expects audio at 8000 Hz"):
        AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)


def test_a_text_encoder_is_no_audio_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bert model is not supported \(it is for --text-encoder\); give one"):
        AudioEncoder(find_pretrained(str(make_bert(tmp_path)), "--audio-encoder"), max_seconds=1.0, steps=8)


def test_what_is_saved_is_read_again(encoder: AudioEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "saved")
    again = AudioEncoder(find_pretrained(str(tmp_path / "saved"), "--audio-encoder"), max_seconds=1.0, steps=8)
    (clip,) = clips(5_000)
    torch.testing.assert_close(again.encode([clip])[0], encoder.encode([clip])[0], atol=0, rtol=0)

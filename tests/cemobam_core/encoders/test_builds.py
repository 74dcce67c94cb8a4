"""Every supported type, as a small model of its true build with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import AUDIO_TYPES, TEXT_TYPES, make_audio, make_text, make_wav2vec2
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer

from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.builds import types
from cemobam_core.encoders.layers import Layer
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.text import TextEncoder

LAYERS = 5
TEXTS = ["I love this.", "what is the form in the second drawer over there", "out", "I miss her so much, it is lost"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("builds")
    made = {one: make_audio(root / one, one, layers=LAYERS) for one in AUDIO_TYPES}
    made |= {one: make_text(root / one, one, layers=LAYERS) for one in TEXT_TYPES}
    made["wav2vec2-large"] = make_wav2vec2(root / "wav2vec2-large", norm="layer", layers=LAYERS)
    return made


AUDIO = (*AUDIO_TYPES, "wav2vec2-large")


def audio_encoder(folder: Path, *, layer: Layer = "last", max_seconds: float = 2.0) -> AudioEncoder:
    pretrained = find_pretrained(str(folder), "--audio-encoder")
    return AudioEncoder(pretrained, max_seconds=max_seconds, steps=8, layer=layer)


def text_encoder(folder: Path, *, pool: str = "mean", layer: Layer = "last", max_tokens: int = 48) -> TextEncoder:
    pretrained = find_pretrained(str(folder), "--text-encoder")
    return TextEncoder(pretrained, pool=pool, max_tokens=max_tokens, layer=layer)


def clips(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def of_transformers(folder: Path, clip: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return what transformers computes for a clip with the front end that it saved: hidden states and output."""
    inputs = AutoFeatureExtractor.from_pretrained(folder)(clip, sampling_rate=16_000, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.model_type == "whisper" else model
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    if model.config.model_type == "whisper":
        valid = torch.arange(-(-len(clip) // 320))
    elif "attention_mask" in inputs and model.config.model_type == "wav2vec2-bert":
        valid = inputs["attention_mask"][0].nonzero()[:, 0]
    else:
        valid = torch.arange(output.last_hidden_state.shape[1])
    return [state[0, valid] for state in output.hidden_states], output.last_hidden_state[0, valid]


def test_all_types_are_tested() -> None:
    assert set(types("audio")) == set(AUDIO_TYPES)
    assert set(types("text")) == set(TEXT_TYPES)


@pytest.mark.parametrize("kind", AUDIO)
def test_frames_and_hidden_states_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    (clip,) = clips(20_170)
    states, output = of_transformers(folders[kind], clip)
    assert len(states) == LAYERS + 1
    torch.testing.assert_close(audio_encoder(folders[kind]).encode([clip])[0], output, atol=2e-5, rtol=1e-5)
    # The last hidden state is the output: transformers disagrees with itself on whether it has passed the final norm.
    for layer, expected in enumerate([*states[:-1], output]):
        ours = audio_encoder(folders[kind], layer=layer).encode([clip])[0]
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)
    mean = torch.stack([*states[-4:-1], output]).mean(dim=0)
    torch.testing.assert_close(
        audio_encoder(folders[kind], layer="last4").encode([clip])[0], mean, atol=2e-5, rtol=1e-5
    )
    assert len({tuple(state.flatten().tolist()) for state in (*states[:-1], output)}) == LAYERS + 1


@pytest.mark.parametrize("kind", AUDIO)
@pytest.mark.parametrize("layer", ["last", 2, "last4"])
def test_a_clip_gives_the_same_alone_as_in_a_batch(folders: dict[str, Path], kind: str, layer: Layer) -> None:
    several = clips(3_000, 31_000, 100, 900, 9_000, 70_000)
    encoder = audio_encoder(folders[kind], layer=layer)
    alone = [encoder.encode([clip])[0] for clip in several]
    for together, one in zip(encoder.encode(several), alone, strict=True):
        torch.testing.assert_close(together, one, atol=2e-5, rtol=1e-5)
        assert torch.isfinite(one).all()


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_tokens_and_hidden_states_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    tokens = AutoTokenizer.from_pretrained(folders[kind])(TEXTS[1], return_tensors="pt")
    model = AutoModel.from_pretrained(folders[kind], attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(input_ids=tokens["input_ids"], output_hidden_states=True)
    assert len(set(tokens["input_ids"][0].tolist())) > 6  # the tokenizer knows the words
    states = [*output.hidden_states[:-1], output.last_hidden_state]
    assert len(states) == LAYERS + 1
    for layer in ("last", *range(LAYERS + 1)):
        (ours,) = text_encoder(folders[kind], layer=layer).embed([TEXTS[1]], sequence=True)
        expected = output.last_hidden_state if layer == "last" else states[layer]
        torch.testing.assert_close(ours, expected[0], atol=2e-5, rtol=1e-5)
    (ours,) = text_encoder(folders[kind], layer="last4").embed([TEXTS[1]], sequence=True)
    torch.testing.assert_close(ours, torch.stack(states[-4:]).mean(dim=0)[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TEXT_TYPES)
@pytest.mark.parametrize("layer", ["last", 2, "last4"])
@pytest.mark.parametrize("sequence", [False, True])
def test_a_text_gives_the_same_alone_as_in_a_batch(
    folders: dict[str, Path], kind: str, layer: Layer, sequence: bool
) -> None:
    encoder = text_encoder(folders[kind], layer=layer)
    several = [*TEXTS, "the form " * 12]
    for together, text in zip(encoder.embed(several, sequence=sequence), several, strict=True):
        torch.testing.assert_close(together, encoder.embed([text], sequence=sequence)[0], atol=2e-5, rtol=1e-5)

"""Every supported type, as a small model of its true build with random weights."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import AUDIO_TYPES, TEXT_TYPES, make_audio, make_text, make_wav2vec2, make_whisper
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer
from trees import write_wav

from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.builds import build_of, types
from cemobam_core.encoders.builds.refused import REASONS
from cemobam_core.encoders.finetune import TuningConfig, TuningData, choose_parameters, tune
from cemobam_core.encoders.layers import Layer
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.errors import InputError

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
    # The last hidden state is the output: versions of transformers differ in whether it has passed the final norm.
    states[-1] = output
    encoder = audio_encoder(folders[kind])
    for layer, expected in _by_layer(states).items():
        encoder.layer = layer
        torch.testing.assert_close(encoder.encode([clip])[0], expected, atol=2e-5, rtol=1e-5)


def _by_layer(states: list[torch.Tensor]) -> dict[Layer, torch.Tensor]:
    """Return the hidden state that each choice of a layer must give. No two of them are alike."""
    assert len(states) == LAYERS + 1
    assert all((a - b).abs().max() > 1e-2 for a, b in itertools.combinations(states, 2))
    return {**dict(enumerate(states)), "last": states[-1], "last4": torch.stack(states[-4:]).mean(dim=0)}


@pytest.mark.parametrize("kind", AUDIO)
def test_a_clip_gives_the_same_alone_as_in_a_batch(folders: dict[str, Path], kind: str) -> None:
    several = clips(3_000, 31_000, 100, 900, 9_000, 70_000)
    encoder = audio_encoder(folders[kind])
    for layer in ("last", 2, "last4"):
        encoder.layer = layer
        for together, clip in zip(encoder.encode(several), several, strict=True):
            torch.testing.assert_close(together, encoder.encode([clip])[0], atol=2e-5, rtol=1e-5)
            assert torch.isfinite(together).all()


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_tokens_and_hidden_states_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    tokens = AutoTokenizer.from_pretrained(folders[kind])(TEXTS[1], return_tensors="pt")
    assert len(set(tokens["input_ids"][0].tolist())) > 6  # the tokenizer knows the words
    model = AutoModel.from_pretrained(folders[kind], attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(input_ids=tokens["input_ids"], output_hidden_states=True)
    states = [state[0] for state in (*output.hidden_states[:-1], output.last_hidden_state)]
    encoder = text_encoder(folders[kind])
    for layer, expected in _by_layer(states).items():
        encoder.layer = layer
        torch.testing.assert_close(encoder.embed([TEXTS[1]], sequence=True)[0], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_a_text_gives_the_same_alone_as_in_a_batch(folders: dict[str, Path], kind: str) -> None:
    encoder = text_encoder(folders[kind])
    several = [*TEXTS, "the form " * 12]
    for layer, sequence in itertools.product(("last", 2, "last4"), (False, True)):
        encoder.layer = layer
        for together, text in zip(encoder.embed(several, sequence=sequence), several, strict=True):
            torch.testing.assert_close(together, encoder.embed([text], sequence=sequence)[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", AUDIO)
def test_an_audio_encoder_is_saved_and_read_again(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    encoder = audio_encoder(folders[kind], layer=3)
    encoder.save(tmp_path / "saved")
    again = audio_encoder(tmp_path / "saved", layer=3)
    (clip,) = clips(9_000)
    for layer in (3, "last"):  # the layers that did not run are in the file, too
        encoder.layer = again.layer = layer
        torch.testing.assert_close(again.encode([clip])[0], encoder.encode([clip])[0], atol=0, rtol=0)


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_a_text_encoder_is_saved_and_read_again(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    encoder = text_encoder(folders[kind], layer=3)
    encoder.save(tmp_path / "saved")
    again = text_encoder(tmp_path / "saved", layer=3)
    for layer in (3, "last"):
        encoder.layer = again.layer = layer
        ours, expected = (torch.cat(one.embed(TEXTS, sequence=False)) for one in (again, encoder))
        torch.testing.assert_close(ours, expected, atol=0, rtol=0)


@pytest.mark.parametrize("kind", AUDIO)
def test_over_long_clips_are_cut_into_equal_windows(folders: dict[str, Path], kind: str) -> None:
    encoder = audio_encoder(folders[kind], max_seconds=100.0)
    longest = 3.0 if kind == "whisper" else 100.0
    assert encoder.max_inputs == round(longest * encoder.rate)
    encoder = audio_encoder(folders[kind], max_seconds=1.0)
    (clip,) = clips(2 * 16_000 + 16_000 // 2)
    windows = encoder.windows(encoder.prepare(clip))
    assert len(windows) == 3
    assert max(map(len, windows)) - min(map(len, windows)) <= 1
    with torch.no_grad():
        frames = torch.cat([encoder([window])[0][0] for window in windows])
    (embedding,) = encoder.embed([clip], sequence=False)
    torch.testing.assert_close(embedding, frames.mean(dim=0, keepdim=True), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_over_long_texts_are_cut_to_what_the_positions_allow(tmp_path: Path, kind: str) -> None:
    folder = make_text(tmp_path / kind, kind, layers=1, positions=24)
    encoder = text_encoder(folder, max_tokens=40)
    expected = {"deberta-v2": 40}.get(kind, 22 if encoder.build.model.config.pad_token_id == 1 else 24)
    (rows,) = encoder.embed(["the form " * 50], sequence=True)
    assert len(rows) == expected
    cut, whole = encoder.embed(["the form " * 50, "the form " * 60], sequence=True)
    torch.testing.assert_close(cut, whole)


def test_roberta_has_two_positions_less_than_it_says(folders: dict[str, Path]) -> None:
    assert text_encoder(folders["roberta"], max_tokens=1000).max_tokens == 62
    assert text_encoder(folders["bert"], max_tokens=1000).max_tokens == 64


def audio_data(folder: Path, n: int) -> TuningData:
    paths = [folder / f"{i}.wav" for i in range(n)]
    for i, path in enumerate(paths):
        write_wav(path, (200, 900)[i % 2], seconds=0.3 + 0.05 * (i % 4), seed=i)
    return TuningData(items=paths, labels=torch.arange(n) % 2)


@pytest.mark.parametrize("kind", [*AUDIO, *TEXT_TYPES])
@pytest.mark.parametrize(
    ("objective", "layer"),
    [
        ("supervised", "last"),
        ("contrastive", 3),
        pytest.param("contrastive", "last", marks=pytest.mark.slow),
        pytest.param("supervised", 3, marks=pytest.mark.slow),
        pytest.param("supervised", "last4", marks=pytest.mark.slow),
    ],
)
def test_the_chosen_layers_learn_and_nothing_else(
    folders: dict[str, Path], kind: str, objective: str, layer: Layer, tmp_path: Path
) -> None:
    encoder: AudioEncoder | TextEncoder
    if kind in AUDIO:
        encoder, data = audio_encoder(folders[kind], layer=layer), audio_data(tmp_path, 8)
    else:
        encoder = text_encoder(folders[kind], layer=layer)
        data = TuningData(items=[*TEXTS, *TEXTS], labels=torch.arange(8) % 2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    tuned = tune(
        encoder, data, data, num_classes=2, checkpoint=tmp_path / "c.pt", name="it",
        config=TuningConfig(layers=2, objective=objective, epochs=1, lr=1e-2, batch_size=4),
    )  # fmt: skip
    assert all(np.isfinite(tuned.val_losses))
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    top = LAYERS if isinstance(layer, str) else layer
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    allowed = {names[id(p)] for one in encoder.build.layers[top - 2 : top] for p in one.parameters()}
    norms = {names[id(p)] for one in encoder.build.on_top for p in one.parameters()}
    assert moved <= allowed | (norms if top == LAYERS else set())
    assert {name for name in allowed if before[name].ndim > 1} <= moved
    assert not norms or top < LAYERS or norms & moved


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2-large", "modernbert"])
def test_final_norms_belong_to_the_last_layer_alone(folders: dict[str, Path], kind: str) -> None:
    make = audio_encoder if kind in AUDIO else text_encoder
    assert len(make(folders[kind]).on_top) == 1
    assert len(make(folders[kind], layer="last4").on_top) == 1
    assert make(folders[kind], layer=LAYERS - 1).on_top == []


def test_whisper_has_150_frames_in_three_seconds_and_no_decoder(folders: dict[str, Path]) -> None:
    encoder = audio_encoder(folders["whisper"], max_seconds=30.0)
    lengths = {16_000 * 3: 150, 16_000: 50, 16_001: 51, 320: 1, 1: 1}
    frames = encoder.encode(clips(*lengths))
    assert [len(rows) for rows in frames] == list(lengths.values())
    assert not [name for name in encoder.state_dict() if "decoder" in name]
    # The rest of the window is silence to which the frames attend: with more sound there they differ.
    (short, long) = clips(16_000, 16_000)
    more = encoder.encode([np.concatenate([short, long])])[0][:40]
    assert (more - encoder.encode([short])[0][:40]).abs().max() > 1e-3


def test_whispers_with_other_numbers_of_bands(tmp_path: Path) -> None:
    folder = make_whisper(tmp_path / "large-v3", bands=128, layers=1)
    (clip,) = clips(20_000)
    expected = audio_encoder(folder).encode([clip])[0]
    (folder / "preprocessor_config.json").unlink()  # then the model's own number of bands decides
    torch.testing.assert_close(audio_encoder(folder).encode([clip])[0], expected, atol=0, rtol=0)
    make_whisper(tmp_path / "base", layers=1)
    (tmp_path / "base" / "preprocessor_config.json").rename(folder / "preprocessor_config.json")
    with pytest.raises(InputError, match="gives 80 numbers per frame, but its model takes 128"):
        audio_encoder(folder)


def test_another_models_front_end_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["whisper"], tmp_path / "whisper")
    shutil.copy(folders["wav2vec2"] / "preprocessor_config.json", folder)
    with pytest.raises(InputError, match="describes a Wav2Vec2FeatureExtractor, but the model needs a Whisper"):
        audio_encoder(folder)


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2", "bert"])
def test_half_precision_weights_are_computed_with_in_single_precision(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    encoder = (audio_encoder if kind in AUDIO else text_encoder)(folder)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_weights_in_several_files(folders: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folders["bert"])
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    ours, expected = (text_encoder(one).embed(TEXTS, sequence=False) for one in (folder, folders["bert"]))
    torch.testing.assert_close(torch.cat(ours), torch.cat(expected), atol=0, rtol=0)
    before = find_pretrained(str(folder), "").revision
    (folder / "model.fp16-00001-of-00002.safetensors").write_text("a copy in another precision")
    assert find_pretrained(str(folder), "").revision == before


@pytest.mark.parametrize("kind", ["whisper", "deberta-v2", "distilbert", "modernbert", "data2vec-audio"])
def test_heads_in_the_file_are_ignored_and_further_layers_are_not(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    weights = load_file(folder / "model.safetensors")
    heads = {"mask_predictions.dense.weight": torch.ones(2), "lm_head.bias": torch.ones(2)}
    save_file({**weights, **heads}, folder / "model.safetensors", metadata={"format": "pt"})
    make = audio_encoder if kind in AUDIO else text_encoder
    make(folder)
    config = json.loads((folder / "config.json").read_text())
    key = {"whisper": "encoder_layers", "distilbert": "n_layers"}.get(kind, "num_hidden_layers")
    if kind == "modernbert":
        config["layer_types"] = config["layer_types"][: LAYERS - 1]
    (folder / "config.json").write_text(json.dumps({**config, key: LAYERS - 1}))
    with pytest.raises(InputError, match=r"does not describe the weights '.*\.?layers?\.4\."):
        make(folder)


def test_missing_weights_of_whispers_encoder_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["whisper"], tmp_path / "whisper")
    weights = load_file(folder / "model.safetensors")
    del weights["model.encoder.layers.1.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'encoder\.layers\.1\.fc1\.weight'"):
        audio_encoder(folder)


@pytest.mark.parametrize(
    ("modality", "config", "reason"),
    [
        ("text", {"model_type": "gpt2"}, r"this gpt2 model is not supported \(it is a decoder, in which"),
        ("text", {"model_type": "llama"}, "it is a decoder"),
        ("text", {"model_type": "t5"}, "it is an encoder with a decoder"),
        ("text", {"model_type": "clip"}, "it joins several modalities"),
        ("text", {"model_type": "whisper"}, "it is for --audio-encoder"),
        ("text", {"model_type": "nomic_bert", "auto_map": {}}, "needs code of its own, which is not run"),
        ("text", {"model_type": "quokka"}, "the type is not known.*give one of these types: bert, ernie, "),
        ("text", {}, "has no model_type"),
        ("audio", {"model_type": "wav2vec2", "add_adapter": True}, "it has an adapter"),
        ("audio", {"model_type": "wav2vec2-bert", "add_adapter": True}, "it has an adapter"),
        ("audio", {"model_type": "speecht5"}, "made to generate speech"),
        ("audio", {"model_type": "encodec"}, "it is a codec"),
        ("audio", {"model_type": "seamless_m4t_v2"}, r"facebook/w2v-bert-2\.0 is a speech encoder like its own"),
        ("audio", {"model_type": "clap"}, "it joins several modalities"),
        ("audio", {"model_type": "bert"}, "it is for --text-encoder"),
    ],
)
def test_what_is_refused_is_refused_by_name(
    tmp_path: Path, modality: str, config: dict[str, object], reason: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=reason) as raised:
        build_of(modality, find_pretrained(str(tmp_path), f"--{modality}-encoder"))
    assert "\n" not in str(raised.value)


def test_no_supported_type_has_a_reason_against_it() -> None:
    for modality in ("audio", "text"):
        assert not set(types(modality)) & set(REASONS[modality])


def test_sentence_transformers_with_more_than_an_encoder(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")

    def modules(*kinds: str) -> None:
        listed = [{"type": f"sentence_transformers.models.{kind}", "path": f"{i}"} for i, kind in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(listed))

    modules("Transformer", "Pooling", "Normalize")
    text_encoder(folder)
    modules("Transformer", "Pooling", "Dense")
    with pytest.raises(InputError, match=r"need a module Dense \(modules\.json\), which is not run"):
        text_encoder(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(InputError, match=r"modules\.json: is damaged"):
        text_encoder(folder)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"sentence-transformers; give the folder of its encoder, .*bert$"):
        find_pretrained(str(tmp_path), "--text-encoder")


@pytest.mark.parametrize("kind", ["electra", "deberta-v2", "distilbert", "modernbert"])
def test_a_pooler_only_where_there_is_one(folders: dict[str, Path], kind: str) -> None:
    with pytest.raises(InputError, match=f"--text-pool pooler: .* is a {kind} model, which has no pooler; give --text"):
        text_encoder(folders[kind], pool="pooler")


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "ernie"])
def test_the_pooler_sees_the_last_layer_alone(folders: dict[str, Path], kind: str) -> None:
    tokens = AutoTokenizer.from_pretrained(folders[kind])(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folders[kind])(**tokens).pooler_output
    for layer in ("last", LAYERS):
        (ours,) = text_encoder(folders[kind], pool="pooler", layer=layer).embed(TEXTS[:1], sequence=False)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    for layer in (LAYERS - 1, "last4"):
        with pytest.raises(InputError, match=f"--text-layer {layer}: --text-pool pooler was trained on the last layer"):
            text_encoder(folders[kind], pool="pooler", layer=layer)


def test_layers_that_are_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--audio-layer 6: .* has 5 layers; give 0 to 5, last or last4"):
        audio_encoder(folders["hubert"], layer=6)
    with pytest.raises(InputError, match=r"--text-layer last4: .* has 2 layers, fewer than 4; give 0 to 2, or last"):
        text_encoder(make_text(tmp_path / "bert", "bert", layers=2), layer="last4")


@pytest.mark.parametrize("kind", ["hubert", "bert"])
def test_layers_above_the_chosen_one_do_not_run(folders: dict[str, Path], kind: str) -> None:
    encoder = (audio_encoder if kind in AUDIO else text_encoder)(folders[kind], layer=2)
    ran: list[int] = []
    for number, layer in enumerate(encoder.build.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    if isinstance(encoder, AudioEncoder):
        encoder.encode(clips(5_000))
    else:
        encoder.embed(["out"], sequence=True)
    assert ran == [1, 2]
    assert choose_parameters(encoder, 1).startswith("training layer 2 of 5, the others are frozen")
    assert not any(layer._forward_pre_hooks for layer in encoder.build.layers)

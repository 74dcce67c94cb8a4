from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_wav2vec2
from torch import nn
from trees import write_wav

from cemobam_core.encoders import finetune
from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.finetune import TuningConfig, TuningData, choose_parameters, nt_xent, tune
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.errors import InputError

TONES = (200, 900)
SAID = ("I miss her so much", "this is wonderful joy")


@pytest.fixture
def audio_encoder(wav2vec2: Path) -> AudioEncoder:
    return AudioEncoder(find_pretrained(str(wav2vec2), "--audio-encoder"), max_seconds=1.0, steps=8)


@pytest.fixture
def text_encoder(bert: Path) -> TextEncoder:
    return TextEncoder(find_pretrained(str(bert), "--text-encoder"), pool="cls", max_tokens=16)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[TuningData, TuningData]:
    folder = tmp_path_factory.mktemp("tones")
    paths = [folder / f"{i}.wav" for i in range(36)]
    for i, path in enumerate(paths):
        write_wav(path, TONES[i % 2], seconds=0.3 + 0.02 * (i % 5), seed=i)
    labels = torch.arange(36) % 2
    return TuningData(items=paths[:24], labels=labels[:24]), TuningData(items=paths[24:], labels=labels[24:])


def texts(n: int, offset: int = 0) -> TuningData:
    names = ("anna", "ben", "carla", "david")
    rows = range(offset, offset + n)
    return TuningData(items=[f"{SAID[i % 2]} {names[i % 4]}" for i in rows], labels=torch.tensor([i % 2 for i in rows]))


def config(**changes: object) -> TuningConfig:
    return TuningConfig(**{"layers": 1, "epochs": 4, "lr": 1e-3, "batch_size": 8, **changes})  # type: ignore[arg-type]


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("objective", ["supervised", "contrastive"])
def test_in_audio_the_upper_layers_learn_and_nothing_else(
    audio_encoder: AudioEncoder, tones: tuple[TuningData, TuningData], tmp_path: Path, objective: str
) -> None:
    before = state(audio_encoder)
    tune(
        audio_encoder,
        *tones,
        num_classes=2,
        config=config(layers=2, objective=objective),
        checkpoint=tmp_path / "c.pt",
        name="text",
    )
    moved = changed(before, audio_encoder)
    assert moved
    assert all(name.startswith(("model.encoder.layers.1.", "model.encoder.layers.2.")) for name in moved)
    # All of these layers are trained: every matrix in them has changed.
    matrices = {
        n for n in before if n.startswith(("model.encoder.layers.1.", "model.encoder.layers.2.")) and before[n].ndim > 1
    }
    assert matrices <= moved


def test_the_large_models_last_norm_learns_with_them(tmp_path: Path, tones: tuple[TuningData, TuningData]) -> None:
    folder = make_wav2vec2(tmp_path / "large", norm="layer")
    encoder = AudioEncoder(find_pretrained(str(folder), "--audio-encoder"), max_seconds=1.0, steps=8)
    before = state(encoder)
    tune(encoder, *tones, num_classes=2, config=config(epochs=2), checkpoint=tmp_path / "c.pt", name="text")
    moved = changed(before, encoder)
    assert all(name.startswith(("model.encoder.layers.2.", "model.encoder.layer_norm.")) for name in moved)
    assert "model.encoder.layer_norm.weight" in moved


@pytest.mark.parametrize(("pool", "pooler_learns"), [("cls", False), ("pooler", True), ("mean", False)])
def test_in_text_the_pooler_learns_where_it_is_used(bert: Path, tmp_path: Path, pool: str, pooler_learns: bool) -> None:
    encoder = TextEncoder(find_pretrained(str(bert), "--text-encoder"), pool=pool, max_tokens=16)
    before = state(encoder)
    tune(encoder, texts(16), texts(8, 16), num_classes=2, config=config(), checkpoint=tmp_path / "c.pt", name="text")
    moved = changed(before, encoder)
    assert {name.split(".layer.")[1][0] for name in moved if ".layer." in name} == {"2"}
    assert any(name.startswith("model.pooler.") for name in moved) == pooler_learns
    assert not any("embeddings" in name for name in moved)


def test_what_learns_is_told(audio_encoder: AudioEncoder, text_encoder: TextEncoder) -> None:
    line = choose_parameters(text_encoder, 2)
    layer = sum(p.numel() for p in text_encoder.layers[0].parameters())
    everything = sum(p.numel() for p in text_encoder.parameters())
    shares = f"{2 * layer / 1e6:.3g} of {everything / 1e6:.3g} million parameters"
    assert line == f"training layers 2 to 3 of 3, the others are frozen: {shares}"
    assert choose_parameters(audio_encoder, 1).startswith("training layer 3 of 3, ")
    assert not any(p.requires_grad for p in audio_encoder.model.feature_extractor.parameters())


def test_a_tuned_encoder_tells_classes_apart_that_it_confused(
    text_encoder: TextEncoder, tones: tuple[TuningData, TuningData], audio_encoder: AudioEncoder, tmp_path: Path
) -> None:
    for name, encoder, data in (("text", text_encoder, (texts(32), texts(16, 32))), ("audio", audio_encoder, tones)):
        tuned = tune(
            encoder, *data, num_classes=2, config=config(layers=3, epochs=12, lr=3e-3, patience=12),
            checkpoint=tmp_path / f"{name}.pt", name="text",
        )  # fmt: skip
        assert tuned.val_losses[0] > 0.3
        assert min(tuned.val_losses) < 0.1


def test_the_weights_kept_are_those_of_the_best_epoch(text_encoder: TextEncoder, tmp_path: Path, monkeypatch) -> None:
    losses = iter([0.9, 0.5, 0.7, 0.6, 0.8, 0.1])
    kept: list[dict[str, torch.Tensor]] = []

    def validate(tuning: finetune._Tuning) -> float:
        kept.append(state(text_encoder))
        return next(losses)

    monkeypatch.setattr(finetune._Tuning, "_validate", validate)
    tuned = tune(
        text_encoder, texts(16), texts(8, 16), num_classes=2, config=config(epochs=9, patience=3),
        checkpoint=tmp_path / "c.pt", name="text",
    )  # fmt: skip
    assert tuned.val_losses == (0.9, 0.5, 0.7, 0.6, 0.8)  # three epochs without a better one
    assert tuned.best_epoch == 2
    assert not changed(kept[1], text_encoder)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("objective", ["supervised", "contrastive"])
@pytest.mark.parametrize("modality", ["audio", "text"])
def test_one_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    wav2vec2: Path, bert: Path, tones: tuple[TuningData, TuningData], tmp_path: Path, modality: str, objective: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fresh() -> AudioEncoder | TextEncoder:
        if modality == "audio":
            return AudioEncoder(find_pretrained(str(wav2vec2), "--audio-encoder"), max_seconds=0.25, steps=8)
        return TextEncoder(find_pretrained(str(bert), "--text-encoder"), pool="mean", max_tokens=16)

    def run(encoder: AudioEncoder | TextEncoder, checkpoint: str) -> finetune.Tuned:
        data = tones if modality == "audio" else (texts(20), texts(8, 20))
        how = config(objective=objective)
        return tune(encoder, *data, num_classes=2, config=how, checkpoint=tmp_path / checkpoint, name="text")

    whole = fresh()
    expected = run(whole, "whole.pt")

    validate = finetune._Tuning._validate
    calls = []

    def interrupted(tuning: finetune._Tuning) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise _Stopped
        return validate(tuning)

    monkeypatch.setattr(finetune._Tuning, "_validate", interrupted)
    with pytest.raises(_Stopped):
        run(fresh(), "stopped.pt")
    torch.manual_seed(12345)  # random numbers drawn in the meantime have no effect
    resumed = fresh()
    assert run(resumed, "stopped.pt") == expected
    assert len(calls) == 3 + 2  # epochs 3 and 4 only
    assert not changed(state(whole), resumed)


def test_tuning_leaves_the_global_generator_alone(text_encoder: TextEncoder, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tune(
        text_encoder,
        texts(16),
        texts(8, 16),
        num_classes=2,
        config=config(epochs=1),
        checkpoint=tmp_path / "c.pt",
        name="text",
    )
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"val_losses": []},
        {"val_losses": [0.5] * 1_000},
        {"val_losses": ["0.5"]},
        {"best": {}},
        {"best": {"x": torch.ones(1).expand(1 << 20, 1 << 20)}},
        {"optimizer": {}},
        b"damaged",
        "pipe",
    ],
)
def test_a_damaged_checkpoint_is_named(
    text_encoder: TextEncoder, tmp_path: Path, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"

    def run(epochs: int) -> finetune.Tuned:
        how = config(epochs=epochs)
        return tune(text_encoder, texts(16), texts(8, 16), num_classes=2, config=how, checkpoint=path, name="text")

    run(1)
    if isinstance(change, dict):
        torch.save({**torch.load(path, weights_only=True), **change}, path)
    elif change == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(change)
    with pytest.raises(InputError, match=r"c\.pt: (cannot be resumed .*; remove it to tune again|is a pipe)"):
        run(2)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(val_losses=["x"]),
        lambda state: state.update(val_losses=[1.0] * 100),
        lambda state: state["best"].update({next(iter(state["best"])): torch.ones(1).expand(2**20, 2**20)}),
        lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)),
        lambda state: state["optimizer"]["param_groups"][0].update(lr="x"),
        lambda state: state["schedule"].update(last_epoch=[]),
        lambda state: state.update(more=1),
    ],
)
def test_a_checkpoint_of_another_tuning_is_refused(text_encoder: TextEncoder, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "c.pt"
    how = {"num_classes": 2, "config": config(epochs=1), "checkpoint": path, "name": "text"}
    tuned = tune(text_encoder, texts(8), texts(8, 16), **how)
    assert tune(text_encoder, texts(8), texts(8, 16), **how) == tuned
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"c\.pt: cannot be resumed \(ValueError\); remove it to tune again"):
        tune(text_encoder, texts(8), texts(8, 16), **how)


def test_a_rate_that_is_too_high_is_told(text_encoder: TextEncoder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(nn.functional, "cross_entropy", lambda *_: torch.tensor(math.nan))
    with pytest.raises(InputError, match=r"--tune-lr 0\.001: the loss is no longer finite"):
        tune(
            text_encoder,
            texts(16),
            texts(8, 16),
            num_classes=2,
            config=config(),
            checkpoint=tmp_path / "c.pt",
            name="text",
        )


def test_nt_xent_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # Each view's partner has cosine 1 and the two others have cosine 0: -log(e^(1/t) / (e^(1/t) + 2)).
    t = 0.5
    expected = -math.log(math.exp(1 / t) / (math.exp(1 / t) + 2))
    assert float(nt_xent(first, second, t)) == pytest.approx(expected, rel=1e-6)


def test_nt_xent_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 7))
    views = [v / np.linalg.norm(v) for v in [*first, *second]]
    losses = []
    for i, view in enumerate(views):
        others = {j: math.exp(view @ other / 0.07) for j, other in enumerate(views) if j != i}
        losses.append(-math.log(others[(i + 5) % 10] / sum(others.values())))
    ours = nt_xent(torch.tensor(first), torch.tensor(second))
    assert float(ours) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_two_views_differ_and_are_a_second_long(audio_encoder: AudioEncoder) -> None:
    draws = np.random.default_rng(0)
    clip = np.arange(40_000, dtype=np.float32)
    views = [finetune._view(audio_encoder, clip, draws) for _ in range(2)]
    assert [len(view) for view in views] == [16_000, 16_000]
    assert views[0][0] != views[1][0]
    short = finetune._view(audio_encoder, clip[:5_000], draws)
    assert len(short) == 5_000


def test_a_view_of_a_text_is_never_empty(text_encoder: TextEncoder) -> None:
    draws = np.random.default_rng(0)
    views = {finetune._view(text_encoder, "one", draws) for _ in range(200)}
    assert views == {"one"}
    longer = [finetune._view(text_encoder, "a b c d e f g h i j", draws).split() for _ in range(400)]
    assert np.mean([len(words) for words in longer]) == pytest.approx(8.5, abs=0.2)

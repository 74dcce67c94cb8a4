from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_bert, make_wav2vec2

from cemobam_core import wall
from cemobam_core.encoders import loading, trial
from cemobam_core.encoders.builds import build_of
from cemobam_core.encoders.loading import load_encoder
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.errors import InputError

needs_limits = pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return make_bert(tmp_path / "encoder", layers=2)


def _load(folder: Path, modality: str = "text") -> Any:
    return load_encoder(modality, find_pretrained(str(folder), f"--{modality}-encoder"), FeatureSettings())


def _refusal(folder: Path, modality: str = "text") -> str:
    with pytest.raises(InputError) as raised:
        _load(folder, modality)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def _change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


@needs_limits
def test_an_encoder_that_crashes_its_reader_is_one_line(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, real = os.getpid(), loading._loaded

    def crashing(*given: Any) -> Any:
        return real(*given) if os.getpid() == parent else ctypes.string_at(0)

    monkeypatch.setattr(loading, "_loaded", crashing)
    said = _refusal(encoder)
    assert said.startswith(f"{encoder}: reading it crashes (SIGSEGV); ")


@needs_limits
def test_a_trial_is_not_repeated_for_the_same_files(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = trial.Wall
    monkeypatch.setattr(trial, "Wall", lambda *args, **given: tried.append(1) or real(*args, **given))
    first, again = _load(encoder), _load(encoder)
    assert len(tried) == 1
    torch.testing.assert_close(first.embed(["i love you"], sequence=False), again.embed(["i love you"], sequence=False))
    _change(encoder / "config.json", layer_norm_eps="x")
    assert "cannot" in _refusal(encoder)
    assert len(tried) == 2


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "extra/x.jinja"])
@pytest.mark.parametrize("what", ["a pipe", "a device"])
def test_a_folder_with_an_endless_file_is_refused_at_once(encoder: Path, name: str, what: str) -> None:
    path = encoder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path) if what == "a pipe" else path.symlink_to("/dev/zero")
    assert _refusal(encoder) == f"{path}: is {what}; give a regular file"


def _adapter(folder: Path) -> None:
    _change(folder / "adapter_config.json", base_model_name_or_path="/somewhere")


def _sparse_ids(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["love"] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def _elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    _change(folder / "model.safetensors.index.json", weight_map={"x": "../other.safetensors"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: _change(folder / "config.json", num_hidden_layers=10**9), "must be positive integers, at most"),
        (lambda folder: _change(folder / "config.json", hidden_size=10**9), "must be positive integers, at most"),
        (lambda folder: _change(folder / "config.json", vocab_size=10**9), "cannot be loaded as an encoder"),
        (lambda folder: _change(folder / "config.json", x="x" * 2**24), "has 17 MB, too many for a configuration"),
        (lambda folder: _change(folder / "config.json", attn_implementation="some/kernel"), "attn_implementation asks"),
        (lambda folder: _change(folder / "config.json", quantization_config={"quant_method": "x"}), "asks for code"),
        (
            lambda folder: _change(folder / "tokenizer_config.json", model_max_length="x"),
            "its tokenizer cannot be loaded",
        ),
        (lambda folder: _change(folder / "tokenizer_config.json", model_max_length=-5), "cannot encode"),
        (_sparse_ids, "its tokenizer has the token 1000000, its model"),
        (_adapter, "names another model, which would be loaded instead"),
        (_elsewhere, "names '../other.safetensors', which is not one of the weights in this folder"),
    ],
)
def test_odd_files_are_refused_in_one_line(encoder: Path, change: Callable[[Path], None], said: str) -> None:
    change(encoder)
    assert said in _refusal(encoder)


def test_a_front_end_without_stride_is_refused(tmp_path: Path) -> None:
    folder = make_wav2vec2(tmp_path / "encoder", layers=1)
    _change(folder / "config.json", conv_stride=[0, 0, 0])
    assert "cannot encode (RuntimeError: non-positive stride" in _refusal(folder, "audio")


@pytest.mark.parametrize("number", [-3, 10**400])
def test_positions_that_cannot_be_are_no_limit(encoder: Path, number: int) -> None:
    _change(encoder / "config.json", max_position_embeddings=number)
    found = find_pretrained(str(encoder), "--text-encoder")
    assert build_of("text", found).longest(found.config) is None


@needs_limits
def test_pickled_weights_of_terabytes_are_one_line(encoder: Path, tmp_path: Path) -> None:
    weights = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    torch.save(weights, encoder / "pytorch_model.bin")
    _load(encoder)
    copy = shutil.copytree(encoder, tmp_path / "copy")
    name = "encoder.layer.0.attention.self.query.weight"
    torch.save({**weights, name: torch.ones(1).expand(2**20, 2**20)}, copy / "pytorch_model.bin")
    assert _refusal(copy).startswith(str(copy))

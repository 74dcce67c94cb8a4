"""``cemobam encoders``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from runs import ROOT, cemobam_here
from tiny import make_audio, make_text, make_whisper

from cemobam_core.encoders.builds import builds


def test_the_list_has_every_type_and_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transformers", "huggingface_hub", "soundfile", "soxr", "sentencepiece"):
        monkeypatch.setitem(sys.modules, module, None)
    out, _ = cemobam_here("encoders")
    for build in builds():
        assert f"model_type  {', '.join(build.types)}\n" in out
        for example in build.examples:
            (line,) = (line for line in out.splitlines() if line.strip().startswith(example.name))
            assert f"{example.layers} layers" in line
            assert f"{example.millions:.1f} M" in line
    audio, _, text = out.partition("Text encoders")
    assert "openai/whisper" in audio
    assert "microsoft/deberta" in text


def facts(out: str) -> dict[str, str]:
    rows = [line.strip().split("  ", 1) for line in out.splitlines()[1:]]
    return {name: value.strip() for name, value in rows}


def test_a_folder_of_each_modality(tmp_path: Path) -> None:
    make_whisper(tmp_path / "whisper", layers=3)
    out, _ = cemobam_here("encoders", str(tmp_path / "whisper"))
    told = facts(out)
    assert out.splitlines()[0] == str(tmp_path / "whisper")
    assert told["model_type"] == "whisper"
    assert told["supported"] == "yes, for --audio-encoder"
    assert (told["layers"], told["embedding (E)"]) == ("3", "24")
    assert told["longest window"] == "3 s"
    assert told["--audio-layer"] == "0 to 3, last (default: last)"
    assert told["--tune-layers"].startswith("0 to 3, ")
    assert told["weights"].startswith("model.safetensors, 0.")
    make_text(tmp_path / "roberta", "roberta", layers=6)
    told = facts(cemobam_here("encoders", str(tmp_path / "roberta"))[0])
    assert told["longest text"] == "62 tokens"
    assert told["--text-pool"] == "cls, mean, pooler"
    assert told["--text-layer"] == "0 to 6, last, last4 (default: last)"
    assert told["--tune-layers"].endswith("(default: 4)")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "gpt2"}, "no: it is a decoder, in which a word does not see the words after it"),
        ({"model_type": "encodec"}, "no: it is a codec, made to compress sound"),
        ({"model_type": "wav2vec2", "add_adapter": True}, "no: it has an adapter, which shortens the sequence"),
        ({"model_type": "quokka"}, "no: the type is not known"),
    ],
)
def test_one_that_is_not_supported(tmp_path: Path, config: dict[str, object], reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = facts(cemobam_here("encoders", str(tmp_path))[0])
    assert told["supported"] == reason
    assert told["weights"].startswith("none in this folder")
    assert "whisper" in told["audio types"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "facebook/no-such-encoder",
            "the hub's cache on this machine does not have it; download it first (hf download",
        ),
        ("/no/such/folder", "no such folder, and not a hub id; give a folder"),
        (".", "no config.json in this folder; give a folder with an encoder"),
    ],
)
def test_one_that_is_not_here(in_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    import huggingface_hub

    original = huggingface_hub.snapshot_download

    def offline(*args: object, local_files_only: bool, **options: object) -> str:
        assert local_files_only, "the network was asked"
        return str(original(*args, local_files_only=True, cache_dir=in_folder / "cache", **options))  # type: ignore[call-overload]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    out, err = cemobam_here("encoders", name, status=2)
    (line,) = err.splitlines()
    assert line.startswith(f"cemobam encoders: error: {name}: ")
    assert said in line
    assert out == ""


def test_a_damaged_configuration(tmp_path: Path) -> None:
    make_audio(tmp_path, "hubert", layers=1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    out, err = cemobam_here("encoders", str(tmp_path), status=2)
    assert "num_hidden_layers and hidden_size must be positive integers, at most 1000 and 100000; use the" in err
    assert out == ""


def test_the_page_on_encoders_has_every_type_and_its_pools() -> None:
    rows = [line for line in (ROOT / "docs/encoders.md").read_text().splitlines() if line.startswith("| ")]
    for build in builds():
        (row,) = (line for line in rows if f"`{build.types[0]}`" in line)
        assert all(f"`{one}`" in row for one in build.types)
        assert ("`pooler`" in row) == getattr(build, "has_pooler", False)

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from cemobam_core.encoders.builds import build_of
from cemobam_core.encoders.pretrained import find_pretrained, load_model
from cemobam_core.errors import InputError


@pytest.fixture
def copied(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "encoder"))


def _size(folder: Path) -> tuple[int, int]:
    pretrained = find_pretrained(str(folder), "--text-encoder")
    return build_of("text", pretrained).size(pretrained)


def test_a_folder_is_known_by_what_it_holds_and_not_by_where_it_lies(bert: Path, copied: Path) -> None:
    first, second = (find_pretrained(str(folder), "--text-encoder") for folder in (bert, copied))
    assert first.revision == second.revision
    assert build_of("text", first).size(first) == (3, 32)
    weights = load_file(copied / "model.safetensors")
    weights["encoder.layer.0.attention.self.query.bias"] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert find_pretrained(str(copied), "--text-encoder").revision != first.revision


def test_without_network_the_error_says_which_folder_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError) as raised:
        find_pretrained("facebook/wav2vec2-base-960h", "--audio-encoder")
    line = str(raised.value)
    for part in (
        "facebook/wav2vec2-base-960h",
        "--audio-encoder FOLDER",
        "config.json",
        "model.safetensors",
        "hf download",
    ):
        assert part in line
    assert "\n" not in line


def test_what_the_hub_has_cached_is_used_without_asking_the_network(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = shutil.copytree(bert, tmp_path / "snapshots" / "86b5e0934494bd15c9632b12f734a8a67f723594")
    asked = []

    def cached(name: str, *, local_files_only: bool, **_: object) -> str:
        asked.append(local_files_only)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    found = find_pretrained("google-bert/bert-base-uncased", "--text-encoder")
    assert found.revision == "86b5e0934494bd15c9632b12f734a8a67f723594"
    assert asked == [True]


@pytest.mark.parametrize("name", ["/no/such/folder", "not a hub id"])
def test_neither_a_folder_nor_an_id(name: str) -> None:
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        find_pretrained(name, "--audio-encoder")


def test_a_folder_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        find_pretrained(str(tmp_path), "--audio-encoder")


@pytest.mark.parametrize(
    "config",
    ["{", "[]", "[" * 200_000, "{}", '{"model_type": 3}', '{"model_type": "bert", "num_hidden_layers": "many"}'],
)
def test_a_damaged_configuration(copied: Path, config: str) -> None:
    (copied / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"config\.json"):
        _size(copied)


def test_weights_that_are_missing_are_not_made_up(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'encoder\.layer\.1\.output\.dense\.weight'"):
        load_model(find_pretrained(str(copied), "--text-encoder"))


def test_weights_cut_short(copied: Path) -> None:
    os.truncate(copied / "model.safetensors", 5000)
    with pytest.raises(InputError, match="cannot be loaded as an encoder"):
        load_model(find_pretrained(str(copied), "--text-encoder"))


def test_a_configuration_of_fewer_layers_than_there_are_weights(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(InputError, match=r"does not describe the weights 'encoder\.layer\.2"):
        load_model(find_pretrained(str(copied), "--text-encoder"))
    (copied / "config.json").write_text(json.dumps({**config, "num_hidden_layers": -1}))
    with pytest.raises(InputError, match="num_hidden_layers and hidden_size must be positive integers"):
        _size(copied)


def test_what_has_no_say_does_not_change_the_revision(copied: Path) -> None:
    before = find_pretrained(str(copied), "--text-encoder").revision
    (copied / "all_results.json").write_text("{}")
    (copied / "README.md").write_text("an encoder")
    assert find_pretrained(str(copied), "--text-encoder").revision == before


def test_code_in_the_folder_is_not_run(copied: Path) -> None:
    trace = copied / "trace"
    (copied / "modeling_evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((copied / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}}
    (copied / "config.json").write_text(json.dumps(config))
    load_model(find_pretrained(str(copied), "--text-encoder"))
    assert not trace.exists()


def test_pickled_weights_cannot_run_code(copied: Path) -> None:
    trace = copied / "trace"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(find_pretrained(str(copied), "--text-encoder"))
    assert not trace.exists()

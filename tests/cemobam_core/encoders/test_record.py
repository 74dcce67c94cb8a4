from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from cemobam_core.encoders.pretrained import find_pretrained, hash_of
from cemobam_core.encoders.record import EncoderRecord, EncodersRecord, recorded
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.errors import InputError

COMMIT, NEWER = "86b5e0934494bd15c9632b12f734a8a67f723594", "1b2c3d4e5f60718293a4b5c6d7e8f90123456789"


@pytest.fixture
def hub(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with two snapshots. The file ``now`` names the current one."""
    for commit in (COMMIT, NEWER):
        shutil.copytree(bert, tmp_path / "snapshots" / commit)
    (tmp_path / "now").write_text(COMMIT)

    def cached(name: str, **_: object) -> str:
        return str(tmp_path / "snapshots" / (tmp_path / "now").read_text())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    return tmp_path


def test_an_encoder_of_the_hub_is_known_by_its_commit_and_a_copy_by_its_hash(hub: Path, bert: Path) -> None:
    record = EncoderRecord.of(find_pretrained("google-bert/bert-base-uncased", "--text-encoder"))
    assert (record.name, record.revision) == ("google-bert/bert-base-uncased", COMMIT)
    assert record.hash == hash_of(bert)
    assert record.find("--text-encoder").revision == COMMIT
    copy = Path(shutil.copytree(bert, hub / "copy"))
    assert record.find("--text-encoder", str(copy)).folder == copy
    (copy / "pytorch_model.bin").write_bytes(b"not read beside model.safetensors")
    assert record.find("--text-encoder", str(copy)).folder == copy
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    with pytest.raises(InputError, match=rf"copy: is sha256:\w+, but the model was trained with .* {record.hash}; "):
        record.find("--text-encoder", str(copy))
    (hub / "now").write_text(NEWER)
    with pytest.raises(InputError, match=rf"--text-encoder .*: is {NEWER}, but the model was .* {COMMIT}; give that"):
        record.find("--text-encoder")


def test_a_folder_is_recorded_with_its_whole_path(
    bert: Path, wav2vec2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bert, tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    record = EncoderRecord.of(find_pretrained("bert", "--text-encoder"), tuned_from="google-bert/bert-base-uncased")
    assert record.name == str((tmp_path / "bert").resolve())
    monkeypatch.chdir("/")
    assert record.find("--text-encoder").folder == Path(record.name)
    shutil.rmtree(tmp_path / "bert")
    with pytest.raises(InputError, match=r"bert: the encoder of the model is no longer there; .* --text-encoder DIR"):
        record.find("--text-encoder")


def test_a_record_is_read_as_it_was_written(bert: Path, wav2vec2: Path) -> None:
    audio, text = (EncoderRecord.of(find_pretrained(str(folder), "--x")) for folder in (wav2vec2, bert))
    settings = FeatureSettings(level="sequence", audio_steps=5, max_seconds=3.0, protocol="speaker")
    written = EncodersRecord(audio=audio, text=text, settings=settings).to_json()
    content = recorded({"encoders": written, "torch": "2"})
    read = EncodersRecord.of(content)
    assert (read.audio, read.text) == (audio, text)
    assert read.settings == FeatureSettings(level="sequence", audio_steps=5, max_seconds=3.0)
    assert recorded({}) is None
    for damaged in ("{", "[]", "[" * 100_000, json.dumps({**json.loads(written), "audio": 3})):
        assert recorded({"encoders": damaged}) is None

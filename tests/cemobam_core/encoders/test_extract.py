from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from tiny import make_bert, make_text, make_whisper
from trees import make_iemocap, make_manifest, write_wav

from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.iemocap import IEMOCAP
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.split_file import write_split_file
from cemobam_core.corpora.splits import load_folds, split_utterances, splits_fingerprint
from cemobam_core.encoders.audio import AudioEncoder, averaged_down
from cemobam_core.encoders.extract import made_before, make_features
from cemobam_core.encoders.finetune import Tuned
from cemobam_core.encoders.settings import FeatureSettings, Recipe
from cemobam_core.encoders.sound import read_audio
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet
from cemobam_core.rows import Rows

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iemocap(tmp_path_factory.mktemp("IEMOCAP_full_release"))


@pytest.fixture
def recipe(corpus_folder: Path, wav2vec2: Path, bert: Path) -> Make:
    def make(root: Path = corpus_folder, **changes: object) -> Recipe:
        given = {"audio_encoder": str(wav2vec2), "text_encoder": str(bert), "tune_layers": 0, **changes}
        raw = read_corpus(IEMOCAP, root) if root.is_dir() else read_manifest(root, name="mine")
        return Recipe.of(raw, FeatureSettings(**given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def own_copy(corpus_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus_folder, tmp_path / "IEMOCAP_full_release"))


def quietly(_: str) -> None:
    pass


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the utterances that each encoder embeds from now on."""
    counts = {"AudioEncoder": 0, "TextEncoder": 0}
    for kind in (AudioEncoder, TextEncoder):
        original = kind.embed

        def embed(self, items, *, sequence, _original=original, _name=kind.__name__):
            counts[_name] += len(items)
            return _original(self, items, sequence=sequence)

        monkeypatch.setattr(kind, "embed", embed)
    return counts


def test_each_utterance_has_its_own_embeddings_label_speaker_and_session(recipe: Make, tmp_path: Path) -> None:
    ours = recipe()
    make_features(ours, tmp_path / "out", say=quietly)
    (fold,) = load_folds(tmp_path / "out")
    assert [len(features) for features in fold.splits.values()] == [64, 8, 8]
    by_id = {u.id: u for u in ours.corpus.utterances}
    audio = AudioEncoder(ours.audio, max_seconds=20.0, steps=32)
    text = TextEncoder(ours.text, pool="cls", max_tokens=128)
    seen = set()
    for features in fold.splits.values():
        assert features.class_names == ("anger", "happiness", "neutral", "sadness")
        for row, key in enumerate(features.utterance_ids):
            u = by_id[key]
            seen.add(key)
            assert features.class_names[int(features.labels[row])] == u.label
            assert features.speakers is not None and features.speakers[row] == u.speaker
            assert features.sessions is not None and features.sessions[row] == u.session
            expected = audio.embed([read_audio(u.audio)], sequence=False)[0][0]
            torch.testing.assert_close(features.audio[row], expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(
                features.text[row], text.embed([u.text], sequence=False)[0][0], atol=1e-5, rtol=0
            )
    assert seen == set(by_id)


def test_large_splits_are_written_in_shards_and_in_float16_if_asked(recipe: Make, tmp_path: Path) -> None:
    usual, ours = (recipe(level="sequence", audio_steps=4, **more) for more in ({}, {"dtype": "float16"}))
    assert "dtype" not in usual.facts and usual.signature != ours.signature
    assert usual.signature == recipe(level="sequence", audio_steps=4, dtype="float32").signature
    make_features(usual, tmp_path / "one", say=quietly)
    out = tmp_path / "many"
    out.mkdir()
    (out / "train-00000-of-00002.safetensors").touch()  # as a stopped attempt with another size may leave it
    with pytest.raises(InputError, match="contains features that this command did not make"):
        made_before(ours, out)
    (out / ".parts").mkdir()
    make_features(ours, out, shard_bytes=50_000, say=quietly)
    files = json.loads((out / "features.json").read_text())["files"]
    assert set(files) == {path.name for path in out.glob("*.safetensors")}
    counts = [len([file for file in files if file.startswith(split)]) for split in ("train", "val", "test")]
    assert counts[0] > 2 and all((out / file).stat().st_size < 60_000 for file in files)
    (fold,), (other,) = load_folds(out), load_folds(tmp_path / "one")
    for name, part in fold.splits.items():
        assert isinstance(part.audio, Rows)
        assert part.utterance_ids == other.splits[name].utterance_ids
        for modality in ("audio", "text"):
            exact = getattr(other.splits[name], modality)
            assert torch.equal(getattr(part, modality)[:], exact.half().float())
    (out / files[1]).unlink()
    with pytest.raises(InputError, match=rf"{files[1]}: is missing; restore it, or remove"):
        made_before(ours, out)


def test_a_wrong_encoder_is_told_before_any_audio_is_read(
    recipe: Make, tmp_path: Path, bert: Path, wav2vec2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> float:
        raise AssertionError("audio was read")

    monkeypatch.setattr("cemobam_core.encoders.extract.seconds_of", refuse)
    with pytest.raises(
        InputError, match=r"--audio-encoder .*: this bert model is not supported .*give one of these types"
    ):
        make_features(recipe(audio_encoder=str(bert)), tmp_path / "out", say=quietly)
    with pytest.raises(InputError, match=r"--text-encoder .*: this wav2vec2 model is not supported"):
        make_features(recipe(text_encoder=str(wav2vec2)), tmp_path / "out", say=quietly)
    mute = shutil.copytree(bert, tmp_path / "bert", ignore=shutil.ignore_patterns("vocab.txt", "tokenizer*"))
    with pytest.raises(InputError, match=r"--text-encoder .*: no tokenizer in"):
        make_features(recipe(text_encoder=str(mute)), tmp_path / "out", say=quietly)


def test_texts_are_counted_in_utterances(recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    bars = capsys.readouterr().err
    assert "encoding text: 100%" in bars
    assert re.search(r"encoding text: 100%.* 80/80 .*utterance/s", bars)


def test_what_they_are_made_from_is_written_down(recipe: Make, tmp_path: Path, wav2vec2: Path) -> None:
    ours = recipe()
    make_features(ours, tmp_path / "out", say=quietly)
    made = json.loads((tmp_path / "out" / "features.json").read_text())
    assert made["signature"] == ours.signature
    assert made["made_from"]["audio_revision"] == ours.audio.revision
    assert made["made_from"]["corpus_fingerprint"] == ours.corpus.fingerprint()
    assert made["encoders"]["audio"] == str(wav2vec2)
    assert any("test speakers are also in train" in line for line in made["leaks"])
    assert any("test sentences are also in train" in line for line in made["leaks"])
    provenance = FeatureSet.load(tmp_path / "out" / "val.safetensors").provenance
    assert provenance["signature"] == ours.signature
    assert provenance["transformers"]
    table = pd.read_csv(tmp_path / "out" / "utterances.csv")
    assert len(table) == 80
    assert set(table["scenario"]) == {"improvised", "scripted"}
    assert table["seconds"].between(0.29, 0.61).all()
    assert table[["valence", "activation", "dominance", "start", "end"]].notna().all(axis=None)
    assert not Path(table["audio"][0]).is_absolute()
    assert not (tmp_path / "out" / ".parts").exists()


def test_what_is_there_is_not_made_again(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")}
    counts = counted(monkeypatch)
    said: list[str] = []
    make_features(recipe(), tmp_path / "out", say=said.append)
    assert counts == {"AudioEncoder": 0, "TextEncoder": 0}
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert "made before" in said[0]
    assert any("also in train" in line for line in said)


@pytest.mark.parametrize(
    "changes",
    [
        {"level": "sequence"},
        {"max_seconds": 5.0},
        {"max_tokens": 12},
        {"text_pool": "mean"},
        {"tune_layers": 1},
        {"protocol": "speaker"},
        {"split_seed": 1},
    ],
)
def test_features_made_otherwise_are_not_overwritten(recipe: Make, tmp_path: Path, changes: dict[str, object]) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    before = (tmp_path / "out" / "train.safetensors").read_bytes()
    with pytest.raises(InputError, match="contains features made with other settings") as raised:
        make_features(recipe(**changes), tmp_path / "out", say=quietly)
    assert next(iter(changes)) in str(raised.value)
    assert (tmp_path / "out" / "train.safetensors").read_bytes() == before


def test_the_signature_forgets_what_has_no_effect(recipe: Make) -> None:
    plain = recipe().signature
    assert recipe(max_tokens=500).signature == plain  # the encoder's limit is 64
    assert recipe(audio_steps=8).signature == plain  # used for sequences only
    assert recipe(objective="contrastive", tune_epochs=3).signature == plain  # nothing is tuned
    assert recipe(protocol="session-val", split_seed=4).signature == recipe(protocol="session-val").signature
    assert recipe(level="sequence", audio_steps=8).signature != recipe(level="sequence").signature
    assert recipe(tune_layers=1, tune_epochs=3).signature != recipe(tune_layers=1).signature
    assert recipe(tune_layers=None).signature == recipe(tune_layers=3).signature  # the encoder has three layers


def test_a_changed_corpus_or_encoder_is_noticed(recipe: Make, own_copy: Path, tmp_path: Path) -> None:
    first = recipe(own_copy)
    assert first.signature == recipe().signature  # the location of the corpus does not matter
    write_wav(first.corpus.utterances[0].audio, 300, seconds=2.0)
    assert recipe(own_copy).signature != first.signature
    assert recipe(text_encoder=str(make_bert(tmp_path / "other", seed=9))).signature != recipe().signature


def test_features_of_unknown_making_are_not_overwritten(recipe: Make, tmp_path: Path) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    (tmp_path / "out" / "features.json").unlink()
    with pytest.raises(InputError, match="did not make"):
        make_features(recipe(), tmp_path / "out", say=quietly)


def test_a_damaged_record_is_named(recipe: Make, tmp_path: Path) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    (tmp_path / "out" / "features.json").write_text('{"signature"')
    with pytest.raises(InputError, match=r"features\.json: is damaged"):
        made_before(recipe(), tmp_path / "out")


@pytest.mark.parametrize("tune_layers", [0, 1])
def test_an_extraction_that_was_stopped_goes_on_where_it_was(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune_layers: int
) -> None:
    from cemobam_core.encoders import extract

    monkeypatch.setattr(extract, "_PART_SECONDS", 4.0)  # about eight clips
    ours = recipe(tune_layers=tune_layers, tune_epochs=2)
    make_features(ours, tmp_path / "whole", say=quietly)

    original, calls = AudioEncoder.embed, []

    def stopped(self, items, *, sequence):
        calls.append(len(items))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, items, sequence=sequence)

    with monkeypatch.context() as patched:
        patched.setattr(AudioEncoder, "embed", stopped)
        with pytest.raises(KeyboardInterrupt):
            make_features(ours, tmp_path / "stopped", say=quietly)
    assert made_before(ours, tmp_path / "stopped") is None
    done = sum(calls[:3])
    parts = sorted((tmp_path / "stopped" / ".parts").rglob("audio/*.safetensors"))
    assert len(parts) == 3
    os.truncate(parts[1], 100)  # a truncated file
    counts = counted(monkeypatch)
    make_features(ours, tmp_path / "stopped", say=quietly)
    assert counts["AudioEncoder"] == 80 - (done - calls[1])
    for split in ("train", "val", "test"):
        ours_, whole = (FeatureSet.load(tmp_path / name / f"{split}.safetensors") for name in ("stopped", "whole"))
        assert ours_.fingerprint() == whole.fingerprint()  # bit for bit
        assert ours_.utterance_ids == whole.utterance_ids


def test_sequences_have_masks_and_mean_the_same(recipe: Make, tmp_path: Path) -> None:
    make_features(recipe(text_pool="mean"), tmp_path / "utterance", say=quietly)
    make_features(recipe(level="sequence", audio_steps=4), tmp_path / "sequence", say=quietly)
    audio = AudioEncoder(recipe().audio, max_seconds=20.0, steps=4)
    by_id = {u.id: u for u in recipe().corpus.utterances}
    for split in ("train", "val", "test"):
        one, many = (FeatureSet.load(tmp_path / name / f"{split}.safetensors") for name in ("utterance", "sequence"))
        assert many.audio.shape[1:] == (4, 24)
        assert many.text_mask is not None and many.audio_mask is not None
        assert many.text_mask.sum(dim=1).min() < many.text.shape[1] == 21  # the longest transcript's tokens
        assert one.utterance_ids == many.utterance_ids
        assert (many.text[~many.text_mask] == 0).all()
        weight = many.text_mask[..., None].float()
        torch.testing.assert_close((many.text * weight).sum(1) / weight.sum(1), one.text, atol=1e-5, rtol=0)
        for row, key in enumerate(many.utterance_ids):
            frames = audio.encode([read_audio(by_id[key].audio)])[0]
            torch.testing.assert_close(many.audio[row], averaged_down(frames, 4), atol=1e-5, rtol=0)
            torch.testing.assert_close(one.audio[row], frames.mean(dim=0), atol=1e-5, rtol=0)


def test_folds_share_what_is_not_tuned(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    make_features(recipe(protocol="session-val"), tmp_path / "out", say=quietly)
    assert counts == {"AudioEncoder": 80, "TextEncoder": 80}
    folds = load_folds(tmp_path / "out")
    assert len(folds) == 5
    for i, fold in enumerate(folds):
        assert set(fold.test.sessions or ()) == {str(i + 1)}
        assert not {*(fold.train.sessions or ())} & {*(fold.test.sessions or ()), *(fold.val.sessions or ())}


def test_each_fold_is_tuned_on_its_own_train_split(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cemobam_core.encoders import extract

    used: dict[str, tuple[set[object], set[object]]] = {}

    def noted(encoder, train, val, *, name, **_):
        used[name] = {*train.items}, {*val.items}
        return Tuned(val_losses=(1.0,), best_epoch=1)

    monkeypatch.setattr(extract, "tune", noted)
    make_features(recipe(protocol="session", tune_layers=1), tmp_path / "out", say=quietly)
    assert len(used) == 10
    by_id = {u.id: u for u in recipe().corpus.utterances}
    for i, fold in enumerate(load_folds(tmp_path / "out")):
        for modality, pick in (("audio", lambda u: u.audio), ("text", lambda u: u.text)):
            train, val = used[f"{modality} fold_{i}"]
            assert train == {pick(by_id[key]) for key in fold.train.utterance_ids}
            assert val == {pick(by_id[key]) for key in fold.val.utterance_ids}
    tested = {by_id[key].audio for key in load_folds(tmp_path / "out")[0].test.utterance_ids}
    assert not tested & (used["audio fold_0"][0] | used["audio fold_0"][1])


def test_the_tuned_encoder_is_kept_and_makes_the_same_features(recipe: Make, tmp_path: Path) -> None:
    make_features(recipe(tune_layers=2, tune_epochs=2, tune_lr=1e-3), tmp_path / "tuned", say=quietly)
    encoders = tmp_path / "tuned" / "encoders"
    again = recipe(audio_encoder=str(encoders / "audio"), text_encoder=str(encoders / "text"))
    make_features(again, tmp_path / "again", say=quietly)
    make_features(recipe(), tmp_path / "plain", say=quietly)
    tuned, same, plain = (FeatureSet.load(tmp_path / name / "test.safetensors") for name in ("tuned", "again", "plain"))
    for modality in ("audio", "text"):
        torch.testing.assert_close(getattr(tuned, modality), getattr(same, modality), atol=1e-5, rtol=0)
        assert (getattr(tuned, modality) - getattr(plain, modality)).abs().max() > 1e-3


def test_whisper_and_modernbert_tuned_below_their_last_layers(recipe: Make, tmp_path: Path) -> None:
    layers = {"audio_layer": 2, "text_layer": "last4", "text_pool": "mean"}
    theirs = {
        "audio_encoder": str(make_whisper(tmp_path / "whisper", layers=3)),
        "text_encoder": str(make_text(tmp_path / "modernbert", "modernbert", layers=4)),
    }
    tuning = {"tune_layers": 1, "tune_epochs": 1, "tune_lr": 1e-2}
    make_features(recipe(**theirs, **layers, **tuning), tmp_path / "tuned", say=quietly)
    folders = {f"{one}_encoder": str(tmp_path / "tuned" / "encoders" / one) for one in ("audio", "text")}
    make_features(recipe(**folders, **layers), tmp_path / "again", say=quietly)
    make_features(recipe(**theirs, **layers), tmp_path / "plain", say=quietly)
    make_features(recipe(**theirs, text_pool="mean"), tmp_path / "last", say=quietly)
    tuned, same, plain, last = (
        FeatureSet.load(tmp_path / name / "test.safetensors") for name in ("tuned", "again", "plain", "last")
    )
    for modality in ("audio", "text"):
        torch.testing.assert_close(getattr(tuned, modality), getattr(same, modality), atol=1e-5, rtol=0)
        assert (getattr(tuned, modality) - getattr(plain, modality)).abs().max() > 1e-3
        assert (getattr(last, modality) - getattr(plain, modality)).abs().max() > 1e-3
    assert json.loads(tuned.provenance["audio_layer"]) == 2
    assert json.loads(tuned.provenance["text_layer"]) == "last4"


def _spoil(path: Path, how: str) -> None:
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        os.truncate(path, path.stat().st_size - 1000)
    elif how == "silent":
        soundfile.write(path, np.zeros(8000), 16_000)
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize("how", ["empty", "truncated", "silent", "missing"])
def test_a_bad_file_is_left_out_and_reported(recipe: Make, own_copy: Path, tmp_path: Path, how: str) -> None:
    bad = recipe(own_copy).corpus.utterances[7]
    _spoil(bad.audio, how)
    said: list[str] = []
    make_features(recipe(own_copy), tmp_path / "out", max_bad=0.02, say=said.append)
    (fold,) = load_folds(tmp_path / "out")
    assert sum(len(features) for features in fold.splits.values()) == 79
    assert not any(bad.id in features.utterance_ids for features in fold.splits.values())
    assert any(line.startswith("1 utterances could not be used") for line in said)
    assert any(bad.id in line for line in said)
    assert pd.read_csv(tmp_path / "out" / "bad.csv")["id"].tolist() == [bad.id]


def test_too_many_bad_files_are_refused_before_anything_is_encoded(
    recipe: Make, own_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = recipe(own_copy)
    for u in ours.corpus.utterances[:3]:
        _spoil(u.audio, "truncated")
    counts = counted(monkeypatch)
    with pytest.raises(InputError, match=r"3 of 80 utterances cannot be used, more than --max-bad 0\.03") as raised:
        make_features(recipe(own_copy), tmp_path / "out", max_bad=0.03, say=quietly)
    assert "is cut short" in str(raised.value)
    assert counts == {"AudioEncoder": 0, "TextEncoder": 0}
    assert len(pd.read_csv(tmp_path / "out" / "bad.csv")) == 3
    make_features(recipe(own_copy), tmp_path / "out", max_bad=0.05, say=quietly)


def test_a_file_that_goes_away_between_check_and_encoding_ends_nothing(
    recipe: Make, own_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cemobam_core.encoders import extract

    ours = recipe(own_copy)
    checked = extract._Extraction._check_audio

    def check(self) -> None:
        checked(self)
        ours.corpus.utterances[3].audio.unlink()

    monkeypatch.setattr(extract._Extraction, "_check_audio", check)
    make_features(ours, tmp_path / "out", max_bad=0.02, say=quietly)
    (fold,) = load_folds(tmp_path / "out")
    assert sum(len(features) for features in fold.splits.values()) == 79


def test_embeddings_that_are_not_finite_are_left_out(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TextEncoder.embed

    def embed(self, items, *, sequence):
        rows = original(self, items, sequence=sequence)
        return [
            r * float("nan") if "Carla" in text and "furious" in text else r
            for text, r in zip(items, rows, strict=True)
        ]

    monkeypatch.setattr(TextEncoder, "embed", embed)
    said: list[str] = []
    make_features(recipe(), tmp_path / "out", max_bad=0.2, say=said.append)
    assert any("its text embedding is not finite" in line for line in said)


def test_long_short_and_stereo_clips_go_through(recipe: Make, own_copy: Path, tmp_path: Path) -> None:
    clips = recipe(own_copy).corpus.utterances
    write_wav(clips[0].audio, 300, seconds=600)
    write_wav(clips[1].audio, 300, seconds=0.05)
    write_wav(clips[2].audio, 300, seconds=0.001)
    write_wav(clips[3].audio, 300, seconds=0.5, channels=2)
    make_features(recipe(own_copy), tmp_path / "out", say=quietly)
    (fold,) = load_folds(tmp_path / "out")
    assert sum(len(features) for features in fold.splits.values()) == 80


def test_two_at_once_are_refused(recipe: Make, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(InputError, match="another run is making"):
        make_features(recipe(), tmp_path / "out", say=quietly)


def test_a_manifest_that_says_its_splits(recipe: Make, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "mine")
    frame = pd.read_csv(manifest)
    frame["split"] = [("train", "train", "dev", "test")[i % 4] for i in range(len(frame))]
    frame.to_csv(manifest, index=False)
    make_features(recipe(manifest, protocol="official"), tmp_path / "out", say=quietly)
    (fold,) = load_folds(tmp_path / "out")
    assert set(fold.val.utterance_ids) == set(frame[frame["split"] == "dev"]["id"])


def test_utterances_in_no_split_are_not_encoded(
    recipe: Make, own_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = recipe(own_copy).corpus
    (fold,) = split_utterances(corpus)
    where = {u.id: name for name, part in fold.splits.items() for u in part}
    left = [u for u in fold.train if u.label == "anger"][:3]
    left[0].audio.write_bytes(b"")  # it is not read
    path = tmp_path / "splits.csv"
    write_split_file(path, [u.id for u in corpus.utterances], [{**where, **{u.id: "" for u in left}}])
    counts, said = counted(monkeypatch), []
    make_features(recipe(own_copy, split_file=path), tmp_path / "out", say=said.append)
    assert counts == {"AudioEncoder": 77, "TextEncoder": 77}
    assert "left out: 3 of 80 utterances, which are in no split" in said
    made = json.loads((tmp_path / "out" / "features.json").read_text())
    assert made["utterances"] == 77 and not made["bad"]
    fingerprint = splits_fingerprint(load_folds(tmp_path / "out"))
    assert said[-1] == f"features: {tmp_path / 'out'}, made; fingerprint of the splits {fingerprint}"
    assert made["splits"] == {
        "fingerprint": fingerprint,
        "folds": [{"train": 61, "val": 8, "test": 8, "left out": 3}],
    }
    make_features(recipe(own_copy, split_file=path), tmp_path / "out", say=said.append)
    assert any(line.endswith(f"made before; fingerprint of the splits {fingerprint}") for line in said)


def test_the_content_of_a_split_file_is_in_the_signature(recipe: Make, tmp_path: Path) -> None:
    corpus = recipe().corpus
    for i, name in enumerate(("one", "moved", "other")):
        (fold,) = split_utterances(corpus, "random:80/10/10", i // 2)
        where = {u.id: split for split, part in fold.splits.items() for u in part}
        write_split_file(tmp_path / f"{name}.csv", [u.id for u in corpus.utterances], [where])
    one, moved, other = (recipe(split_file=tmp_path / f"{name}.csv") for name in ("one", "moved", "other"))
    assert one.signature == moved.signature != other.signature
    assert recipe(split_file=tmp_path / "one.csv", protocol="speaker", split_seed=4).signature == one.signature
    assert "split_file" not in recipe().facts and "one.csv" not in str(one.facts)


def test_a_class_that_loses_its_last_utterance_to_a_bad_file_is_named(
    recipe: Make, own_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fold,) = split_utterances(recipe(own_copy).corpus)
    for u in fold.test:
        if u.label == "sadness":
            soundfile.write(u.audio, np.zeros(u.audio.stat().st_size // 2 - 22), 16_000)
    counts = counted(monkeypatch)
    with pytest.raises(InputError, match="no usable utterance of class 'sadness' is left in the test split") as raised:
        make_features(recipe(own_copy), tmp_path / "out", max_bad=0.5, say=quietly)
    assert "unusable in all splits: 2" in str(raised.value)
    assert counts == {"AudioEncoder": 0, "TextEncoder": 0}  # known before anything is encoded
    assert len(pd.read_csv(tmp_path / "out" / "bad.csv")) == 2
    assert not (tmp_path / "out" / "features.json").exists()


@pytest.mark.parametrize("says_splits", [False, True])
def test_the_table_of_utterances_says_where_they_are(recipe: Make, tmp_path: Path, says_splits: bool) -> None:
    manifest = make_manifest(tmp_path / "mine")
    if says_splits:  # the default is not used
        frame = pd.read_csv(manifest)
        frame["split"] = "train"
        frame.to_csv(manifest, index=False)
    make_features(recipe(manifest, protocol="session"), tmp_path / "out", say=quietly)
    table = pd.read_csv(tmp_path / "out" / "utterances.csv")
    for i, fold in enumerate(load_folds(tmp_path / "out")):
        for name, features in fold.splits.items():
            there = table[(table["fold"] == i) & (table["split"] == name)]
            assert tuple(there["id"]) == features.utterance_ids
            assert tuple(there["seconds"]) == features.seconds


def test_an_encoder_is_not_written_over_by_what_is_tuned_from_it(recipe: Make, tmp_path: Path, bert: Path) -> None:
    mine = Path(shutil.copytree(bert, tmp_path / "out" / "encoders" / "text"))
    before = (mine / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"--text-encoder .*: is inside"):
        make_features(recipe(text_encoder=str(mine), tune_layers=1), tmp_path / "out", say=quietly)
    assert (mine / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda made: made.pop("leaks"), "is damaged"),
        (lambda made: made.update(made_from=3), "is damaged"),
        (lambda made: made.update(files=None), "is damaged"),
        (lambda made: made.update(leaks=["\x1b[2J"]), "is damaged"),
        (lambda made: made.update(leaks=["\ud800"]), "is damaged"),
    ],
)
def test_a_record_that_is_no_record(recipe: Make, tmp_path: Path, how, said: str) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    path = tmp_path / "out" / "features.json"
    made = json.loads(path.read_text())
    how(made)
    path.write_text(json.dumps(made))
    with pytest.raises(InputError, match=said):
        make_features(recipe(), tmp_path / "out", say=quietly)


def test_a_split_that_went_missing_is_named(recipe: Make, tmp_path: Path) -> None:
    make_features(recipe(), tmp_path / "out", say=quietly)
    (tmp_path / "out" / "val.safetensors").unlink()
    with pytest.raises(InputError, match=r"val\.safetensors: is missing"):
        make_features(recipe(), tmp_path / "out", say=quietly)


def test_names_that_are_no_utf8(recipe: Make, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"IEMOCAP_caf\xe9")
    make_iemocap(root)
    wav = next((root / "Session1" / "sentences" / "wav").glob("*impro*/Ses*.wav"))
    odd = wav.with_name(os.fsdecode(b"Ses01F_impro01_caf\xe9.wav"))
    wav.rename(odd)
    make_features(recipe(root), tmp_path / "out", max_bad=0.1, say=quietly)
    assert len(pd.read_csv(tmp_path / "out" / "bad.csv")) == 1
    assert "caf" in json.loads((tmp_path / "out" / "features.json").read_text())["corpus_root"]


@pytest.mark.parametrize(("tune_layers", "size"), [(0, "24k"), (0, "60k"), (1, "40k"), (1, "160k"), (1, "300k")])
def test_a_full_disk_is_told_and_the_rest_is_kept(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune_layers: int, size: str
) -> None:
    """Use a file system of a few kB, if this machine allows one."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            make_features(recipe(tune_layers=tune_layers, tune_epochs=1), small / "out", say=quietly)
        assert not (small / "out" / "features.json").exists()
        subprocess.run(["mount", "-o", "remount,size=10m", small], check=True)
        make_features(recipe(tune_layers=tune_layers, tune_epochs=1), small / "out", say=quietly)
        assert len(load_folds(small / "out")[0].train) == 64
        assert {p.name for p in (small / "out").iterdir()} >= {"train.safetensors", "features.json"}
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_recipes_know_how_many_layers_there_are(recipe: Make, tmp_path: Path) -> None:
    assert recipe(tune_layers=None).tuned == (3, 3)
    deep = recipe(tune_layers=None, text_encoder=str(make_bert(tmp_path / "deep", layers=6)))
    assert deep.tuned == (3, 4)
    with pytest.raises(InputError, match=r"--tune-layers 4: .* has 3 layers; give at most 3"):
        recipe(tune_layers=4)
    assert replace(deep, tuned=(1, 1)).facts["tune_layers"] == [1, 1]

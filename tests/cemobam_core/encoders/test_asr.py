from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import make_transcriber
from trees import make_manifest, write_wav

from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.splits import load_folds
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.encoders import asr
from cemobam_core.encoders.asr import Transcriber, load_transcriber
from cemobam_core.encoders.extract import made_before, make_features
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.settings import FeatureSettings, Recipe
from cemobam_core.errors import InputError
from study.commands import cemobam


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_transcriber(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def unwritten(tmp_path_factory: pytest.TempPathFactory) -> RawCorpus:
    """A corpus without transcripts."""
    corpus = read_manifest(make_manifest(tmp_path_factory.mktemp("mine"), per_class=3), name="mine")
    return replace(corpus, utterances=tuple(replace(u, text="") for u in corpus.utterances))


def recipe_of(corpus: RawCorpus, wav2vec2: Path, bert: Path, **settings: Any) -> Recipe:
    given = {"audio_encoder": str(wav2vec2), "text_encoder": str(bert), "tune_layers": 0, **settings}
    return Recipe.of(corpus, FeatureSettings(**given))


def noise(seconds: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)


def test_a_clip_has_a_transcript_that_only_it_decides(whisper: Path, tmp_path: Path) -> None:
    transcriber = load_transcriber(find_pretrained(str(whisper), "--asr"))
    text = transcriber.transcribe(noise(1))
    assert set(text.split()) <= {"i", "you", "hate", "love", "miss", "joy"}
    assert text == " ".join(text.split()) != ""
    assert transcriber.transcribe(noise(1)) == text
    write_wav(tmp_path / "a.wav", 300)
    assert transcriber.read(tmp_path / "a.wav")


@pytest.mark.parametrize(("seconds", "windows"), [(29.9, 1), (30, 1), (31, 2), (61, 3)])
def test_long_clips_are_heard_in_windows(
    whisper: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, windows: int
) -> None:
    lengths = []
    original = Transcriber._window

    def window(self: Transcriber, clip: Any) -> str:
        lengths.append(len(clip))
        return original(self, clip)

    monkeypatch.setattr(Transcriber, "_window", window)
    text = load_transcriber(find_pretrained(str(whisper), "--asr")).transcribe(noise(seconds))
    assert len(lengths) == windows
    assert sum(lengths) == int(16_000 * seconds)
    assert max(lengths) - min(lengths) <= 1
    assert len(text.split()) >= windows


def test_a_clip_without_words_is_an_error(tmp_path: Path) -> None:
    deaf = load_transcriber(find_pretrained(str(make_transcriber(tmp_path / "deaf", silent=True)), "--asr"))
    write_wav(tmp_path / "a.wav", 300)
    with pytest.raises(InputError, match=r"a\.wav: .*deaf hears no words in it; write the transcript yourself"):
        deaf.read(tmp_path / "a.wav")


def test_other_models_and_broken_ones_are_refused(bert: Path, whisper: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--asr .*bert models are not supported; give a Whisper model"):
        load_transcriber(find_pretrained(str(bert), "--asr"))
    make_transcriber(tmp_path / "broken")
    (tmp_path / "broken/model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be loaded as a Whisper model"):
        load_transcriber(find_pretrained(str(tmp_path / "broken"), "--asr"))
    make_transcriber(tmp_path / "mute")
    (tmp_path / "mute/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"--asr .*mute: no tokenizer in"):
        load_transcriber(find_pretrained(str(tmp_path / "mute"), "--asr"))
    (tmp_path / "mute/tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be loaded as a Whisper model"):
        load_transcriber(find_pretrained(str(tmp_path / "mute"), "--asr"))
    make_transcriber(tmp_path / "short", layers=2)
    config = json.loads((tmp_path / "short/config.json").read_text())
    (tmp_path / "short/config.json").write_text(json.dumps({**config, "decoder_layers": 3}))
    with pytest.raises(InputError, match=r"its weights lack .*; use the complete model"):
        load_transcriber(find_pretrained(str(tmp_path / "short"), "--asr"))


def test_a_corpus_without_transcripts_is_transcribed(
    unwritten: RawCorpus, wav2vec2: Path, bert: Path, whisper: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(unwritten, wav2vec2, bert, asr=str(whisper))
    make_features(recipe, tmp_path / "out", say=lambda _: None)
    (fold,) = load_folds(tmp_path / "out")
    transcriber = load_transcriber(find_pretrained(str(whisper), "--asr"))
    audio = {u.id: u.audio for u in unwritten.utterances}
    test = fold.test
    assert test.texts == tuple(transcriber.read(audio[key]) for key in test.utterance_ids)
    table = pd.read_csv(tmp_path / "out/utterances.csv").set_index("id")
    assert table.loc[list(test.utterance_ids), "text"].tolist() == list(test.texts)
    revision = find_pretrained(str(whisper), "--asr").revision
    assert json.loads(test.provenance["asr_revision"]) == revision
    made = json.loads((tmp_path / "out/features.json").read_text())
    assert (made["asr"], made["made_from"]["asr_revision"]) == (str(whisper), revision)
    # the same command finds its features again, and another Whisper model is another recipe
    assert made_before(recipe_of(unwritten, wav2vec2, bert, asr=str(whisper)), tmp_path / "out")
    other = recipe_of(unwritten, wav2vec2, bert, asr=str(make_transcriber(tmp_path / "other", seed=9)))
    with pytest.raises(InputError, match="made with other settings"):
        made_before(other, tmp_path / "out")


def test_a_manifest_may_have_no_transcripts(
    wav2vec2: Path, bert: Path, whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_manifest(tmp_path / "mine", per_class=3)
    pd.read_csv(manifest).drop(columns="text").to_csv(manifest, index=False)
    encoders = ["--audio-encoder", str(wav2vec2), "--text-encoder", str(bert), "--tune-layers", "0"]
    given = ["features", "--dataset", "mine", "--manifest", str(manifest), *encoders, "--out", str(tmp_path / "out")]
    assert cemobam(given) == 2
    assert f"{manifest}: has no transcripts, which a manifest has in its column text; add" in capsys.readouterr().err
    assert cemobam([*given, "--asr", str(whisper)]) == 0
    captured = capsys.readouterr()
    assert "transcribing: 100%" in captured.err
    assert pd.read_csv(tmp_path / "out/utterances.csv")["text"].str.len().min() > 0


def test_an_interrupted_transcription_is_resumed(
    unwritten: RawCorpus, wav2vec2: Path, bert: Path, whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cemobam_core.encoders.extract._PART_SECONDS", 4.0)
    recipe = recipe_of(unwritten, wav2vec2, bert, asr=str(whisper))
    make_features(recipe, tmp_path / "whole", say=lambda _: None)
    read, heard = Transcriber.read, []

    def stopped(self: Transcriber, path: Path) -> str:
        if len(heard) == 30:
            raise KeyboardInterrupt
        heard.append(path)
        return read(self, path)

    monkeypatch.setattr(Transcriber, "read", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_features(recipe, tmp_path / "out", say=lambda _: None)
    kept = sum(len(json.loads(path.read_text())["texts"]) for path in tmp_path.glob("out/.parts/*/transcripts/*.json"))
    assert 0 < kept <= 30
    again = []

    def counted(self: Transcriber, path: Path) -> str:
        again.append(path)
        return read(self, path)

    monkeypatch.setattr(Transcriber, "read", counted)
    make_features(recipe, tmp_path / "out", say=lambda _: None)
    assert len(again) == len(unwritten.utterances) - kept
    (whole,), (made,) = (load_folds(tmp_path / folder) for folder in ("whole", "out"))
    for name, split in made.splits.items():
        assert split.fingerprint() == whole.splits[name].fingerprint()
        assert split.texts == whole.splits[name].texts


def test_clips_without_words_are_left_out(
    unwritten: RawCorpus, wav2vec2: Path, bert: Path, whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = unwritten.utterances[5]
    transcribe = Transcriber.transcribe
    silence = len(asr.read_audio(mute.audio))

    def heard(self: Transcriber, clip: Any) -> str:
        return "" if len(clip) == silence else transcribe(self, clip)

    monkeypatch.setattr(Transcriber, "transcribe", heard)
    recipe = recipe_of(unwritten, wav2vec2, bert, asr=str(whisper))
    with pytest.raises(InputError, match=r"1 of 54 utterances cannot be used.*hears no words"):
        make_features(recipe, tmp_path / "out", say=lambda _: None)
    make_features(recipe, tmp_path / "out", max_bad=0.1, say=lambda _: None)
    (fold,) = load_folds(tmp_path / "out")
    assert mute.id not in {key for split in fold.splits.values() for key in split.utterance_ids}
    assert pd.read_csv(tmp_path / "out/bad.csv")["id"].tolist() == [mute.id]


def test_transcripts_are_asked_for_where_they_are_missing(
    unwritten: RawCorpus, wav2vec2: Path, bert: Path, whisper: Path
) -> None:
    with pytest.raises(InputError, match=r"has no transcripts, .*give --asr MODEL"):
        recipe_of(unwritten, wav2vec2, bert)
    written = replace(unwritten, utterances=tuple(replace(u, text="x") for u in unwritten.utterances))
    with pytest.raises(InputError, match=r"--asr .*whisper.*: .* has transcripts; leave the option out"):
        recipe_of(written, wav2vec2, bert, asr=str(whisper))
    plain = recipe_of(written, wav2vec2, bert)
    assert "asr_revision" not in plain.facts

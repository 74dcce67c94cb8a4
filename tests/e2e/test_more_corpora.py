"""Corpora beside IEMOCAP and ESD, as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from more_trees import make_crema_d, make_emobox, make_meld, make_msp_improv, make_ravdess, write_rows
from runs import cemobam_here
from tiny import make_bert, make_wav2vec2

from cemobam_core import FeatureSet
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.encoders.extract import make_features
from cemobam_core.encoders.settings import FeatureSettings, Recipe
from study.commands.request import Request
from study.commands.run import build_parser
from study.ledger.ledger import Ledger


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoders")
    audio, text = make_wav2vec2(folder / "wav2vec2"), make_bert(folder / "bert")
    return ["--audio-encoder", str(audio), "--text-encoder", str(text), "--tune-layers", "0", "--out", "features"]


def test_the_clips_of_meld_in_its_own_splits(in_folder: Path, encoders: list[str]) -> None:
    tree = make_meld(in_folder / "MELD.Raw")
    out, _ = cemobam_here(
        "features", "--dataset", "meld", "--data-root", str(tree), "--split-protocol", "official", *encoders
    )
    assert "left out, known faults of the release: train_dia125_utt3 (its clip is broken)" in out
    assert not Path("features/bad.csv").exists()
    rows = pd.read_csv("features/utterances.csv")
    assert rows["split"].value_counts().to_dict() == {"test": 21, "train": 20, "val": 20}
    assert rows["seconds"].between(0.19, 0.26).all()
    features = FeatureSet.load(Path("features/test.safetensors"))
    assert features.class_names == ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def make_crema(folder: Path) -> Path:
    return make_crema_d(folder, actors=(1001, 1002, 1003), per_class=4)


def make_two_actors(folder: Path) -> Path:
    return make_ravdess(folder, actors=(1, 2))


@pytest.mark.parametrize(
    ("name", "make"), [("crema-d", make_crema), ("ravdess", make_two_actors), ("MSP-IMPROV", make_msp_improv)]
)
def test_features_of(in_folder: Path, encoders: list[str], name: str, make) -> None:
    tree = make(in_folder / "corpus")
    out, _ = cemobam_here("features", "--dataset", name, "--data-root", str(tree), *encoders)
    assert "features: features, made" in out
    rows = pd.read_csv("features/utterances.csv")
    assert rows["text"].notna().all() and rows["speaker"].notna().all() and rows["script"].notna().all()


@pytest.mark.parametrize("given", ["EmoBox/data/cafe", "EmoBox/data/cafe/cafe.jsonl"])
def test_a_corpus_of_emobox_has_no_transcripts(in_folder: Path, encoders: list[str], given: str) -> None:
    make_emobox(in_folder / "EmoBox")
    _, err = cemobam_here("features", "--dataset", "cafe", "--manifest", given, *encoders, status=2)
    assert f"{given}: has no transcripts" in err and "give --asr MODEL, a Whisper model" in err
    assert err.count("\n") == 1
    assert not Path("features").exists()


def test_parts_of_a_long_file_become_features(in_folder: Path, encoders: list[str]) -> None:
    folder = make_emobox(in_folder / "EmoBox", per_class=12)
    path = folder / "cafe.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [{"start_time": i / 2000, "end_time": i / 2000 + 0.02, "wav": rows[0]["wav"]} for i in range(len(rows))]
    write_rows(path, [row | part for row, part in zip(rows, parts, strict=True)])
    corpus = read_manifest(folder, name="cafe")
    said = replace(corpus, utterances=tuple(replace(u, text=f"I said {u.id}.") for u in corpus.utterances))
    settings = FeatureSettings(audio_encoder=encoders[1], text_encoder=encoders[3], tune_layers=0)
    make_features(Recipe.of(said, settings), in_folder / "features")
    made = pd.read_csv("features/utterances.csv")
    assert (made["seconds"] == 0.02).all()
    assert (made["end"] - made["start"]).round(3).eq(0.02).all()
    assert made["audio"].unique().tolist() == ["../../downloads/cafe/Colère/00 (c).wav"]
    features = FeatureSet.load(Path("features/train.safetensors"))
    assert len(features.audio.flatten(1).unique(dim=0)) == len(features)  # each is another part


@pytest.mark.parametrize(
    ("given", "metric"),
    [
        ("--dataset meld", "wf1"),
        ("--dataset meld --select-by wa", "wa"),
        ("--dataset iemocap", "wa"),
        ("--dataset mine", "wa"),
        ("--dataset iemocap --profile released", "wf1"),
    ],
)
def test_a_data_set_may_have_a_metric_of_its_own(given: str, metric: str) -> None:
    request = Request.of(build_parser().parse_args(given.split()))
    assert request.plan(Ledger("sqlite:///:memory:", name="x")).select_by == metric

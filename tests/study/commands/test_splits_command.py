"""``cemobam splits``: how utterances are split, as a table and as a file for others."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import cemobam_here
from trees import make_esd, make_iemocap, make_manifest

from cemobam_core import FeatureSet

SHORT = (0.01, 0.01)


def fingerprint(out: str) -> str:
    found = re.search(r"fingerprint ([0-9a-f]{16})$", out, flags=re.MULTILINE)
    assert found, out
    return found[1]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_splits_of_a_corpus_are_shown_and_travel(in_folder: Path) -> None:
    tree = make_iemocap(in_folder / "IEMOCAP_full_release", per_class=10, seconds=SHORT)
    corpus = ["--dataset", "iemocap", "--data-root", str(tree)]
    out, _ = cemobam_here("splits", *corpus, "--split-protocol", "session", "--split-seed", "3", "--to", "s.csv")
    assert out.splitlines()[1].startswith("200 of 5531 utterances: 50 of 1103 anger")
    table = [line.split() for line in out.splitlines()]
    assert ["fold", "split", "utterances", "anger", "happiness", "neutral", "sadness", "speakers"] in table
    assert [row for row in table if row and row[0] == "4"] == [
        ["4", "train", "128", "32", "32", "32", "32", "8"],
        ["4", "val", "32", "8", "8", "8", "8", "8"],
        ["4", "test", "40", "10", "10", "10", "10", "2"],
    ]
    assert "0 of 10 test speakers are also in train" in out
    assert "10 of 10 test scripts are also in train (impro01, script01" in out
    assert "splits: s.csv, written" in out
    rows = rows_of(Path("s.csv"))
    assert list(rows[0]) == ["id", "fold", "split"] and len(rows) == 5 * 200

    again, _ = cemobam_here("splits", *corpus, "--split-file", "s.csv", "--to", "t.csv")
    assert fingerprint(again) == fingerprint(out)
    assert Path("t.csv").read_bytes() == Path("s.csv").read_bytes()
    other, _ = cemobam_here("splits", *corpus, "--split-protocol", "session")
    assert fingerprint(other) != fingerprint(out)


def test_utterances_that_are_left_out_are_counted_and_stay_in_the_file(in_folder: Path) -> None:
    manifest = make_manifest(in_folder / "mine")
    frame = rows_of(manifest)
    for i, row in enumerate(frame):
        row["text"] = "Words that all say" if i % 12 == 0 else f"Words {i}"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(frame[0]))
        writer.writeheader()
        writer.writerows(frame)
    corpus = ["--dataset", "mine", "--manifest", str(manifest)]
    out, _ = cemobam_here("splits", *corpus, "--split-protocol", "session-val+text", "--to", "s.csv")
    assert (
        "left out: 9 of 108 train utterances with a sentence in val or test and 9 of 108 val utterances with a" in out
    )
    assert ["0", "left", "out", "6"] in [line.split() for line in out.splitlines()]
    assert "0 of 108 test sentences are also in train" in out
    assert sum(row["split"] == "" for row in rows_of(Path("s.csv"))) == 18
    again, _ = cemobam_here("splits", *corpus, "--split-file", "s.csv")
    assert "left out: 18 of 324 utterances, which are in no split (over 3 folds)" in again
    assert fingerprint(again) == fingerprint(out)


def test_the_corpus_s_own_splits_are_the_default(in_folder: Path) -> None:
    esd = make_esd(in_folder / "ESD", layout="split", per_class=5, seconds=SHORT)
    out, _ = cemobam_here("splits", "--dataset", "esd", "--data-root", str(esd))
    assert "split by official: train 150 (60%), val 50 (20%), test 50 (20%) utterances" in out
    manifest = make_manifest(in_folder / "mine")
    out, _ = cemobam_here("splits", "--dataset", "mine", "--manifest", str(manifest))
    assert "split by official" in out


def test_the_splits_of_features(in_folder: Path, make_features: Callable[..., FeatureSet]) -> None:
    features = make_features(80, texts=tuple(f"Sentence {i}" for i in range(80)))
    features.save(Path("all.safetensors"))
    out, _ = cemobam_here("splits", "--features", "all.safetensors", "--to", "s.csv")
    assert "split by random:80/10/10: train 64 (80%), val 8 (10%), test 8 (10%)" in out
    assert "0 of 8 test sentences are also in train" in out
    assert re.search(r"^ +0 +test +8 +2 +2 +2 +2 +unknown$", out, flags=re.MULTILINE)
    where = {row["id"]: row["split"] for row in rows_of(Path("s.csv"))}
    for name in ("train", "val", "test"):
        rows = [i for i, key in enumerate(features.utterance_ids) if where[key] == name]
        features.select(rows, source=name).save(Path(f"folder/{name}.safetensors"))
    folder, _ = cemobam_here("splits", "--features", "folder")
    assert fingerprint(folder) == fingerprint(out)


@pytest.mark.parametrize("name", ["all.safetensors", "folder"])
def test_each_feature_file_is_loaded_once(
    in_folder: Path, make_features: Callable[..., FeatureSet], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for file in ("all", "folder/train", "folder/val", "folder/test"):
        make_features(40, name=Path(file).name).save(Path(f"{file}.safetensors"))
    read, loaded = FeatureSet._read.__func__, []  # type: ignore[attr-defined]

    def counted(cls: type[FeatureSet], path: Path, *more: object) -> FeatureSet:
        loaded.append(path)
        return read(cls, path, *more)

    monkeypatch.setattr(FeatureSet, "_read", classmethod(counted))
    cemobam_here("splits", "--features", name, "--to", "s.csv")
    assert len(loaded) == len(set(loaded)) == (1 if name == "all.safetensors" else 3)
    assert len(rows_of(Path("s.csv"))) == (40 if name == "all.safetensors" else 120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no data given; give --data-root DIR or --manifest FILE with --dataset for a raw corpus, or --features"),
        (["--manifest", "m.csv"], "without --dataset: name the data set"),
        (["--features", "f", "--manifest", "m.csv"], "without --dataset"),
        (["--features", "nowhere"], "nowhere: no such file or folder"),
        (["--features", "all.safetensors", "--to", "s.txt"], "--to s.txt: splits are written as csv; give a name that"),
        (["--features", "all.safetensors", "--split-protocol", "speaker-3"], "speaker-3 needs; add them to the file's"),
        (
            ["--features", "all.safetensors", "--split-protocol", "session-val", "--split-seed", "1"],
            "--split-seed 1: the split protocol session-val is not random for this corpus; leave the option out",
        ),
        (
            ["--features", "all.safetensors", "--split-file", "s.csv", "--split-seed", "1"],
            "--split-seed 1 with --split-file: the file has the splits; leave one of them out",
        ),
        (
            ["--features", "all.safetensors", "--split-file", "none.csv"],
            "none.csv: cannot be read (No such file or directory); check the path",
        ),
        (
            ["--features", "all.safetensors", "--split-file", "s.csv"],
            "s.csv: 79 of 80 utterances of all.safetensors are not listed (u_001, u_002, u_003 and 76 more); list",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(
    in_folder: Path, make_features: Callable[..., FeatureSet], arguments: list[str], message: str
) -> None:
    make_features(80).save(Path("all.safetensors"))
    Path("s.csv").write_text("id,split\nu_000,train\n")
    _, err = cemobam_here("splits", *arguments, status=2)
    assert message in err and err.count("\n") == 1
    assert sorted(path.name for path in in_folder.iterdir()) == ["all.safetensors", "s.csv"]


def test_labels_are_those_of_the_file(in_folder: Path, make_features: Callable[..., FeatureSet]) -> None:
    labels = torch.tensor([0] * 20 + [1] * 30 + [2] * 40 + [3] * 10)
    make_features(100, labels=labels, speakers=("a", "b") * 50).save(Path("all.safetensors"))
    out, _ = cemobam_here("splits", "--features", "all.safetensors")
    assert re.search(r"^ +0 +train +80 +16 +24 +32 +8 +2$", out, flags=re.MULTILINE)

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from iemocap_counts import true_size

from cemobam_core import FeatureSet, InputError
from cemobam_core.corpora.split_file import SplitFile, write_split_file
from cemobam_core.corpora.splits import load_folds, split, split_utterances, splits_fingerprint
from cemobam_core.corpora.utterances import BadUtterance, RawCorpus, Utterance

Make = Callable[..., FeatureSet]

SAID = ["train", "train", "val", "val", "test", "test", "", "train"]


def corpus_of(*ids: str) -> RawCorpus:
    utterances = [
        Utterance(id=name, audio=Path("a.wav"), text=f"Text {i}", label="ab"[i % 2]) for i, name in enumerate(ids)
    ]
    return RawCorpus(
        name="mine", title="mine", root=Path("corpus"), class_names=("a", "b"), utterances=tuple(utterances)
    )


CORPUS = corpus_of(*(f"u{i}" for i in range(8)))
LINES = [f"u{i},{said}" for i, said in enumerate(SAID)]


def written(path: Path, *lines: str, header: str = "id,split") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def ids_of(corpus: RawCorpus, path: Path) -> list[list[list[str]]]:
    return [
        [[u.id for u in part] for part in fold.splits.values()]
        for fold in split_utterances(corpus, SplitFile.read(path))
    ]


def test_an_utterance_goes_where_the_file_says(tmp_path: Path) -> None:
    said: list[str] = []
    path = written(tmp_path / "splits.csv", *LINES)
    split_utterances(CORPUS, SplitFile.read(path), say=said.append)
    assert ids_of(CORPUS, path) == [[["u0", "u1", "u7"], ["u2", "u3"], ["u4", "u5"]]]
    assert said[0].startswith(f"split by {path}: train 3 (43%), val 2 (29%), test 2 (29%) utterances; fingerprint ")
    assert said[1] == "left out: 1 of 8 utterances, which are in no split"


@pytest.mark.parametrize(
    ("header", "lines", "encoding"),
    [
        ("ID; Split;speaker", [f"{line.replace(',', ';')};x" for line in LINES], "utf-8-sig"),
        ("split\tid", [f"{said}\tu{i}" for i, said in enumerate(SAID)], "utf-8"),
        ("id,split", [f" {line.replace('val', 'Dev').replace('train', 'training')} " for line in LINES], "utf-8"),
        ("id,split,text", [f'{line},"one\n2, three"' for line in LINES], "utf-8"),
    ],
)
def test_other_forms_are_the_same(tmp_path: Path, header: str, lines: list[str], encoding: str) -> None:
    plain = written(tmp_path / "plain.csv", *LINES)
    other = tmp_path / "other.csv"
    other.write_text("\r\n".join([header, "", *lines]), encoding=encoding)
    assert ids_of(CORPUS, other) == ids_of(CORPUS, plain)


def test_folds_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["fold_10", "fold_9", "fold_1"]
    lines = [f"u{i},{name},{SAID[(i + 2 * k) % 6]}" for k, name in enumerate(names) for i in range(8)]
    path = written(tmp_path / "splits.csv", *lines, header="id,fold,split")
    folds = ids_of(CORPUS, path)
    assert [fold[2] for fold in folds] == [["u0", "u1", "u6", "u7"], ["u2", "u3"], ["u4", "u5"]]


def test_the_content_alone_identifies_a_file(tmp_path: Path) -> None:
    one = SplitFile.read(written(tmp_path / "one.csv", *LINES))
    two = SplitFile.read(written(tmp_path / "two.csv", *reversed(LINES)))
    other = SplitFile.read(written(tmp_path / "three.csv", *LINES[1:], "u0,val"))
    assert one.digest == two.digest != other.digest


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            LINES[:5],
            r"splits\.csv: 3 of 8 utterances of corpus are not listed \(u5, u6, u7\); list them, with an empty sp",
        ),
        (
            [*LINES, "v,train"],
            r"splits\.csv line 10: utterance 'v' is not in corpus; correct the id, or delete the line",
        ),
        ([*LINES, "u3,train"], r"splits\.csv line 10: utterance 'u3' is already in line 5; list it once in a fold"),
        (
            [*LINES[:7], "u7,dave"],
            r"splits\.csv line 9: split 'dave' of utterance 'u7' is unknown; write train, val or",
        ),
        ([*LINES[:7], ",val"], "line 9: id is empty; fill it in, or delete the line"),
        ([*LINES[:7], "u7"], "line 9: 1 values for 2 columns; give one for each"),
        ([*LINES[:7], '"u7,val'], "line 9: cannot be read as CSV .*; fix the quotes"),
        (
            [line.replace("val", "") for line in LINES],
            "no utterance of corpus is in the split val; list some in each of",
        ),
        (
            [line.replace("u4,test", "u4,") for line in LINES],
            r"splits\.csv: leaves no utterance of class 'a' in the test split \(1 utterances\); .* list some of",
        ),
        ([], "lists no utterances; give one per line, with id, fold, split"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        split_utterances(CORPUS, SplitFile.read(written(tmp_path / "splits.csv", *lines)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,split\nu0,train\n", "line 1: no column 'id'; it has 'name', 'split'; required are id, split"),
        (b"id,fold\nu0,1\n", "no column 'split'"),
        (b"id,split,id\nu0,train,u1\n", "several columns 'id'"),
        (b"", "no column 'id'; it has nothing"),
        (b"id,fold,split\nu0,,train\n", "line 2: utterance 'u0' has no fold; fill it in, or leave the column out"),
        (b"id,split\n\xff\xfe,train\n", r"not UTF-8 \(byte 9\); save it in UTF-8"),
        (b"\x80\x04\x95cposix\nsystem\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        SplitFile.read(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: cannot be read \(No such file or directory\)"):
        SplitFile.read(tmp_path / "nowhere.csv")


def test_an_utterance_that_the_corpus_cannot_use_may_be_listed(tmp_path: Path) -> None:
    bad = replace(CORPUS, utterances=CORPUS.utterances[:7], bad=(BadUtterance(id="u7", reason="no WAV file"),))
    assert ids_of(bad, written(tmp_path / "splits.csv", *LINES)) == [[["u0", "u1"], ["u2", "u3"], ["u4", "u5"]]]


def test_a_folder_of_the_authors_metadata_leaves_out_what_it_does_not_list(tmp_path: Path) -> None:
    for name, numbers in {"train": (0, 1, 7), "val": (2, 3), "test": (4, 5)}.items():
        rows = [f"wavs/u{i}.wav,Well {i},{i % 2}" for i in numbers]
        written(tmp_path / f"MINE_metadata_{name}.csv", *rows, header="audio_file,raw_text,label")
    said: list[str] = []
    file = SplitFile.read(tmp_path)
    split_utterances(CORPUS, file, say=said.append)
    assert ids_of(CORPUS, tmp_path) == [[["u0", "u1", "u7"], ["u2", "u3"], ["u4", "u5"]]]
    assert said[1] == "left out: 1 of 8 utterances, which are in no split"
    written(tmp_path / "MINE_metadata_val.csv", "wavs/u0.wav,Well,0", header="audio_file,raw_text,label")
    with pytest.raises(
        InputError, match=r"_test|_val|_train.*line 2: utterance 'u0' is already in line 2 of .*MINE_met"
    ):
        split_utterances(CORPUS, SplitFile.read(tmp_path))
    (tmp_path / "MINE_metadata_val.csv").unlink()
    with pytest.raises(InputError, match="a folder without train, val and test"):
        SplitFile.read(tmp_path)


def test_one_feature_file_is_split_by_a_file(make_features: Make, tmp_path: Path) -> None:
    features = make_features(48)
    features.save(tmp_path / "all.safetensors")
    lines = [f"{key},{('train', 'val', 'test')[i // 16]}" for i, key in enumerate(features.utterance_ids)]
    path = written(tmp_path / "splits.csv", *lines)
    (fold,) = load_folds(tmp_path / "all.safetensors", split_file=path)
    assert torch.equal(fold.test.audio, features.audio[32:])
    for idle in ({"protocol": "speaker"}, {"split_seed": 1}):
        with pytest.raises(InputError, match="with --split-file: the file has the splits; leave one of them out"):
            load_folds(tmp_path / "all.safetensors", split_file=path, **idle)
    with pytest.raises(InputError, match="line 2: utterance 'v' is not in u"):
        split(features, SplitFile.read(written(tmp_path / "splits.csv", "v,train")))


def test_a_protocol_and_the_file_of_its_splits_have_one_fingerprint(tmp_path: Path) -> None:
    corpus = true_size()
    for protocol in ("session", "speaker-10", "text"):
        folds = split_utterances(corpus, protocol, 3)
        splits = [{u.id: name for name, part in fold.splits.items() for u in part} for fold in folds]
        write_split_file(tmp_path / "splits.csv", [u.id for u in corpus.utterances], splits)
        again = split_utterances(corpus, SplitFile.read(tmp_path / "splits.csv"))
        assert again == folds
        assert splits_fingerprint(again) == splits_fingerprint(folds)
    assert splits_fingerprint(folds) != splits_fingerprint(split_utterances(corpus, "text", 4))


_IDS = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip() and text.isprintable()),
    min_size=6,
    unique_by=str.strip,
)


@given(ids=_IDS, folds=st.integers(1, 3), seed=st.integers(0, 9), left=st.sets(st.integers(6, 20)))
def test_any_ids_go_through_a_file(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], folds: int, seed: int, left: set[int]
) -> None:
    corpus = corpus_of(*sorted(ids))
    splits = [
        {
            u.id: ("train", "val", "test")[(i // 2 + k + seed) % 3]
            for i, u in enumerate(corpus.utterances)
            if i not in left
        }
        for k in range(folds)
    ]
    path = tmp_path_factory.mktemp("splits") / "splits.csv"
    write_split_file(path, [u.id for u in corpus.utterances], splits)
    again = split_utterances(corpus, SplitFile.read(path))
    assert [{u.id: name for name, part in fold.splits.items() for u in part} for fold in again] == splits
    with path.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 1 + folds * len(ids)


@pytest.mark.parametrize("bad", ["\ud800", "one\rtwo", "\0"])
def test_an_id_that_cannot_be_printed_is_not_written(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InputError, match="contains a character that cannot be printed; correct it"):
        write_split_file(tmp_path / "splits.csv", ["a", bad], [{}])
    assert not list(tmp_path.iterdir())

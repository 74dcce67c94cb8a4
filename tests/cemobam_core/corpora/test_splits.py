from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trees import make_esd, make_iemocap, make_manifest

from cemobam_core import FeatureSet, InputError
from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.esd import read_esd
from cemobam_core.corpora.iemocap import COUNTS, IEMOCAP
from cemobam_core.corpora.leaks import leaks
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.splits import Assignment, assign, load_folds, split, split_utterances
from cemobam_core.corpora.utterances import RawCorpus, Utterance

Make = Callable[..., FeatureSet]


def test_random_is_stratified_and_drawn_by_the_seed(make_features: Make) -> None:
    labels = torch.tensor([0] * 100 + [1] * 60 + [2] * 30 + [3] * 10)
    features = make_features(200, labels=labels)
    (fold,) = split(features, "random:80/10/10", 0)
    assert {name: s.labels.bincount().tolist() for name, s in fold.splits.items()} == {
        "train": [80, 48, 24, 8],
        "val": [10, 6, 3, 1],
        "test": [10, 6, 3, 1],
    }
    ids = [u for s in fold.splits.values() for u in s.utterance_ids]
    assert sorted(ids) == sorted(features.utterance_ids)
    row = features.utterance_ids.index(fold.val.utterance_ids[4])
    assert torch.equal(fold.val.audio[4], features.audio[row])
    assert split(features, "random:80/10/10", 0)[0].test.utterance_ids == fold.test.utterance_ids
    assert split(features, "random:80/10/10", 1)[0].test.utterance_ids != fold.test.utterance_ids
    (other,) = split(features, "random:50/20/30")
    assert [len(s) for s in other.splits.values()] == [100, 40, 60]


def test_by_speaker_no_speaker_is_in_two_splits(make_features: Make) -> None:
    speakers = tuple(f"s{i // 4 % 10}" for i in range(400))
    (fold,) = split(make_features(400, speakers=speakers), "speaker", 3)
    seen = [set(s.speakers or ()) for s in fold.splits.values()]
    assert [len(s) for s in seen] == [8, 1, 1]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_by_session_each_is_the_test_once(make_features: Make) -> None:
    sessions = tuple(f"Ses0{1 + i // 4 % 5}" for i in range(200))
    folds = split(make_features(200, sessions=sessions), "session")
    assert len(folds) == 5
    assert [set(fold.test.sessions or ()) for fold in folds] == [{f"Ses0{i}"} for i in range(1, 6)]
    for fold in folds:
        train, val, test = (set(s.sessions or ()) for s in fold.splits.values())
        assert (len(train), len(val)) == (3, 1)
        assert not train & val | val & test | train & test


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("random:80/10/20", "sum to 100"),
        ("random:90/10/0", "above 0"),
        ("random", "unknown; choose random:80/10/10"),
        ("kfold", "unknown"),
        ("speaker", "does not contain its speakers, which --split-protocol speaker needs"),
        ("session", "does not contain its sessions"),
    ],
)
def test_a_wrong_protocol_is_named(make_features: Make, protocol: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(make_features(), protocol)


def test_too_few_to_split_is_said(make_features: Make) -> None:
    with pytest.raises(InputError, match="1 utterances of class 'sadness'; give at least three"):
        split(make_features(7))
    with pytest.raises(InputError, match="12 utterances are too few for --split-protocol random:80/10/10"):
        split(make_features(12))
    with pytest.raises(InputError, match="2 speakers; --split-protocol speaker needs at least three"):
        split(make_features(24, speakers=("a", "b") * 12), "speaker")
    with pytest.raises(InputError, match="2 sessions"):
        split(make_features(24, sessions=("a", "b") * 12), "session")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_iemocaps_ten_speakers_one_tests_and_one_validates(seed: int) -> None:
    # Speakers have different numbers of utterances: here women and men of a session have 2 to 3.
    turns = [
        (c, f"Ses0{session}{'FM'[i % 5 > 1]}")
        for session, (anger, happiness, excited, neutral, sadness, *_) in COUNTS.items()
        for c, n in enumerate((anger, happiness + excited, neutral, sadness))
        for i in range(n)
    ]
    labels, speakers = zip(*turns, strict=True)
    assert len(labels) == 5531
    (fold,) = assign(np.array(labels), ("a", "h", "n", "s"), "speaker", seed, source="x", speakers=speakers)
    assert [len({speakers[i] for i in rows}) for rows in fold] == [8, 1, 1]


def test_by_speaker_few_utterances_of_a_class_need_fewer_parts(make_features: Make) -> None:
    speakers = tuple(f"s{i % 7}" for i in range(28))
    (fold,) = split(make_features(28, speakers=speakers), "speaker")
    seen = [set(s.speakers or ()) for s in fold.splits.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def write(folder: Path, make: Make, form: str) -> None:
    for i, name in enumerate(("train", "val", "test")):
        features = make(seed=i, name=name)
        if form.endswith(".safetensors"):
            features.save(folder / form.format(name))
        else:
            rows = zip(features.audio, features.text, features.labels, strict=True)
            made = [{"audio_embed": a.clone(), "text_embed": t.clone(), "label": y.clone()} for a, t, y in rows]
            (folder / form.format(name)).write_bytes(pickle.dumps(made))


@pytest.mark.parametrize("form", ["{}.safetensors", "{}.pkl", "IEMOCAP_BERT_WAV2VEC_{}.pkl"])
def test_a_folder_of_splits_is_one_fold(make_features: Make, tmp_path: Path, form: str) -> None:
    write(tmp_path, make_features, form)
    (fold,) = load_folds(tmp_path)
    assert {name: len(s) for name, s in fold.splits.items()} == {"train": 24, "val": 24, "test": 24}
    assert torch.equal(fold.val.audio, make_features(seed=1).audio)


def test_of_two_corpora_in_a_folder_the_one_asked_for_is_taken(make_features: Make, tmp_path: Path) -> None:
    write(tmp_path, make_features, "IEMOCAP_BERT_WAV2VEC_{}.pkl")
    write(tmp_path, make_features, "ESD_BERT_WAV2VEC_{}.pkl")
    (fold,) = load_folds(tmp_path, corpus="esd")
    assert fold.train.source.endswith("ESD_BERT_WAV2VEC_train.pkl")
    with pytest.raises(InputError, match="could be the train split"):
        load_folds(tmp_path, corpus="other")


def test_one_file_is_split(make_features: Make, tmp_path: Path) -> None:
    make_features(100).save(tmp_path / "all.safetensors")
    (fold,) = load_folds(tmp_path / "all.safetensors")
    assert [len(s) for s in fold.splits.values()] == [80, 10, 10]
    assert "all.safetensors (random:80/10/10)" in fold.test.source


def test_what_is_missing_is_said(make_features: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        load_folds(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no train\.safetensors"):
        load_folds(tmp_path)
    write(tmp_path, make_features, "{}.safetensors")
    with pytest.raises(InputError, match="a folder of files that are already split"):
        load_folds(tmp_path, protocol="random:80/10/10")
    with pytest.raises(InputError, match="--split-seed 3"):
        load_folds(tmp_path, split_seed=3)
    (tmp_path / "val.safetensors").unlink()
    with pytest.raises(InputError, match=r"no val\.safetensors"):
        load_folds(tmp_path)


def corpus_of(
    labels: Sequence[int], *, classes: int = 3, root: Path = Path("corpus"), **columns: Sequence[object]
) -> RawCorpus:
    names = tuple(f"class_{c}" for c in range(classes))
    utterances = tuple(
        Utterance(
            id=f"u{i:04d}",
            audio=Path(f"u{i}.wav"),
            text=f"Sentence {i}",
            label=names[label],
            **{column: values[i] for column, values in columns.items()},  # type: ignore[arg-type]
        )
        for i, label in enumerate(labels)
    )
    return RawCorpus(name="mine", title="mine", root=root, class_names=names, utterances=utterances)


def complete(corpus: RawCorpus, assignment: Assignment) -> bool:
    """Every utterance is in exactly one split, in the corpus's order."""
    splits = assignment.splits.values()
    ids = [u.id for split in splits for u in split]
    ordered = all(list(split) == sorted(split, key=lambda u: u.id) for split in splits)
    return ordered and sorted(ids) == [u.id for u in corpus.utterances]


def per_class(utterances: Sequence[Utterance], classes: int) -> list[int]:
    counts = Counter(u.label for u in utterances)
    return [counts[f"class_{c}"] for c in range(classes)]


_COUNTS = st.lists(st.integers(10, 60), min_size=2, max_size=5)
_SEED = st.integers(0, 2**32 - 1)


@given(counts=_COUNTS, seed=_SEED, shares=st.sampled_from([(80, 10, 10), (60, 20, 20), (34, 33, 33), (70, 10, 20)]))
def test_random_is_complete_and_stratified_within_rounding(
    counts: list[int], seed: int, shares: tuple[int, int, int]
) -> None:
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    corpus = corpus_of(labels, classes=len(counts))
    (assignment,) = split_utterances(corpus, "random:{}/{}/{}".format(*shares), seed)
    assert complete(corpus, assignment)
    for share, part in zip(shares, assignment.splits.values(), strict=True):
        assert abs(len(part) - share / 100 * len(labels)) <= 1
        for have, count in zip(per_class(part, len(counts)), counts, strict=True):
            assert abs(have - share / 100 * count) < 2  # rounded twice: first for test, then for val
    assert (assignment,) == split_utterances(corpus, "random:{}/{}/{}".format(*shares), seed)


@given(speakers=st.integers(3, 12), each=st.integers(1, 5), seed=_SEED)
def test_speaker_keeps_every_speaker_in_one_split(speakers: int, each: int, seed: int) -> None:
    labels = [c for _ in range(speakers) for c in range(3) for _ in range(each)]
    who = [f"s{s:02d}" for s in range(speakers) for _ in range(3 * each)]
    corpus = corpus_of(labels, speaker=who)
    (assignment,) = split_utterances(corpus, "speaker", seed)
    assert complete(corpus, assignment)
    sets = [{u.speaker for u in split} for split in assignment.splits.values()]
    assert sum(map(len, sets)) == speakers == len(set.union(*sets))
    assert [leak.shared for leak in leaks(assignment) if leak.what == "speakers"] == [0, 0]


@given(sessions=st.integers(3, 7), each=st.integers(1, 4), data=st.data())
def test_session_tests_each_utterance_once(sessions: int, each: int, data: st.DataObject) -> None:
    cells = [(f"{s + 1}", c) for s in range(sessions) for c in range(3) for _ in range(each)]
    cells = data.draw(st.permutations(cells))
    corpus = corpus_of([c for _, c in cells], session=[s for s, _ in cells])
    folds = split_utterances(corpus, "session", 0)
    assert len(folds) == sessions
    assert all(complete(corpus, fold) for fold in folds)
    assert sorted(u.id for fold in folds for u in fold.test) == [u.id for u in corpus.utterances]
    assert sorted(u.id for fold in folds for u in fold.val) == [u.id for u in corpus.utterances]
    for fold in folds:
        sets = [{u.session for u in split} for split in fold.splits.values()]
        assert list(map(len, sets)) == [sessions - 2, 1, 1] and sum(map(len, sets)) == len(set.union(*sets))


def _split_as(said: Sequence[str | None]) -> RawCorpus:
    return corpus_of([0, 0, 0, 1, 1, 1], classes=2, splits=[(one,) if one else () for one in said])


def test_manifest_does_as_the_corpus_says() -> None:
    said = ["train", "test", "val", "train", "val", "test"]
    corpus = _split_as(said)
    (assignment,) = split_utterances(corpus, "manifest", 5)
    assert complete(corpus, assignment)
    assert {name: {u.splits[0] for u in split} for name, split in assignment.splits.items()} == {
        "train": {"train"},
        "val": {"val"},
        "test": {"test"},
    }


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            [None] * 6,
            "corpus: does not contain its splits, which --split-protocol manifest needs; add a column split",
        ),
        (["train", None, "val", "test", "val", None], r"2 of 6 utterances have no split \(first 'u0001'\), which"),
        (["train", "test", "test"] * 2, "no utterance is in the split val; --split-protocol manifest needs some in"),
        (
            ["train", "test", "val", "train", "val", "train"],
            r"leaves no utterance of class 'class_1' in the test split \(1 utterances\); every split needs every class",
        ),
    ],
)
def test_manifest_needs_every_utterance_and_class_in_the_splits(said: list[str | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_utterances(_split_as(said), "manifest")


def test_speakers_unknown_of_some_are_named() -> None:
    corpus = corpus_of([0, 1, 0, 1], classes=2, speaker=["a", "b", None, "c"])
    with pytest.raises(
        InputError, match=r"1 of 4 utterances have no speaker \(first 'u0002'\), which --split-protocol"
    ):
        split_utterances(corpus, "speaker")


def test_features_do_not_say_their_splits(make_features: Make) -> None:
    with pytest.raises(InputError, match="manifest: u is one feature file, which does not store splits; use random"):
        split(make_features(), "manifest")


def test_a_corpus_and_its_features_are_split_alike(make_features: Make) -> None:
    labels = torch.arange(80) % 4
    speakers, sessions = tuple(f"s{i // 4 % 10}" for i in range(80)), tuple(str(i // 4 % 5) for i in range(80))
    ids = tuple(f"u{i:04d}" for i in range(80))
    features = make_features(80, labels=labels, speakers=speakers, sessions=sessions, utterance_ids=ids)
    corpus = corpus_of(labels.tolist(), classes=4, speaker=speakers, session=sessions)
    for protocol in ("random:80/10/10", "speaker", "session"):
        folds, assignments = split(features, protocol, 7), split_utterances(corpus, protocol, 7)
        for fold, assignment in zip(folds, assignments, strict=True):
            for name, s in fold.splits.items():
                assert s.utterance_ids == tuple(u.id for u in assignment.splits[name])


@pytest.mark.parametrize("protocol", ["random:80/10/10", "speaker", "session", "manifest"])
def test_made_up_corpora_can_be_split_by_every_protocol(tmp_path: Path, protocol: str) -> None:
    short = (0.01, 0.01)
    corpora = {
        "iemocap": read_corpus(IEMOCAP, make_iemocap(tmp_path / "iemocap", seconds=short)),
        "esd": read_esd(make_esd(tmp_path / "esd", layout="split", seconds=short)),
        "mine": read_manifest(make_manifest(tmp_path / "mine"), name="mine"),
    }
    for name, corpus in corpora.items():
        if (name, protocol) in {("iemocap", "manifest"), ("esd", "session")}:
            with pytest.raises(InputError, match="does not contain its"):
                split_utterances(corpus, protocol)
        else:
            folds = split_utterances(corpus, protocol)
            assert len(folds) == (1 if protocol != "session" else {"iemocap": 5, "mine": 3}[name])
            assert all(complete(corpus, fold) for fold in folds)

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
from cemobam_core.corpora.iemocap import IEMOCAP
from cemobam_core.corpora.leaks import leaks
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.splits import Assignment, load_folds, split, split_utterances, splits_fingerprint
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
    folds = split(make_features(200, sessions=sessions), "session-val")
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
        ("manifest", "unknown; choose random:80/10/10, speaker, speaker-10, session, session-val, text, script, off"),
        ("session+speaker", r"only text and script can follow a \+; put speaker first"),
        ("speaker+", "unknown"),
        ("text+text", "a protocol is named twice"),
        ("speaker", "does not contain its speakers, which --split-protocol speaker needs"),
        ("session", "does not contain its sessions, .*; add them to the file's metadata as sessions, or use"),
        ("text", "does not contain its texts, which --split-protocol text needs; add them to the file's metadata as"),
        ("random:34/33/33+script", "does not contain its scripts, which --split-protocol random:34/33/33.script needs"),
        ("official", "one feature file, which does not store the splits .*; give a --split-file or a folder of train"),
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
        split(make_features(24, sessions=("a", "b") * 12), "session-val")
    with pytest.raises(InputError, match=r"one session \(a\); --split-protocol session needs at least two"):
        split(make_features(24, sessions=("a",) * 24), "session")
    with pytest.raises(InputError, match="12 utterances outside of test are too few for --split-protocol session, whi"):
        split(make_features(24, sessions=("a",) * 12 + ("b",) * 12), "session")
    with pytest.raises(InputError, match="2 sentences; --split-protocol text needs at least three"):
        split(make_features(24, texts=("Yes.", "No", "yes!") * 8), "text")


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
    with pytest.raises(InputError, match=r"--split-file a\.csv: .* is a folder of files that are already split"):
        load_folds(tmp_path, split_file=Path("a.csv"))
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
            label=names[label],
            **{"text": f"Sentence {i}", **{column: values[i] for column, values in columns.items()}},  # type: ignore[arg-type]
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


def test_speakers_unknown_of_some_are_named() -> None:
    corpus = corpus_of([0, 1, 0, 1], classes=2, speaker=["a", "b", None, "c"])
    with pytest.raises(
        InputError, match=r"1 of 4 utterances have no speaker \(first 'u0002'\), which --split-protocol"
    ):
        split_utterances(corpus, "speaker")


_PROTOCOLS = ["random:80/10/10", "speaker", "speaker-10", "session", "session-val", "text", "script"]


@pytest.mark.parametrize("protocol", [*_PROTOCOLS, "speaker+text", "session+text", "official"])
def test_a_corpus_and_its_features_are_split_alike(make_features: Make, protocol: str) -> None:
    labels = torch.arange(120) % 4
    speakers = tuple(f"s{i // 4 % 10}" for i in range(120))
    sessions = tuple(str(i // 8 % 5) for i in range(120))
    texts = tuple(f"Sentence {i}" for i in range(120))
    scripts = tuple(f"scene {i // 4 % 6}" for i in range(120))
    ids = tuple(f"u{i:04d}" for i in range(120))
    columns = {"speakers": speakers, "sessions": sessions, "scripts": scripts, "texts": texts, "utterance_ids": ids}
    order = np.random.default_rng(0).permutation(120).tolist()
    features = make_features(120, labels=labels, **columns).select(order, source="u")
    said = (("train",), ("val",), ("test",), ("train",))
    splits = [said[i // 4 % 4] for i in range(120)]
    corpus = corpus_of(
        labels.tolist(), classes=4, speaker=speakers, session=sessions, script=scripts, text=texts, splits=splits
    )
    if protocol == "official":
        with pytest.raises(InputError, match="which does not store the splits"):
            split(features, protocol)
        return
    folds, assignments = split(features, protocol, 7), split_utterances(corpus, protocol, 7)
    assert splits_fingerprint(folds) == splits_fingerprint(assignments)
    for fold, assignment in zip(folds, assignments, strict=True):
        for name, s in fold.splits.items():
            assert set(s.utterance_ids) == {u.id for u in assignment.splits[name]}
            assert [u for u in features.utterance_ids if u in set(s.utterance_ids)] == list(s.utterance_ids)


@pytest.mark.parametrize("protocol", ["random:80/10/10", "speaker", "session", "text", "official"])
def test_made_up_corpora_can_be_split_by_every_protocol(tmp_path: Path, protocol: str) -> None:
    short = (0.01, 0.01)
    corpora = {
        "iemocap": read_corpus(IEMOCAP, make_iemocap(tmp_path / "iemocap", seconds=short)),
        "esd": read_esd(make_esd(tmp_path / "esd", layout="split", seconds=short)),
        "mine": read_manifest(make_manifest(tmp_path / "mine"), name="mine"),
    }
    for name, corpus in corpora.items():
        if (name, protocol) in {("iemocap", "official"), ("esd", "session")}:
            with pytest.raises(InputError, match="does not contain its"):
                split_utterances(corpus, protocol)
        else:
            folds = split_utterances(corpus, protocol)
            assert len(folds) == (1 if protocol != "session" else {"iemocap": 5, "mine": 3}[name])
            assert all(complete(corpus, fold) for fold in folds)

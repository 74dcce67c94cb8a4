from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cemobam_core import FeatureSet, InputError
from cemobam_core.corpora.splits import load_folds, split

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
        ("speaker", "does not say its speakers, which --split-protocol speaker needs"),
        ("session", "does not say its sessions"),
    ],
)
def test_a_wrong_protocol_is_named(make_features: Make, protocol: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(make_features(), protocol)


def test_too_few_to_split_is_said(make_features: Make) -> None:
    with pytest.raises(InputError, match="1 utterances of class 'sadness'; three are needed"):
        split(make_features(7))
    with pytest.raises(InputError, match="12 utterances are too few to split 80/10/10"):
        split(make_features(12))
    with pytest.raises(InputError, match="2 speakers; --split-protocol speaker needs three"):
        split(make_features(24, speakers=("a", "b") * 12), "speaker")
    with pytest.raises(InputError, match="2 sessions"):
        split(make_features(24, sessions=("a", "b") * 12), "session")


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
    with pytest.raises(InputError, match="a folder of files split already"):
        load_folds(tmp_path, protocol="random:80/10/10")
    with pytest.raises(InputError, match="--split-seed 3"):
        load_folds(tmp_path, split_seed=3)
    (tmp_path / "val.safetensors").unlink()
    with pytest.raises(InputError, match=r"no val\.safetensors"):
        load_folds(tmp_path)

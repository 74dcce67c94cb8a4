from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from cemobam_core import FeatureSet
from cemobam_core.corpora.blanks import blanks
from cemobam_core.features import Fold


def test_features_that_say_something_are_not_warned_of(
    small_fold: Fold, make_features: Callable[..., FeatureSet]
) -> None:
    assert blanks(small_fold) == []
    sequences = (make_features(24, steps=5, seed=i, name=name) for i, name in enumerate(("train", "val", "test")))
    assert blanks(Fold(**dict(zip(("train", "val", "test"), sequences, strict=True)))) == []


def test_an_embedding_of_one_number_is_no_constant(make_features: Callable[..., FeatureSet]) -> None:
    splits = {name: make_features(24, dim=1, seed=i, name=name) for i, name in enumerate(("train", "val", "test"))}
    assert blanks(Fold(**splits)) == []


def test_zeros_and_constants_are_counted_by_split(small_fold: Fold) -> None:
    audio = small_fold.val.audio.clone()
    audio[3], audio[7], audio[9] = 0.0, 0.0, 2.5
    (zeros, constant) = blanks(replace(small_fold, val=replace(small_fold.val, audio=audio)))
    assert zeros.startswith(
        "the val split: 2 of 24 utterances: the audio embedding is all zeros (the first is 'val_003'"
    )
    assert constant.startswith("the val split: 1 of 24 utterances: the audio embedding is one number throughout")
    assert "'val_009'" in constant


def test_padding_is_not_looked_at(make_features: Callable[..., FeatureSet]) -> None:
    splits = {name: make_features(24, steps=5, seed=i, name=name) for i, name in enumerate(("train", "val", "test"))}
    test = splits["test"]
    assert test.text_mask is not None
    text = test.text.where(test.text_mask.unsqueeze(-1), torch.zeros(()))
    text[0] = torch.where(test.text_mask[0], 0.0, 9.0).unsqueeze(-1)
    (warning,) = blanks(Fold(**{**splits, "test": replace(test, text=text)}))
    assert "the test split: 1 of 24 utterances: the text embedding is all zeros" in warning


def test_one_embedding_for_all_is_told(small_fold: Fold) -> None:
    same = small_fold.train.text[:1].expand(40, -1).clone()
    fold = replace(small_fold, train=replace(small_fold.train, text=same))
    assert blanks(fold, fold) == [
        "the train split: all 40 utterances have the same text embedding; make the features again"
    ]

"""The list of test utterances that a ledger keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import FeatureSet, Fold, InputError
from study.ledger.utterances import TestUtterances

Make = Callable[..., FeatureSet]

TWO_FOLDS = TestUtterances(
    ids=("a", "b", "a"),
    labels=(0, 3, 0),
    folds=(0, 0, 1),
    speakers=("s1", "s2", "s1"),
    sessions=None,
    seconds=(0.5, 0.0, 2.25),
    train_sizes=(40, 41),
)


def test_folds_come_in_order_and_what_one_does_not_know_is_left_out(make_features: Make, small_fold: Fold) -> None:
    of_test = {"sessions": ["x"] * 24, "seconds": [1.5] * 24}
    first = replace(small_fold, test=make_features(24, name="test", speakers=["one"] * 24, **of_test))
    second = replace(small_fold, test=make_features(20, name="test", speakers=["two"] * 20, sessions=["y"] * 20))
    made = TestUtterances.of((first, second))
    assert made.ids == (*first.test.utterance_ids, *second.test.utterance_ids)
    assert made.labels == (*first.test.labels.tolist(), *second.test.labels.tolist())
    assert made.folds == (0,) * 24 + (1,) * 20
    assert made.speakers == ("one",) * 24 + ("two",) * 20
    assert made.sessions == ("x",) * 24 + ("y",) * 20
    assert made.seconds is None
    assert made.train_sizes == (40, 40)
    assert TestUtterances.of((first,)).seconds == (1.5,) * 24
    assert TestUtterances.of((small_fold,)).speakers is None


names = st.text(max_size=8)


@given(st.lists(st.tuples(names, st.integers(0, 254), names, st.floats(0, 1e6)), min_size=1, unique_by=lambda x: x[0]))
def test_what_is_encoded_is_decoded(rows: list[tuple[str, int, str, float]]) -> None:
    ids, labels, speakers, seconds = (tuple(column) for column in zip(*rows, strict=True))
    made: Any = {"ids": ids, "labels": labels, "folds": (0,) * len(ids), "speakers": speakers, "seconds": seconds}
    one = TestUtterances(**made, sessions=None, train_sizes=(7,))
    assert TestUtterances.decoded(one.encoded()) == one


def test_two_folds_are_decoded() -> None:
    assert TestUtterances.decoded(TWO_FOLDS.encoded()) == TWO_FOLDS


TOLD = json.loads(TWO_FOLDS.encoded())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ids": ["a", "b"]}, "lists of different lengths"),
        ({"ids": [], "labels": [], "folds": [], "speakers": None, "seconds": None}, "or no utterance"),
        ({"ids": ["a", "a", "a"]}, "an utterance twice in a fold"),
        ({"ids": ["a", 3, "a"]}, "a name that is not text"),
        ({"ids": None}, "no ids"),
        ({"ids": "aba"}, "ids in the list of test utterances is not a list"),
        ({"speakers": ["a", None, "b"]}, "a name that is not text"),
        ({"speakers": {}}, "speakers in the list of test utterances is not a list"),
        ({"labels": [0, -1, 0]}, "not a whole number"),
        ({"labels": [0, 0.5, 0]}, "not a whole number"),
        ({"labels": [0, True, 0]}, "not a whole number"),
        ({"labels": [0, 10**30, 0]}, "not a whole number"),
        ({"folds": [0, 1, 0]}, "folds that are not numbered from 0 to 1 in order"),
        ({"folds": [0, 0, 2]}, "folds that are not numbered from 0 to 1 in order"),
        ({"folds": [0, 0, 0]}, "folds that are not numbered from 0 to 1 in order"),
        ({"train_sizes": []}, "folds that are not"),
        ({"train_sizes": [0, 4]}, "without an utterance to train on"),
        ({"train_sizes": None}, "no ids, labels, folds or train_sizes"),
        ({"seconds": [1.0, -0.5, 1.0]}, "seconds that are not a finite number"),
        ({"seconds": [1.0, float("nan"), 1.0]}, "seconds that are not a finite number"),
        ({"seconds": [1.0, "2", 1.0]}, "seconds that are not a finite number"),
        ({"more": []}, "must have folds, ids"),
    ],
)
def test_a_list_that_no_study_wrote_is_refused_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        TestUtterances.decoded(json.dumps({**TOLD, **change}).encode())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"ids": []}'])
def test_what_is_no_such_list_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="the list of test utterances"):
        TestUtterances.decoded(content)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import FeatureSet, Fold
from cemobam_core.corpora.leaks import copies, leaks
from cemobam_core.corpora.sentences import sentence
from cemobam_core.corpora.splits import Assignment
from cemobam_core.corpora.utterances import Utterance


def said(*pairs: tuple[str | None, str]) -> tuple[Utterance, ...]:
    return tuple(
        Utterance(id=f"{i}", audio=Path("a.wav"), text=text, label="x", speaker=speaker)
        for i, (speaker, text) in enumerate(pairs)
    )


def lines(*folds: Assignment | Fold) -> list[str]:
    return [str(leak) for leak in leaks(*folds)]


FOLD = Assignment(
    train=said(("a", "The nine, the eggs."), ("b", "I keep."), ("c", "…")),
    val=said(("d", "Something new"), ("d", "…")),
    test=said(("a", "the nine the eggs"), ("a", "I KEEP!"), ("e", "Other words"), ("b", "I keep")),
)


def test_speakers_and_sentences_are_counted() -> None:
    assert lines(FOLD) == [
        "2 of 3 test speakers are also in train (a, b)",
        "3 of 4 test sentences are also in train (for example “the nine the eggs”)",
        "0 of 1 val speakers are also in train",
        "0 of 2 val sentences are also in train",
    ]
    assert leaks(FOLD)[1].examples == ("the nine the eggs", "i keep")


def test_folds_are_summed() -> None:
    clean = Assignment(train=said(("x", "One")), val=said(("y", "Two")), test=said(("z", "Three")))
    assert lines(clean, FOLD)[:2] == [
        "2 of 4 test speakers are also in train (a, b)",
        "3 of 5 test sentences are also in train (for example “the nine the eggs”)",
    ]


def test_long_lists_and_sentences_are_cut_short() -> None:
    people: Sequence[tuple[str, str]] = [(f"s{i}", " ".join(["word"] * 40)) for i in range(9)]
    fold = Assignment(train=said(*people), val=said(*people), test=said(*people))
    first, second, *_ = lines(fold)
    assert first == "9 of 9 test speakers are also in train (s0, s1, s2 …)"
    assert second.startswith("9 of 9 test sentences are also in train (for example “word word") and second.endswith(
        "word…”)"
    )
    assert len(second) < 120


def test_unknown_speakers_are_left_out() -> None:
    fold = Assignment(train=said(("a", "A")), val=said(("a", "B")), test=said((None, "C"), ("a", "D")))
    assert [(leak.split, leak.what) for leak in leaks(fold)] == [
        ("test", "sentences"),
        ("val", "speakers"),
        ("val", "sentences"),
    ]


def test_features_say_speakers_alone(make_features: Callable[..., FeatureSet]) -> None:
    splits = {
        name: make_features(8, name=name, speakers=tuple(f"{name[0]}{i % 2}" if i else "s" for i in range(8)))
        for name in ("train", "val", "test")
    }
    fold = Fold(**splits)
    assert lines(fold) == [
        "3 of 3 test speakers are also in train (s, t0, t1)",
        "1 of 3 val speakers are also in train (s)",
    ]
    without = Fold(**{name: make_features(8, name=name) for name in splits})
    assert leaks(without) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The nine, the eggs: I keep.", "the nine the eggs  i keep"),
        ("I don't know", "I don’t know!"),
        ("Well—yes", "well yes"),
        ("FULL　ｗｉｄｔｈ", "full width"),
    ],
)
def test_sentences_that_are_the_same(one: str, other: str) -> None:
    assert sentence(one) == sentence(other)


def test_sentences_that_are_not() -> None:
    assert sentence("I keep") != sentence("Ike ep")
    assert sentence("number 1") != sentence("number 2")


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert sentence(sentence(text)) == sentence(text)


# Copies among the training utterances.


def test_texts_that_are_read_more_often_than_there_are_neighbours_are_counted() -> None:
    read = [
        (f"s{i}", text) for text, times in (("One", 5), ("Two!", 4), ("two", 1), ("Three", 2)) for i in range(times)
    ]
    fold = Assignment(train=said(*read), val=said(("a", "One")), test=said(("a", "One")))
    (found,) = copies(fold, k=3)
    assert (found.what, found.utterances, found.total, found.k) == ("text", 10, 12, 3)
    assert str(found).startswith(
        "10 of 12 train utterances have more than 3 others with the same text: every K_text up"
    )
    assert copies(fold, k=4) == ()  # all four others are linked
    assert copies(fold, fold, k=3)[0].utterances == 20


def test_embeddings_that_are_copies_are_counted_by_modality(make_features: Callable[..., FeatureSet]) -> None:
    def fold(n: int) -> Fold:
        train, val, test = (make_features(40, seed=i, name=f"{i}") for i in range(3))
        text, audio = train.text.clone(), train.audio.clone()
        text[:n], audio[:6] = text[0], audio[0]
        return Fold(train=replace(train, text=text, audio=audio), val=val, test=test)

    assert [(one.what, one.utterances) for one in copies(fold(20), k=4)] == [("text", 20), ("audio", 6)]
    assert [(one.what, one.utterances) for one in copies(fold(20), k=5)] == [("text", 20)]
    assert copies(fold(2), k=10) == ()

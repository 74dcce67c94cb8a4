from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from more_trees import make_ravdess

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.ravdess import COUNTS, read_ravdess
from cemobam_core.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_ravdess(tmp_path / "RAVDESS", actors=(1, 12), songs=False)


def test_the_whole_release(tmp_path: Path) -> None:
    corpus = read_ravdess(make_ravdess(tmp_path / "RAVDESS"))
    assert corpus.notes == (
        "1440 of 1440 utterances: 96 neutral, 192 calm, 192 happy, 192 sad, 192 angry, 192 fearful, 192 disgust, 192 "
        "surprised; complete",
        "left out, because they are no speech in sound alone: 24 songs, 24 videos",
    )
    assert corpus.bad == ()
    assert corpus.class_names == CORPORA["ravdess"].class_names == tuple(COUNTS)
    assert Counter(u.speaker for u in corpus.utterances) == {f"{actor:02d}": 60 for actor in range(1, 25)}


def test_names_give_everything(tree: Path) -> None:
    one = {u.id: u for u in read_ravdess(tree).utterances}["03-01-06-01-02-01-12"]
    assert (one.text, one.label, one.speaker) == ("Dogs are sitting by the door.", "fearful", "12")
    assert one.audio == tree / "Audio_Speech_Actors_01-24/Actor_12/03-01-06-01-02-01-12.wav"
    assert {u.text for u in read_ravdess(tree).utterances} == {
        "Kids are talking by the door.",
        "Dogs are sitting by the door.",
    }


def test_the_actors_or_a_folder_above_them(tree: Path) -> None:
    whole = read_ravdess(tree).utterances
    assert read_ravdess(tree / "Audio_Speech_Actors_01-24").utterances == whole
    assert read_ravdess(tree.parent).utterances == whole


def test_an_archive_that_contains_itself_is_read_once(tree: Path) -> None:
    whole = {u.id for u in read_ravdess(tree).utterances}
    shutil.copytree(tree / "Audio_Speech_Actors_01-24/Actor_01", tree / "Actor_01")
    corpus = read_ravdess(tree)
    assert {u.id for u in corpus.utterances} == whole
    assert (
        "60 files are there twice, the first is used: 03-01-01-01-01-01-01, 03-01-01-01-01-02-01, " in corpus.notes[2]
    )


def test_what_is_missing_is_told(tree: Path) -> None:
    (tree / "Audio_Speech_Actors_01-24/Actor_12/03-01-06-01-02-01-12.wav").unlink()
    notes = read_ravdess(tree).notes
    assert notes[0].startswith("119 of 1440 utterances: 8 of 96 neutral, 16 of 192 calm, ")
    assert notes[1] == "23 of 24 actors lack utterances: 02 (0 of 60), 03 (0 of 60), 04 (0 of 60) and 20 more"


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    actor = tree / "Audio_Speech_Actors_01-24/Actor_01"
    clip = actor / "03-01-06-01-02-01-01.wav"
    for name in (
        "03-01-09-01-02-01-01",
        "03-01-06-01-03-01-01",
        "03-01-06-01-02-01-02",
        "03-03-06-01-02-01-01",
        "take",
    ):
        shutil.copy(clip, actor / f"{name}.wav")
    (actor / "notes.txt").write_text("")
    assert [(b.id, b.reason) for b in read_ravdess(tree).bad] == [
        ("03-01-06-01-02-01-02", "it is in the folder Actor_01"),
        ("03-01-06-01-03-01-01", "unknown statement 03"),
        ("03-01-09-01-02-01-01", "unknown emotion 09"),
        (
            "03-03-06-01-02-01-01",
            "03-03-06-01-02-01-01.wav is not named as in RAVDESS, such as 03-01-06-01-02-01-12.wav",
        ),
        ("take", "take.wav is not named as in RAVDESS, such as 03-01-06-01-02-01-12.wav"),
    ]


def test_another_folder_or_only_songs_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "Audio_Speech_Actors_01-24.zip").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"not RAVDESS; it contains Audio_Speech_Actors_01-24.zip, expected: Actor_01/"
    ):
        read_ravdess(tmp_path)
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "Actor_01/03-02-01-01-01-01-01.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"no utterance of RAVDESS \(speech\) can be used; expected"):
        read_ravdess(tmp_path)

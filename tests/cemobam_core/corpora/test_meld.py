from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from more_trees import MELD_EMOTIONS, MELD_FOLDERS, make_meld

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.meld import COUNTS, read_meld
from cemobam_core.errors import InputError

EMOBOX = {"train": "train/train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_meld(tmp_path / "MELD.Raw")


def edit(table: Path, old: str, new: str) -> None:
    text = table.read_bytes().decode("utf-8")
    assert old in text
    table.write_bytes(text.replace(old, new).encode("utf-8"))


def test_the_splits_the_texts_and_the_speakers(tree: Path) -> None:
    corpus = read_meld(tree)
    assert corpus.class_names == CORPORA["meld"].class_names == MELD_EMOTIONS
    assert corpus.bad == ()
    assert Counter(u.splits for u in corpus.utterances) == {("train",): 20, ("val",): 20, ("test",): 21}
    assert [u.id for u in corpus.utterances] == sorted(u.id for u in corpus.utterances)
    by_id = {u.id: u for u in corpus.utterances}
    assert {"train_dia0_utt0", "dev_dia0_utt0", "test_dia0_utt0"} <= by_id.keys()
    first = by_id["test_dia0_utt0"]
    assert first.text == "Oh my God, he’s lost it, anger and “0”."
    assert first.label == "anger"
    assert first.audio == tree / MELD_FOLDERS["test"] / "dia0_utt0.mp4"
    assert {u.speaker for u in corpus.utterances} == {"Ross", "Rachel", "Richard’s Date"}
    assert {u.session for u in corpus.utterances} == {None}
    assert corpus.transcribed


def test_the_known_faults_are_told_and_are_not_the_users(tree: Path) -> None:
    corpus = read_meld(tree)
    assert corpus.notes == (
        "61 of 13708 utterances: 9 of 1607 anger, 9 of 361 disgust, 9 of 358 fear, 9 of 2308 joy, 7 of 6436 neutral, "
        "9 of 1002 sadness, 9 of 1636 surprise",
        "20 of 9989 train, 20 of 1109 dev, 21 of 2610 test",
        "left out, known faults of the release: train_dia125_utt3 (its clip is broken), dev_dia110_utt7 (it has no "
        "clip)",
    )


@pytest.mark.slow
def test_the_whole_release(tmp_path: Path) -> None:
    counts = {
        split: {name: numbers[i] for name, numbers in COUNTS.items()}
        for i, split in enumerate(("train", "dev", "test"))
    }
    corpus = read_meld(make_meld(tmp_path / "MELD.Raw", counts=counts, suffix=".wav"))
    assert len(corpus.utterances) == 13_706
    assert corpus.bad == ()
    assert corpus.notes[0].endswith("1636 surprise; complete but for known faults of the release")
    assert corpus.notes[1] == "9988 of 9989 train, 1108 of 1109 dev, 2610 of 2610 test"


@pytest.mark.parametrize("folders", [EMOBOX, {"train": "train", "dev": "dev", "test": "test"}])
@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_other_places_and_formats_make_no_difference(tmp_path: Path, folders: dict[str, str], suffix: str) -> None:
    usual = read_meld(make_meld(tmp_path / "usual"))
    other = read_meld(make_meld(tmp_path / "x" / "MELD.Raw", folders=folders, suffix=suffix).parent)
    assert [(u.id, u.text, u.splits) for u in other.utterances] == [(u.id, u.text, u.splits) for u in usual.utterances]
    assert {u.audio.suffix for u in other.utterances} == {suffix}


def test_the_clip_of_the_release_comes_before_one_that_was_made_of_it(tree: Path) -> None:
    clip = tree / MELD_FOLDERS["dev"] / "dia0_utt0.mp4"
    shutil.copy(clip, clip.with_suffix(".wav"))
    assert {u.id: u.audio for u in read_meld(tree).utterances}["dev_dia0_utt0"] == clip


@pytest.mark.parametrize(
    ("old", "encoding"), [("\x92", "utf-8"), ("’", "cp1252"), ("â€™", "utf-8"), ("Â\x92", "utf-8"), ("’", "utf-8-sig")]
)
def test_apostrophes_of_every_copy(tree: Path, old: str, encoding: str) -> None:
    whole = {u.id: (u.text, u.speaker) for u in read_meld(tree).utterances}
    table = tree / "dev_sent_emo.csv"
    text = table.read_text("utf-8").replace("’", old)
    text = text.replace("“", "\x93").replace("”", "\x94") if old == "\x92" else text
    table.write_bytes(text.encode(encoding))
    assert {u.id: (u.text, u.speaker) for u in read_meld(tree).utterances} == whole


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    (tree / MELD_FOLDERS["dev"] / "dia1_utt1.mp4").unlink()
    edit(tree / "test_sent_emo.csv", "Oh my God, he’s lost it, anger and “1”.", " ")
    edit(tree / "test_sent_emo.csv", ",fear,neutral,0,6", ",happy,neutral,0,6")
    shutil.copy(tree / MELD_FOLDERS["test"] / "dia0_utt0.mp4", tree / MELD_FOLDERS["test"] / "dia99_utt0.mp4")
    corpus = read_meld(tree)
    assert [(b.id, b.reason) for b in corpus.bad] == [
        ("dev_dia1_utt1", "a row of dev_sent_emo.csv without a clip dia1_utt1.mp4"),
        ("test_dia0_utt1", "its transcript is empty"),
        ("test_dia0_utt6", "unknown emotion 'happy'"),
    ]
    assert "test: 1 clips without a row in test_sent_emo.csv: dia99_utt0" in corpus.notes


def test_a_split_that_is_missing_is_said(tree: Path) -> None:
    shutil.rmtree(tree / "dev")
    (tree / "test_sent_emo.csv").unlink()
    corpus = read_meld(tree)
    assert corpus.bad == ()
    assert "dev: no clips in a folder dev_splits_complete; its 21 utterances are missing" in corpus.notes
    assert "test_sent_emo.csv: not found; the 21 clips of test are not used" in corpus.notes


def test_two_tables_of_a_split(tree: Path) -> None:
    shutil.copy(tree / "train/train_sent_emo.csv", tree / "train_sent_emo.csv")
    notes = read_meld(tree).notes
    assert f"train_sent_emo.csv: there are 2; {tree / 'train_sent_emo.csv'} is used" in notes


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "Emotion,",
            "Feeling,",
            "dev_sent_emo.csv line 1: no column 'emotion'; it has 'Sr No.', 'Utterance', 'Speaker'",
        ),
        (",anger,neutral,0,1,", ",anger,neutral,0,0,", "dev_sent_emo.csv line 4: dia0_utt0 occurs twice"),
        (",anger,neutral,0,1,", ",anger,neutral,zero,1,", "line 4: 'zero' and '1' are not numbers of a clip"),
        (",anger,neutral,0,1,", ",anger,neutral,0,1,1,", "line 4: 12 values for 11 columns"),
    ],
)
def test_a_damaged_table_is_an_error(tree: Path, old: str, new: str, said: str) -> None:
    edit(tree / "dev_sent_emo.csv", old, new)
    with pytest.raises(InputError) as raised:
        read_meld(tree)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.tar.gz").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"not MELD; it contains train.tar.gz and no clips with their tables, expected"
    ):
        read_meld(tmp_path)
    with pytest.raises(InputError, match="is a file, not a folder"):
        read_meld(tmp_path / "train.tar.gz")
    with pytest.raises(InputError, match="no such folder"):
        read_meld(tmp_path / "nowhere")

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from more_trees import make_crema_d

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.crema_d import SENTENCES, read_crema_d
from cemobam_core.errors import InputError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 72958\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_crema_d(tmp_path / "CREMA-D", actors=(1001, 1002, 1076), per_class=14)


def test_names_give_everything(tree: Path) -> None:
    corpus = read_crema_d(tree)
    assert corpus.class_names == CORPORA["crema-d"].class_names
    assert corpus.class_names == ("anger", "disgust", "fear", "happy", "neutral", "sad")
    assert corpus.bad == ()
    assert Counter(u.speaker for u in corpus.utterances) == {"1001": 82, "1002": 82, "1076": 81}
    one = {u.id: u for u in corpus.utterances}["1001_DFA_ANG_XX"]
    assert (one.text, one.label, one.script) == ("Don't forget a jacket.", "anger", "DFA")
    assert one.audio == tree / "AudioWAV/1001_DFA_ANG_XX.wav"
    assert {u.script: u.text for u in corpus.utterances} == SENTENCES
    assert len(set(SENTENCES.values())) == 12


def test_what_is_missing_and_the_known_fault_are_told(tree: Path) -> None:
    assert read_crema_d(tree).notes == (
        "245 of 7442 utterances: 42 of 1271 anger, 42 of 1271 disgust, 42 of 1271 fear, 42 of 1271 happy, 36 of 1087 "
        "neutral, 41 of 1271 sad",
        "left out, a known fault of the release: 1076_MTI_SAD_XX (it has no sound)",
        "3 of 91 actors; no clips of 1003, 1004, 1005 and 85 more",
    )


@pytest.mark.slow
def test_the_whole_release(tmp_path: Path) -> None:
    numbers = {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1271}
    corpus = read_crema_d(make_crema_d(tmp_path / "CREMA-D", actors=range(1001, 1092), per_class=numbers))
    assert len(corpus.utterances) == 7441
    assert corpus.bad == ()
    assert corpus.notes[0].endswith("1087 neutral, 1270 sad; complete but for known faults of the release")
    assert len(corpus.notes) == 2


def test_the_folder_itself_or_one_above_it(tree: Path) -> None:
    whole = read_crema_d(tree).utterances
    assert read_crema_d(tree / "AudioWAV").utterances == read_crema_d(tree.parent).utterances == whole


def test_an_intensity_with_a_letter_too_few_is_read(tree: Path) -> None:
    clip = tree / "AudioWAV/1001_ITH_SAD_XX.wav"
    clip.rename(clip.with_name("1040_ITH_SAD_X.wav"))
    one = {u.id: u for u in read_crema_d(tree).utterances}["1040_ITH_SAD_X"]
    assert (one.text, one.label, one.speaker) == ("I think I have a doctor's appointment.", "sad", "1040")


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    clips = tree / "AudioWAV"
    shutil.copy(clips / "1001_DFA_ANG_XX.wav", clips / "1001_DFA_JOY_XX.wav")
    (clips / "1002_DFA_ANG_XX.wav").unlink()
    (clips / "1002_DFA_ANG_XX.wav").write_text(POINTER)
    assert [(b.id, b.reason) for b in read_crema_d(tree).bad] == [
        ("1001_DFA_JOY_XX", "1001_DFA_JOY_XX.wav is not named as in CREMA-D, such as 1001_DFA_ANG_XX.wav"),
        (
            "1002_DFA_ANG_XX",
            "1002_DFA_ANG_XX.wav is a Git LFS pointer, not the sound itself; fetch the sound with git lfs pull",
        ),
    ]


def test_a_clone_without_its_sound_is_an_error(tree: Path) -> None:
    names = [clip.name for clip in (tree / "AudioWAV").glob("1*.wav")]
    shutil.rmtree(tree / "AudioWAV")
    (tree / "AudioWAV").mkdir()
    for name in names:
        (tree / "AudioWAV" / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"its {len(names)} WAV files are Git LFS pointers, .* git lfs pull in that"):
        read_crema_d(tree)


def test_things_in_place_of_clips_are_not_opened(tree: Path) -> None:
    clips = tree / "AudioWAV"
    os.mkfifo(clips / "1091_DFA_HAP_XX.wav")
    (clips / "1091_IEO_HAP_XX.wav").symlink_to("/dev/zero")
    (clips / "1091_IOM_HAP_XX.wav").symlink_to("1091_IOM_HAP_XX.wav")
    (clips / "1091_ITH_HAP_XX.wav").mkdir()
    assert len(read_crema_d(tree).utterances) > 4


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "AudioMP3").mkdir()
    with pytest.raises(InputError, match=r"not CREMA-D; it contains AudioMP3/, expected: AudioWAV/<actor 1001\.\.1091"):
        read_crema_d(tmp_path)
    (tmp_path / "AudioWAV").mkdir()
    with pytest.raises(InputError, match="no utterance of CREMA-D can be used; expected"):
        read_crema_d(tmp_path)

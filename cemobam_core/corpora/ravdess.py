"""RAVDESS (Livingstone and Russo, 2018), the speech in sound alone: its description, and a reader of its release."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.utterances import (
    BadUtterance,
    Found,
    RawCorpus,
    Utterance,
    compared,
    counted,
    examples,
    folders,
    gathered,
    listed,
    visible,
)
from cemobam_core.errors import InputError

ACTORS = tuple(f"{number:02d}" for number in range(1, 25))

COUNTS = {
    "neutral": 96,
    "calm": 192,
    "happy": 192,
    "sad": 192,
    "angry": 192,
    "fearful": 192,
    "disgust": 192,
    "surprised": 192,
}
"""Number of spoken utterances of each class in the release, in the order of their codes 01 to 08: 1440."""

STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}

_TREE = (
    "Actor_01/ to Actor_24/ with 03-01-<emotion>-<intensity>-<statement>-<repetition>-<actor>.wav "
    "(Audio_Speech_Actors_01-24.zip)"
)
_CLASSES = {f"{code:02d}": name for code, name in enumerate(COUNTS, 1)}
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
"""Modality (01 and 02 are videos, 03 is sound), channel (01 is speech, 02 is song), emotion, intensity, statement,
repetition, actor."""


def read_ravdess(root: Path) -> RawCorpus:
    """Read the speech. File names give everything. Songs and videos are left out and counted.

    Args:
        root: Folder of the actors, or a folder at most two levels above them.

    Raises:
        InputError: The folder does not contain the corpus, or none of its files can be used.
    """
    actors = [folder for folder in folders(root, title=RAVDESS.title, tree=_TREE, below=3) if _is_actor(folder)]
    if not actors:
        there = [child.name + "/" * child.is_dir() for child in visible(root)]
        raise InputError(f"{root}: not RAVDESS; it contains {examples(there) or 'nothing'}, expected: {_TREE}")
    found: dict[str, Found] = {}
    left_out: Counter[str] = Counter()
    several = []
    for clip in (clip for folder in actors for clip in visible(folder)):
        match = _NAME.fullmatch(clip.stem)
        if match and (kind := _other_than_speech(match)):
            left_out[kind] += 1
        elif clip.suffix.lower() != ".wav":
            continue
        elif clip.stem in found:
            several.append(clip.stem)
        else:
            found[clip.stem] = _utterance(clip, match)
    notes = list(_complete([one for one in found.values() if isinstance(one, Utterance)]))
    if left_out:
        notes.append(f"left out, because they are no speech in sound alone: {listed(dict(left_out))}")
    if several:
        notes.append(f"{len(several)} files are there twice, the first is used: {examples(several)}")
    return gathered(
        found.values(),
        notes,
        name=RAVDESS.name,
        title=RAVDESS.title,
        root=root,
        class_names=RAVDESS.class_names,
        tree=_TREE,
    )


def _is_actor(folder: Path) -> bool:
    return re.fullmatch(r"Actor_\d\d", folder.name) is not None


def _other_than_speech(match: re.Match[str]) -> str:
    if match[1] != "03":
        return "videos"
    return "songs" if match[2] == "02" else ""


def _complete(utterances: Sequence[Utterance]) -> Iterator[str]:
    """Report whether all utterances are there, and which actors lack some."""
    yield compared(counted(utterances, RAVDESS.class_names), COUNTS)
    speakers = Counter(u.speaker for u in utterances)
    each = sum(COUNTS.values()) // len(ACTORS)
    if short := [f"{actor} ({speakers[actor]} of {each})" for actor in ACTORS if speakers[actor] < each]:
        yield f"{len(short)} of {len(ACTORS)} actors lack utterances: {examples(short)}"


def _utterance(clip: Path, match: re.Match[str] | None) -> Found:
    def bad(reason: str) -> BadUtterance:
        return BadUtterance(id=clip.stem, reason=reason)

    if match is None or match[2] != "01":
        return bad(f"{clip.name} is not named as in RAVDESS, such as 03-01-06-01-02-01-12.wav")
    _, _, emotion, _, statement, _, actor = match.groups()
    if emotion not in _CLASSES:
        return bad(f"unknown emotion {emotion}")
    if statement not in STATEMENTS:
        return bad(f"unknown statement {statement}")
    if clip.parent.name != f"Actor_{actor}":
        return bad(f"it is in the folder {clip.parent.name}")
    return Utterance(
        id=clip.stem,
        audio=clip,
        text=STATEMENTS[statement],
        label=_CLASSES[emotion],
        speaker=actor,
        script=statement,
        scenario="scripted",
    )


RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS (speech)",
    class_names=tuple(COUNTS),
    about=(
        "RAVDESS is two statements said by 24 actors in eight emotions, under CC BY-NC-SA 4.0, from "
        "https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)"
    ),
    reader=read_ravdess,
)

"""CREMA-D (Cao et al., 2014): its description, and a reader of its folder AudioWAV."""

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
    find_root,
    gathered,
    visible,
)
from cemobam_core.errors import InputError
from cemobam_core.files import is_lfs_pointer

ACTORS = 91
"""Number of actors, 1001 to 1091."""

COUNTS = {"anger": 1271, "disgust": 1271, "fear": 1271, "happy": 1271, "neutral": 1087, "sad": 1271}
"""Number of utterances of each class in the release: 7442."""

SENTENCES = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
"""The sentences by their code in file names. Every actor says all of them."""

SILENT = "1076_MTI_SAD_XX"
"""Known fault of the release: a clip without sound."""

_TREE = "AudioWAV/<actor 1001..1091>_<sentence>_<emotion>_<intensity>.wav, such as AudioWAV/1001_DFA_ANG_XX.wav"
_CLASSES = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), COUNTS, strict=True))
_NAME = re.compile(rf"(1\d{{3}})_({'|'.join(SENTENCES)})_({'|'.join(_CLASSES)})_(LO|MD|HI|XX?)")
"""A file name without its suffix. The intensity is low, medium, high or unspecified; some copies have an X too few."""


def read_crema_d(root: Path) -> RawCorpus:
    """Read the clips. Their names give actor, sentence and the emotion that the actor was asked for.

    Args:
        root: Folder that contains ``AudioWAV``, or a folder above it, or ``AudioWAV`` itself.

    Raises:
        InputError: The folder does not contain the corpus, its files are pointers of Git LFS, or none can be used.
    """
    root = find_root(
        root,
        holds=lambda folder: (folder / "AudioWAV").is_dir() or folder.resolve().name == "AudioWAV",
        title=CREMA_D.title,
        tree=_TREE,
    )
    clips = [clip for clip in visible(root / "AudioWAV") or visible(root) if clip.suffix.lower() == ".wav"]
    pointers = {clip for clip in clips if clip.is_file() and is_lfs_pointer(clip)}
    if clips and len(pointers) == len(clips):
        raise InputError(
            f"{root}: its {len(clips)} WAV files are Git LFS pointers, not the sound itself; fetch the sound with git "
            "lfs pull in that folder"
        )
    found = [_utterance(clip, pointer=clip in pointers) for clip in clips if clip.stem != SILENT]
    return gathered(
        found,
        _notes([one for one in found if isinstance(one, Utterance)], silent=len(found) < len(clips)),
        name=CREMA_D.name,
        title=CREMA_D.title,
        root=root,
        class_names=CREMA_D.class_names,
        tree=_TREE,
    )


def _notes(utterances: Sequence[Utterance], *, silent: bool) -> Iterator[str]:
    """Report whether all utterances are there, which actors are missing, and the known fault of the release."""
    yield compared(counted(utterances, CREMA_D.class_names), COUNTS, {"sad": 1} if silent else {})
    if silent:
        yield f"left out, a known fault of the release: {SILENT} (it has no sound)"
    speakers = Counter(u.speaker for u in utterances)
    if missing := [str(actor) for actor in range(1001, 1001 + ACTORS) if str(actor) not in speakers]:
        yield f"{ACTORS - len(missing)} of {ACTORS} actors; no clips of {examples(missing)}"


def _utterance(clip: Path, *, pointer: bool) -> Found:
    if pointer:
        reason = f"{clip.name} is a Git LFS pointer, not the sound itself; fetch the sound with git lfs pull"
        return BadUtterance(id=clip.stem, reason=reason)
    match = _NAME.fullmatch(clip.stem)
    if match is None:
        return BadUtterance(id=clip.stem, reason=f"{clip.name} is not named as in CREMA-D, such as 1001_DFA_ANG_XX.wav")
    actor, sentence, emotion, _ = match.groups()
    return Utterance(
        id=clip.stem,
        audio=clip,
        text=SENTENCES[sentence],
        label=_CLASSES[emotion],
        speaker=actor,
        script=sentence,
        scenario="scripted",
    )


CREMA_D = Corpus(
    name="crema-d",
    title="CREMA-D",
    class_names=tuple(COUNTS),
    about=(
        "CREMA-D is twelve sentences said by 91 actors in six emotions, under the Open Database License, from "
        "https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS)"
    ),
    reader=read_crema_d,
)

"""IEMOCAP (Busso et al., 2008): its description with the usual sets of classes, and a reader of its release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cemobam_core.corpora.corpus import ClassSet, Corpus
from cemobam_core.corpora.text_files import read_lines
from cemobam_core.corpora.utterances import (
    BadUtterance,
    RawCorpus,
    Utterance,
    examples,
    find_root,
    visible,
)
from cemobam_core.errors import InputError

SESSIONS = ("1", "2", "3", "4", "5")

LABELS = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excited",
    "neu": "neutral",
    "sad": "sadness",
    "fru": "frustration",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
    "oth": "other",
}
"""Labels by their code in the release."""

COUNTS = {
    "1": (229, 135, 143, 384, 194, 280, 25, 12, 1, 1),
    "2": (137, 117, 210, 362, 197, 325, 17, 9, 0, 1),
    "3": (240, 135, 151, 320, 305, 382, 28, 2, 1, 0),
    "4": (327, 65, 238, 258, 143, 481, 19, 7, 0, 1),
    "5": (170, 143, 299, 384, 245, 381, 18, 10, 0, 0),
}
"""Number of utterances of each label (in the order of ``LABELS``) in each session of the release: 7532.

With the 2507 utterances without agreement these are all 10,039 of the release.
"""

_TREE = (
    "IEMOCAP_full_release/Session{1..5}/ with dialog/EmoEvaluation/*.txt, dialog/transcriptions/*.txt and "
    "sentences/wav/<dialog>/<utterance>.wav"
)
_NO_AGREEMENT = "xxx"

_NUMBER = r"(-?\d{1,9}(?:\.\d{0,9})?)"
_LABEL = re.compile(
    rf"\[\s*{_NUMBER}\s*-\s*{_NUMBER}\s*\]\s+(\S+)\s+([A-Za-z]+)(?:\s+\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\])?"
)
"""A label line, for example ``[6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]``."""
_TRANSCRIPT = re.compile(r"(Ses[^\s\[]+)\s*\[[^\]]*\]\s*:?(.*)")
"""A transcript line: ``Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.``. Lines without an id are side talk."""
_ID = re.compile(r"(Ses\d\d)[FM]_(impro|script)\w{0,40}_([FM])\w{1,40}")
"""Parts of an id: session and the speaker who wears the markers, kind of dialogue, and speaker of the turn.

The speaker of the turn is the utterance's speaker.
"""


def read_iemocap(root: Path) -> RawCorpus:
    """Read the utterances that have a label, which is left as it is. Raters do not agree on the others.

    Args:
        root: ``IEMOCAP_full_release``, or a folder that contains it.

    Raises:
        InputError: The folder does not contain the corpus, or none of its utterances can be used.
    """
    root = find_root(
        root, holds=lambda folder: any(_folder(folder, s).is_dir() for s in SESSIONS), title=IEMOCAP.title, tree=_TREE
    )
    sessions = [_Session(_folder(root, session), session) for session in SESSIONS if _folder(root, session).is_dir()]
    utterances = [u for session in sessions for u in session.utterances]
    bad = sorted((b for session in sessions for b in session.bad), key=lambda b: b.id)
    if not utterances:
        first = f" ({bad[0].id}: {bad[0].reason})" if bad else ""
        raise InputError(f"{root}: no utterance of IEMOCAP can be used{first}; expected: {_TREE}")
    return RawCorpus(
        name=IEMOCAP.name,
        title=IEMOCAP.title,
        root=root,
        class_names=tuple(LABELS.values()),
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        notes=tuple(_notes(root, sessions)),
        bad=tuple(bad),
        release={name: dict(zip(LABELS.values(), numbers, strict=True)) for name, numbers in COUNTS.items()},
    )


def _folder(root: Path, session: str) -> Path:
    return root / f"Session{session}"


def _notes(root: Path, sessions: Sequence[_Session]) -> Iterator[str]:
    """Report the utterances without agreement, the sessions that are missing, and anything unusual."""
    if without := sum(session.without_agreement for session in sessions):
        yield f"left out, because the raters do not agree: {without} utterances"
    for name in SESSIONS:
        here = [session for session in sessions if session.name == name]
        if not here:
            yield f"Session{name}: no such folder in {root}"
        for session in here:
            yield from session.notes


class _Session:
    """The content of one session: ``utterances``, ``bad`` ones, the number ``without_agreement``, and ``notes``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self.name = folder, name
        self.utterances: list[Utterance] = []
        self.bad: list[BadUtterance] = []
        self.without_agreement = 0
        self.notes = [
            f"{folder.name}: no folder {part}"
            for part in ("dialog/EmoEvaluation", "dialog/transcriptions", "sentences/wav")
            if not (folder / part).is_dir()
        ]
        self._wavs = {
            wav.stem: wav
            for dialog in visible(folder / "sentences" / "wav")
            for wav in visible(dialog)
            if wav.suffix.lower() == ".wav"
        }
        self._texts = self._transcripts()
        labels = self._labels()
        for utterance, line in labels.items():
            self._add(utterance, line)
        if unlabelled := sorted(self._wavs.keys() - labels.keys()):
            self.notes.append(f"{folder.name}: {len(unlabelled)} WAV files without a label: {examples(unlabelled)}")

    def _lines(self, part: str) -> Iterator[tuple[Path, int, str]]:
        """Yield the lines of all dialogues with their files and line numbers."""
        for path in visible(self._folder / "dialog" / part):
            if path.suffix == ".txt" and path.is_file():
                yield from ((path, number, line) for number, line in enumerate(read_lines(path), 1) if line)

    def _transcripts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        several = []
        for _, _, line in self._lines("transcriptions"):
            if match := _TRANSCRIPT.fullmatch(line):
                name, text = match[1], " ".join(match[2].split())
                if texts.setdefault(name, text) != text:
                    several.append(name)
        if several:
            self.notes.append(
                f"{self._folder.name}: {len(several)} utterances have several transcripts, the first is used: "
                f"{examples(several)}"
            )
        return texts

    def _labels(self) -> dict[str, re.Match[str] | None]:
        """Return the label line of each utterance, or ``None`` if two lines disagree."""
        labels: dict[str, re.Match[str] | None] = {}
        for path, number, line in self._lines("EmoEvaluation"):
            if not line.startswith("["):
                continue  # the header (%) and the raters' own lines (C-E1:, A-M1: …)
            match = _LABEL.fullmatch(line)
            if match is None or not _ID.fullmatch(match[3]):
                where = f"{self._folder.name}/dialog/EmoEvaluation/{path.name} line {number}"
                self.bad.append(BadUtterance(id=where, reason=f"not a label line: {line[:80]!r}"))
            elif int(match[3][3:5]) != int(self.name):
                self.bad.append(BadUtterance(id=match[3], reason=f"its name has another session than the file {path}"))
            else:
                first = labels.setdefault(match[3], match)
                if first is None or first[4] != match[4]:
                    labels[match[3]] = None
        return labels

    def _add(self, name: str, line: re.Match[str] | None) -> None:
        if line is None:
            self.bad.append(BadUtterance(id=name, reason="it has two different labels"))
            return
        code = line[4].lower()
        if code == _NO_AGREEMENT:
            self.without_agreement += 1
        elif code not in LABELS:
            self.bad.append(BadUtterance(id=name, reason=f"unknown label {line[4]!r}"))
        elif reason := self._problem(name):
            self.bad.append(BadUtterance(id=name, reason=reason, label=LABELS[code]))
        else:
            self.utterances.append(self._utterance(name, line))

    def _problem(self, name: str) -> str:
        """Return why an utterance with a label cannot be used, or an empty string if it can."""
        if name not in self._wavs:
            return "it has a label, but no WAV file"
        if name not in self._texts:
            return "it has a label, but no transcript"
        return "" if self._texts[name] else "its transcript is empty"

    def _utterance(self, name: str, line: re.Match[str]) -> Utterance:
        parts = _ID.fullmatch(name)
        assert parts
        script = re.match(r"Ses\d\d[FM]_((?:impro|script)\d+)", name)  # impro05a and script02_1 are parts
        start, end, valence, activation, dominance = (
            None if number is None else float(number) for number in line.group(1, 2, 5, 6, 7)
        )
        return Utterance(
            id=name,
            audio=self._wavs[name],
            text=self._texts[name],
            label=LABELS[line[4].lower()],
            speaker=parts[1] + parts[3],
            session=self.name,
            script=script[1] if script else None,
            scenario="improvised" if parts[2] == "impro" else "scripted",
            start=start,
            end=end,
            valence=valence,
            activation=activation,
            dominance=dominance,
        )


_FOUR: ClassSet = {
    "anger": ("anger",),
    "happiness": ("happiness", "excited"),
    "neutral": ("neutral",),
    "sadness": ("sadness",),
}
_FIVE: ClassSet = {**_FOUR, "frustration": ("frustration",)}
_SIX: ClassSet = {**_FIVE, "surprise": ("surprise",)}
_ERC: ClassSet = {name: (name,) for name in ("happiness", "sadness", "neutral", "anger", "excited", "frustration")}
"""The six classes of the literature on emotion recognition in conversation (Majumder et al., 2019), in its order."""

IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    class_names=tuple(_FOUR),
    about=(
        "IEMOCAP is twelve hours of acted English dialogue in five sessions, free for research under a licence that "
        "the University of Southern California grants at https://sail.usc.edu/iemocap/"
    ),
    reader=read_iemocap,
    class_sets={"4": _FOUR, "5": _FIVE, "6": _SIX, "erc": _ERC},
)

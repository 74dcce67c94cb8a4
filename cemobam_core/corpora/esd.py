"""ESD (Zhou et al., 2022), English part: its description, and a reader of its release."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.text_files import read_lines
from cemobam_core.corpora.utterances import (
    BadUtterance,
    RawCorpus,
    Utterance,
    counted,
    examples,
    find_root,
    listed,
    split_named,
    visible,
)
from cemobam_core.errors import InputError

SPEAKERS = tuple(f"{number:04d}" for number in range(11, 21))
SENTENCES = 350
"""Number of sentences that each speaker reads in each emotion."""

_TREE = "<speaker 0011..0020>/<speaker>.txt and <speaker>/<Emotion>/[train|evaluation|test/]<utterance>.wav"
_CLASSES = ("neutral", "angry", "happy", "sad", "surprise")
_LINE = re.compile(r"(\d{4}_\d{6})(?:\s+(\S.*))?")
_EMOTION_AT_END = re.compile(rf"(.*?)(?:^|\s+|(?<=[.!?,;:]))({'|'.join(_CLASSES)})", re.IGNORECASE)


def read_esd(root: Path) -> RawCorpus:
    """Read the English speakers. The folder of a WAV file gives its label and, if there are split folders, its split.

    Args:
        root: Folder of the speakers, or a folder that contains it.

    Raises:
        InputError: The folder does not contain the corpus, or none of its utterances can be used.
    """
    root = find_root(root, holds=_holds_speakers, title=ESD.title, tree=_TREE)
    utterances: list[Utterance] = []
    bad: list[BadUtterance] = []
    notes: list[str] = []
    for speaker in SPEAKERS:
        folder = root / speaker
        if folder.is_dir():
            found = _read_speaker(folder, notes)
            utterances += (u for u in found if isinstance(u, Utterance))
            bad += (u for u in found if isinstance(u, BadUtterance))
        else:
            notes.append(f"{speaker}: no such folder in {root}")
    bad.sort(key=lambda b: b.id)
    if not utterances:
        first = f" ({bad[0].id}: {bad[0].reason})" if bad else ""
        raise InputError(f"{root}: no utterance of ESD can be used{first}; expected: {_TREE}")
    return RawCorpus(
        name=ESD.name,
        title=ESD.title,
        root=root,
        class_names=ESD.class_names,
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        notes=(*_complete(utterances), *notes),
        bad=tuple(bad),
    )


def _holds_speakers(folder: Path) -> bool:
    return any((folder / speaker).is_dir() for speaker in SPEAKERS)


def _complete(utterances: list[Utterance]) -> Iterator[str]:
    """Report whether all 17,500 utterances are there, and which speakers lack some."""
    counts = counted(utterances, _CLASSES)
    total = SENTENCES * len(SPEAKERS)
    what = f"{len(utterances)} of {total * len(_CLASSES)} utterances"
    if all(count == total for count in counts.values()):
        yield f"{what}: {listed(counts)}; complete"
        return
    yield what + ": " + ", ".join(f"{count} of {total} {name}" for name, count in counts.items())
    speakers: defaultdict[str, list[str]] = defaultdict(list)  # by missing utterances, which are often the same
    for speaker in sorted({u.speaker for u in utterances if u.speaker}):
        have = counted((u for u in utterances if u.speaker == speaker), _CLASSES)
        short = [f"{count} of {SENTENCES} {name}" for name, count in have.items() if count != SENTENCES]
        if short:
            speakers[", ".join(short)].append(speaker)
    yield from (f"{', '.join(who)}: {short}" for short, who in speakers.items())


def _read_speaker(folder: Path, notes: list[str]) -> list[Utterance | BadUtterance]:
    speaker = folder.name
    wavs, unknown_folders = _wavs(folder)
    if unknown_folders:
        notes.append(f"{speaker}: left out, because they are not emotions of ESD: {examples(unknown_folders)}")
    lines, unread = _transcripts(folder / f"{speaker}.txt", notes)
    odd = Counter(emotion for _, emotion in lines.values() if emotion and emotion.lower() not in _CLASSES)
    if odd:
        notes.append(f"{speaker}.txt: emotions unknown to ESD; the folders decide instead: {listed(dict(odd))}")
    found: list[Utterance | BadUtterance] = [
        _utterance(name, speaker, places, lines.get(name)) for name, places in wavs.items()
    ]
    missing = (
        BadUtterance(id=name, reason="a transcript without its WAV file", label=_label(lines[name][1]))
        for name in lines.keys() - wavs.keys()
    )
    return [*found, *missing, *unread]


def _wavs(folder: Path) -> tuple[dict[str, list[tuple[str, str | None, Path]]], list[str]]:
    """Return a speaker's WAV files by utterance, with emotion and split, and the folders that are not emotions."""
    wavs: defaultdict[str, list[tuple[str, str | None, Path]]] = defaultdict(list)
    unknown_folders = []
    for emotion in visible(folder):
        if not emotion.is_dir():
            continue
        if emotion.name.lower() not in _CLASSES:
            unknown_folders.append(emotion.name)
            continue
        for child in visible(emotion):
            split = split_named(child.name) if child.is_dir() else None
            for wav in visible(child) if child.is_dir() else [child]:
                if wav.suffix.lower() == ".wav":
                    wavs[wav.stem].append((emotion.name.lower(), split, wav))
    return wavs, unknown_folders


def _transcripts(path: Path, notes: list[str]) -> tuple[dict[str, tuple[str, str]], list[BadUtterance]]:
    """Return text and emotion by utterance (the emotion may be empty), and the lines that cannot be read."""
    if not path.is_file():
        notes.append(f"{path.stem}: no transcripts {path.stem}/{path.name}")
        return {}, []
    lines: dict[str, tuple[str, str]] = {}
    unread, several = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            unread.append(BadUtterance(id=f"{path.name} line {number}", reason=f"not a transcript line: {line[:80]!r}"))
            continue
        name, rest = match[1], _text_and_emotion(match[2] or "")
        if lines.setdefault(name, rest) != rest:
            several.append(name)
    if several:
        notes.append(
            f"{path.stem}: {len(several)} utterances have several transcripts, the first is used: {examples(several)}"
        )
    return lines, unread


def _text_and_emotion(rest: str) -> tuple[str, str]:
    """Split the text after the id at the last tab or, without tabs, before the emotion's name at the end."""
    text, tab, emotion = rest.rpartition("\t")
    if tab:
        return " ".join(text.split()), emotion.strip()
    rest = " ".join(rest.split())
    match = _EMOTION_AT_END.fullmatch(rest)
    return (match[1], match[2]) if match else (rest, "")


def _label(emotion: str) -> str | None:
    return emotion.lower() if emotion.lower() in _CLASSES else None


def _utterance(
    name: str, speaker: str, places: list[tuple[str, str | None, Path]], line: tuple[str, str] | None
) -> Utterance | BadUtterance:
    def bad(reason: str) -> BadUtterance:
        return BadUtterance(id=name, reason=reason, label=label if len(labels) == 1 else None)

    labels = sorted({label for label, _, _ in places})
    splits = sorted({split for _, split, _ in places if split})
    label = labels[0]
    if not name.startswith(f"{speaker}_"):
        return bad(f"it is in the folder of speaker {speaker}")
    if len(labels) > 1 or len(splits) > 1:
        return bad(f"it is in several folders: {', '.join(labels if len(labels) > 1 else splits)}")
    if line is None:
        return bad("a WAV file without a transcript")
    text, emotion = line
    if not text:
        return bad("its transcript is empty")
    if emotion.lower() in _CLASSES and emotion.lower() != label:
        return bad(f"its transcript says {emotion}, but it is in the folder {label}")
    # If both layouts were unpacked into one folder, the same file exists twice: with and without its split.
    _, split, audio = max(places, key=lambda place: place[1] is not None)
    return Utterance(id=name, audio=audio, text=text, label=label, speaker=speaker, splits=(split,) if split else ())


ESD = Corpus(
    name="esd",
    title="ESD (English)",
    class_names=_CLASSES,
    about=(
        "ESD is 350 sentences read by ten English and ten Mandarin speakers in five emotions, free for research from "
        "https://github.com/HLTSingapore/Emotional-Speech-Data"
    ),
    reader=read_esd,
)

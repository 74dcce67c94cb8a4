"""A raw corpus as read from disk: its utterances, and what was missing or odd."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cemobam_core.errors import InputError

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "evaluation": "val",  # ESD has train, evaluation and test
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One audio clip with its transcript, label, speaker and session, as the corpus has it.

    Attributes:
        id: its name, distinct in the corpus.
        audio: the file; it existed when the corpus was read and has not been opened.
        text: the transcript, white space folded, never empty.
        label: one of the corpus's class names.
        speaker: who speaks, where known.
        session: in which recording session, where known.
        split: train, val or test, where the corpus itself says so.
        scenario: ``improvised`` or ``scripted``, where known.
        start: in seconds, in the dialogue that the clip was cut from.
        end: likewise.
        valence: the mean over the raters, where the corpus has it.
        activation: likewise.
        dominance: likewise.
    """

    id: str
    audio: Path
    text: str
    label: str
    speaker: str | None = None
    session: str | None = None
    split: str | None = None
    scenario: str | None = None
    start: float | None = None
    end: float | None = None
    valence: float | None = None
    activation: float | None = None
    dominance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BadUtterance:
    """Something that should have been an utterance and cannot be used.

    Attributes:
        id: the utterance, or the file and line where there is no telling.
        reason: what is wrong with it, for the user.
    """

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RawCorpus:
    """A corpus on disk, parsed: who said what, where; no audio has been opened.

    Attributes:
        name: as ``--dataset`` takes it.
        title: as tables and figures show it.
        root: its folder, or a manifest's file.
        class_names: the emotions, in the order of the labels' numbers.
        utterances: those that can be used, sorted by id.
        notes: how many there are, and what is missing or odd: a line each, for the user.
        bad: what should have been an utterance and cannot be used, sorted by id.
    """

    name: str
    title: str
    root: Path
    class_names: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    notes: tuple[str, ...] = ()
    bad: tuple[BadUtterance, ...] = ()

    @property
    def folder(self) -> Path:
        """What relative paths are relative to: the corpus's folder, or the manifest's."""
        return self.root if self.root.is_dir() else self.root.parent

    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for these utterances: what the files say, their names and their sizes.

        No audio is read, so audio that was replaced by other audio of just the same size goes unnoticed; where the
        root lies does not matter.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for u in self.utterances:
            try:
                size = u.audio.stat().st_size
            except OSError:
                size = -1  # it went away since; who opens it will say so
            path = Path(os.path.relpath(u.audio, self.folder)).as_posix()
            digest.update(json.dumps([u.id, u.text, u.label, u.speaker, u.session, u.split, path, size]).encode())
        return digest.hexdigest()[:16]


def find_root(root: Path, *, holds: Callable[[Path], bool], title: str, tree: str) -> Path:
    """Return the folder that is the corpus: ``root`` itself, or one within it, at most two levels down.

    Args:
        root: what the user gave.
        holds: whether a folder is the corpus's.
        title: of the corpus.
        tree: what is expected, in one line.

    Raises:
        InputError: no such folder, or several; the message shows the tree that was expected.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; give the folder of {title}: {tree}")
    level = [root]
    for _ in range(3):
        if found := [folder for folder in level if holds(folder)]:
            if len({folder.resolve() for folder in found}) > 1:
                raise InputError(f"{root}: both {found[0]} and {found[1]} look like {title}; give one of them")
            return found[0]
        # A disk's lost+found is not for reading.
        level = [c for folder in level for c in visible(folder) if os.access(c, os.R_OK | os.X_OK) and c.is_dir()]
    there = [child.name + "/" * child.is_dir() for child in visible(root)]
    raise InputError(f"{root}: not {title}; it holds {examples(there) or 'nothing'}, expected is {tree}")


def visible(folder: Path) -> list[Path]:
    """List what a folder holds, sorted, without hidden files such as macOS's ``._*``; nothing if there is no folder."""
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_lines(path: Path) -> list[str]:
    """Return the lines of an English text file in whichever encoding it came, white space at their ends stripped.

    UTF-16 and UTF-8 are told by their byte order marks or their validity. Of the others, each line is taken as GBK
    unless that gives Chinese characters, which are Windows-1252 misread: 0x92 0x73 is an apostrophe and an s.
    """
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        lines = raw.decode("utf-16", errors="replace").split("\n")
    elif raw.count(0) > len(raw) / 4:  # UTF-16 without its mark: most of English has zeros for high bytes
        big = raw[0::2].count(0) > raw[1::2].count(0)
        lines = raw.decode("utf-16-be" if big else "utf-16-le", errors="replace").split("\n")
    else:
        raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
        lines = [_decode(line) for line in raw.split(b"\n")]
    return [line.strip() for line in lines]


def _decode(line: bytes) -> str:
    for encoding in ("utf-8", "gbk"):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or not any("\u3400" <= c <= "\u9fff" for c in text):
            return text
    return line.decode("cp1252", errors="replace")


def counted(utterances: Iterable[Utterance], class_names: Sequence[str]) -> dict[str, int]:
    """Count the utterances of each class."""
    counts = Counter(u.label for u in utterances)
    return {name: counts[name] for name in class_names}


def listed(counts: dict[str, int]) -> str:
    """Write counts for a reader: ``1103 anger, 1636 happiness``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def examples(names: Iterable[str], most: int = 3) -> str:
    """Write the first few names, and how many more there are."""
    everyone = list(names)
    more = len(everyone) - most
    return ", ".join(islice(everyone, most)) + (f" and {more} more" if more > 0 else "")


def split_named(name: str) -> str | None:
    """Return the split that corpora call by this name; None if they call none so."""
    return _SPLIT_NAMES.get(name.strip().lower())

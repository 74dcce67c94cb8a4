"""A raw corpus as read from disk: its utterances, and what is missing or unusual."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cemobam_core.errors import InputError

_NONE: Mapping[str, int] = {}

_MOST_FOLDERS = 100_000
"""Largest number of folders in which a corpus is looked for."""

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
class Part:
    """A part of a sound file, for a corpus with many utterances in one file. As a path it is the file.

    Attributes:
        file: The sound file.
        start: Start of the part in seconds.
        end: End of the part in seconds.
    """

    file: Path
    start: float
    end: float

    def __fspath__(self) -> str:
        """Return the path of the file."""
        return str(self.file)

    def __str__(self) -> str:
        """Return the file and the part for the user."""
        return f"{self.file} from {self.start:g} to {self.end:g} s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One audio clip with its transcript, label, speaker and session, as in the corpus.

    Attributes:
        id: Name of the utterance, distinct in the corpus.
        audio: Audio file, or a part of it. It existed when the corpus was read, but was not opened.
        text: Transcript with single spaces. It is empty only in a corpus without transcripts.
        label: Name of the class.
        speaker: Speaker, if known.
        session: Recording session, if known.
        splits: The corpus's own split of the utterance (``train``, ``val`` or ``test``) in each of the corpus's own
            folds. Empty if the corpus defines no splits. An empty string stands for a fold that leaves it out.
        script: Script or scenario that the utterance belongs to, if known. Speakers share it.
        scenario: ``improvised``, ``scripted``, or ``natural`` (between the scenes), if known.
        start: Start of the clip in its dialogue, in seconds, if known.
        end: End of the clip in its dialogue, in seconds, if known.
        valence: Mean valence over the raters, if known.
        activation: Mean activation over the raters, if known.
        dominance: Mean dominance over the raters, if known.
    """

    id: str
    audio: Path | Part
    text: str
    label: str
    speaker: str | None = None
    session: str | None = None
    splits: tuple[str, ...] = ()
    script: str | None = None
    scenario: str | None = None
    start: float | None = None
    end: float | None = None
    valence: float | None = None
    activation: float | None = None
    dominance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BadUtterance:
    """An utterance that cannot be used.

    Attributes:
        id: Name of the utterance, or the file and line if the name is unknown.
        reason: Description of the problem for the user.
        label: Name of the class, if known.
    """

    id: str
    reason: str
    label: str | None = None


Found = Utterance | BadUtterance


@dataclass(frozen=True, kw_only=True)
class RawCorpus:
    """A parsed corpus on disk. No audio file has been opened.

    Attributes:
        name: Name for ``--dataset``.
        title: Name in tables and figures.
        root: Folder of the corpus, or manifest file.
        class_names: Names of the classes, in the order of their indices. A reader returns the corpus's own labels.
        utterances: Utterances that can be used, sorted by id.
        notes: Lines for the user: the number of utterances, and what is missing or unusual.
        bad: Utterances that cannot be used, sorted by id.
        release: Number of utterances of each label in each session of the complete corpus. Empty if unknown.
        reduction: A line for the user: which labels form a class together, and which are left out. Empty if none.
    """

    name: str
    title: str
    root: Path
    class_names: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    notes: tuple[str, ...] = ()
    bad: tuple[BadUtterance, ...] = ()
    release: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reduction: str = ""

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from: the corpus's folder, or the manifest's."""
        return self.root if self.root.is_dir() else self.root.parent

    @property
    def transcribed(self) -> bool:
        """Whether the corpus has transcripts."""
        return any(u.text for u in self.utterances)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that identify these utterances: content of the tables, audio names and sizes.

        No audio file is read, so audio that is replaced by other audio of the same size is not noticed. The location of
        the root does not matter.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for u in self.utterances:
            try:
                size = Path(u.audio).stat().st_size
            except OSError:
                size = -1  # deleted in the meantime; opening it will raise an error
            path = Path(os.path.relpath(u.audio, self.folder)).as_posix()
            part = [u.audio.start, u.audio.end] if isinstance(u.audio, Part) else []
            row = [u.id, u.text, u.label, u.speaker, u.session, u.script, u.splits, path, size, *part]
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()[:16]


def gathered(
    found: Iterable[Found],
    notes: Iterable[str],
    *,
    name: str,
    title: str,
    root: Path,
    class_names: Sequence[str],
    tree: str,
) -> RawCorpus:
    """Return a corpus of what was found on disk, sorted by id.

    Args:
        found: Utterances that can be used and that cannot.
        notes: Lines for the user.
        name: Name for ``--dataset``.
        title: Name in tables and figures.
        root: Folder of the corpus, or manifest file.
        class_names: Names of the classes, in the order of their indices.
        tree: Expected files in one line.

    Raises:
        InputError: No utterance can be used. The message shows the expected files.
    """
    everything = sorted(found, key=lambda one: one.id)
    utterances = tuple(one for one in everything if isinstance(one, Utterance))
    bad = tuple(one for one in everything if isinstance(one, BadUtterance))
    if not utterances:
        first = f" ({bad[0].id}: {bad[0].reason})" if bad else ""
        raise InputError(f"{root}: no utterance of {title} can be used{first}; expected: {tree}")
    return RawCorpus(
        name=name,
        title=title,
        root=root,
        class_names=tuple(class_names),
        utterances=utterances,
        notes=tuple(notes),
        bad=bad,
    )


def find_root(root: Path, *, holds: Callable[[Path], bool], title: str, tree: str) -> Path:
    """Return the folder of the corpus: ``root`` itself, or a folder at most two levels below it.

    Args:
        root: Folder that the user gave.
        holds: Function that returns whether a folder is the corpus.
        title: Title of the corpus.
        tree: Expected files in one line.

    Raises:
        InputError: There is no such folder, or several. The message shows the expected files.
    """
    for level in islice(_levels(root, title, tree), 3):
        if found := [folder for folder in level if holds(folder)]:
            if len({folder.resolve() for folder in found}) > 1:
                raise InputError(f"{root}: both {found[0]} and {found[1]} look like {title}; give one of them")
            return found[0]
    there = [child.name + "/" * child.is_dir() for child in visible(root)]
    raise InputError(f"{root}: not {title}; it contains {examples(there) or 'nothing'}, expected: {tree}")


def folders(root: Path, *, title: str, tree: str, below: int = 2) -> list[Path]:
    """Return a folder and the folders below it, nearest first.

    Args:
        root: Folder that the user gave.
        title: Title of the corpus.
        tree: Expected files in one line.
        below: Number of levels below ``root``.

    Raises:
        InputError: ``root`` is not a folder. The message shows the expected files.
    """
    return [folder for level in islice(_levels(root, title, tree), below + 1) for folder in level]


def _levels(root: Path, title: str, tree: str) -> Iterator[list[Path]]:
    """Yield the folder, then the folders in it, then those in them, without hidden ones.

    Folders that cannot be read are skipped, such as a disk's ``lost+found``.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; give the folder of {title}: {tree}")
    level, seen = [root], {_identity(root)}
    while level:
        yield level
        level = [below for folder in level for below in _subfolders(folder, seen)]
        if len(seen) > _MOST_FOLDERS:
            raise InputError(f"{root}: has more than {_MOST_FOLDERS} folders; give the folder of {title}: {tree}")


def _subfolders(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the folders in a folder that have not been seen: links may lead back."""
    with os.scandir(folder) as entries:
        inside = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    for entry in sorted(inside, key=lambda e: e.name):
        if os.access(entry, os.R_OK | os.X_OK) and (identity := _identity(entry)) not in seen:
            seen.add(identity)
            yield Path(entry.path)


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    about = os.stat(folder)  # noqa: PTH116  (an entry's own stat has no identity on Windows)
    return about.st_dev, about.st_ino


def visible(folder: Path) -> list[Path]:
    """Return the sorted content of a folder without hidden files such as ``._*``, or ``[]`` if it does not exist."""
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def counted(utterances: Iterable[Utterance], class_names: Sequence[str]) -> dict[str, int]:
    """Count the utterances of each class."""
    counts = Counter(u.label for u in utterances)
    return {name: counts[name] for name in class_names}


def listed(counts: dict[str, int]) -> str:
    """Format counts for the user: ``1103 anger, 1636 happiness``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def compared(counts: Mapping[str, int], published: Mapping[str, int], faulty: Mapping[str, int] = _NONE) -> str:
    """Compare the utterances of each class with a release, for the user.

    Args:
        counts: Utterances by class.
        published: Utterances by class in the release.
        faulty: Utterances by class that the release is known to contain in vain, and that are not in ``counts``.
    """
    what = f"{sum(counts.values())} of {sum(published.values())} utterances: "
    if all(counts[name] + faulty.get(name, 0) == number for name, number in published.items()):
        but = " but for known faults of the release" if faulty else ""
        return f"{what}{listed(dict(counts))}; complete{but}"
    return what + ", ".join(f"{counts[name]} of {number} {name}" for name, number in published.items())


def examples(names: Iterable[str], most: int = 3) -> str:
    """Format the first ``most`` names and the number of the others."""
    everyone = list(names)
    more = len(everyone) - most
    return ", ".join(islice(everyone, most)) + (f" and {more} more" if more > 0 else "")


def split_named(name: str) -> str | None:
    """Return the split that corpora call by this name, or ``None`` if it is not the name of a split."""
    return _SPLIT_NAMES.get(name.strip().lower())

"""Any other corpus, described by a manifest: a table of audio files, texts and labels."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cemobam_core.corpora.emobox import is_emobox, read_emobox
from cemobam_core.corpora.reading import read_raw, read_walled
from cemobam_core.corpora.table import Layout, Place, check_labels, read_json_lines, read_table
from cemobam_core.corpora.utterances import (
    BadUtterance,
    RawCorpus,
    Utterance,
    counted,
    examples,
    listed,
    split_named,
    visible,
)
from cemobam_core.errors import InputError

_ALIASES = {"audio_file": "audio", "raw_text": "text"}
"""Column names in the authors' metadata files."""
_OF_A_CORPUS = Layout(
    required=("audio", "label"), optional=("text", "id", "speaker", "session", "script", "split"), aliases=_ALIASES
)
_OF_CLIPS = Layout(
    required=("audio",), optional=("label", "text", "id", "speaker", "session", "script", "split"), aliases=_ALIASES
)
_JSONL, _TABLES = (".jsonl", ".ndjson"), (".csv", ".tsv", ".txt")

_SIMILARITY, _FREQUENT = 0.8, 3
"""A label that occurs once and has this similarity to a label that occurs so often is taken for a typing error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row(Place):
    """One line of a manifest. A missing column is an empty string."""

    audio: str
    text: str
    label: str
    id: str
    speaker: str
    session: str
    script: str
    split: str

    @property
    def name(self) -> str:
        return self.id or Path(self.audio).stem or self.audio

    def bad(self, reason: str, label: str) -> BadUtterance:
        return BadUtterance(id=self.name, reason=f"{reason} ({self.file.name} line {self.line})", label=label)


def read_manifest(file: Path, *, name: str, class_names: Sequence[str] | None = None) -> RawCorpus:
    """Read a CSV (commas, tabs or semicolons) or JSONL with ``audio``, ``text`` and ``label``.

    Without a column ``text`` all transcripts are empty. Optional columns are ``id`` (default: the name of the audio
    file without its extension), ``speaker``, ``session``, ``script`` and ``split``. The authors' metadata files
    (``audio_file``, ``raw_text``, ``label``) can be read unchanged, also all three at once from a folder with
    ``train``, ``val`` and ``test`` or ``<CORPUS>_metadata_<split>``. Audio paths are relative to the manifest's folder.
    If all labels are integers, they are indices of the class names, from 0.

    Metadata of EmoBox are recognised and read by ``read_emobox``. They have labels of their own.

    Args:
        file: The manifest, or a folder with one manifest per split, or EmoBox's folder or list of a corpus.
        name: Name of the corpus, as in ``--dataset``.
        class_names: Names of the classes. ``None`` for the labels that occur, sorted (``class_0`` and so on for
            integers).

    Raises:
        InputError: A file cannot be read, a column is missing, an id is repeated, a split or label is unknown, there
            are fewer than two classes, or no audio file exists. A single missing audio file or empty text only makes
            its utterance bad.
    """
    return read_raw(_read, file, name, class_names)


def _read(file: Path, name: str, class_names: Sequence[str] | None) -> RawCorpus:
    if is_emobox(file):
        return read_emobox(file, name=name)
    rows = [row for path, split in manifest_files(file) for row in manifest_rows(path, split)]
    if not rows:
        raise InputError(f"{file}: no utterances; give one per line, with audio, text and label")
    _check_ids(rows)
    label_of, names = _classes(rows, class_names)
    if len(set(label_of.values())) < 2:
        raise InputError(f"{file}: every label is {rows[0].label!r}; give utterances of at least two classes")
    utterances: list[Utterance] = []
    bad: list[BadUtterance] = []
    written = any(row.text for row in rows)
    for row in rows:
        audio = row.file.parent / row.audio
        if not _is_file(audio):
            bad.append(row.bad(f"no audio file {audio}", label_of[row.label]))
        elif written and not row.text:
            bad.append(row.bad("its text is empty", label_of[row.label]))
        else:
            utterances.append(
                Utterance(
                    id=row.name,
                    audio=audio,
                    text=row.text,
                    label=label_of[row.label],
                    speaker=row.speaker or None,
                    session=row.session or None,
                    script=row.script or None,
                    splits=tuple(filter(None, [split_named(row.split)])),
                )
            )
    if not utterances:
        raise InputError(
            f"{file}: none of its {len(rows)} utterances can be used ({bad[0].id}: {bad[0].reason}); "
            "audio paths are relative to the manifest's folder"
        )
    notes = [f"{len(utterances)} of {len(rows)} utterances: {listed(counted(utterances, names))}"]
    if class_names and label_of.keys() - names:
        notes.append(
            "labels: " + ", ".join(f"{label} is {label_of[label]}" for label in sorted(label_of, key=_numeric))
        )
    files = Counter(Path(u.audio) for u in utterances)
    if shared := [path.name for path, count in files.items() if count > 1]:
        notes.append(f"{len(shared)} audio files occur in several lines: {examples(shared)}")
    return RawCorpus(
        name=name,
        title=name,
        root=file,
        class_names=names,
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
        notes=tuple(notes),
        bad=tuple(sorted(bad, key=lambda b: b.id)),
    )


def read_clips(file: Path, class_names: Sequence[str]) -> tuple[Utterance, ...]:
    """Read a manifest of clips to label. ``audio`` is its only required column.

    Args:
        file: The manifest, as for :func:`read_manifest`.
        class_names: Names of the classes that a label may have.

    Returns:
        The clips in the manifest's order. Without a column ``text`` or ``label``, transcripts or labels are empty.

    Raises:
        InputError: A file cannot be read, the column ``audio`` is missing, an id is repeated, a label is unknown or
            missing in some lines only, or an audio file does not exist.
    """
    return read_walled(Utterance, _read_clips, file, class_names)


def _read_clips(file: Path, class_names: Sequence[str]) -> tuple[Utterance, ...]:
    rows = [row for path, split in manifest_files(file) for row in manifest_rows(path, split, _OF_CLIPS)]
    if not rows:
        raise InputError(f"{file}: no clips; give one per line, with audio, and text and label if they are known")
    _check_ids(rows)
    labelled = any(row.label for row in rows)
    for row in rows:
        if labelled and not row.label:
            raise row.error("label is empty, but other lines have one; fill it in or delete the column")
        if not _is_file(row.file.parent / row.audio):
            raise row.error(f"no audio file {row.file.parent / row.audio}; correct the path or delete the line")
    label_of = _classes(rows, class_names)[0] if labelled else {"": ""}
    return tuple(
        Utterance(id=row.name, audio=row.file.parent / row.audio, text=row.text, label=label_of[row.label])
        for row in rows
    )


def manifest_files(path: Path) -> list[tuple[Path, str]]:
    """Return the manifest, or the three manifests of a folder with their splits, which their names give."""
    if not path.is_dir():
        return [(path, "")]
    found: dict[str, Path] = {}
    for child in visible(path):
        match = re.fullmatch(r"(?:.*_metadata_)?([A-Za-z]+)", child.stem)
        split = split_named(match[1]) if match and child.suffix.lower() in (*_JSONL, *_TABLES) else None
        if split is None:
            continue
        if split in found:
            raise InputError(f"{path}: both {found[split].name} and {child.name} could be {split}; keep one of them")
        found[split] = child
    if len(found) < 3:
        raise InputError(
            f"{path}: a folder without train, val and test (.csv or .jsonl; also <CORPUS>_metadata_<split>.csv); "
            "give a manifest file, or a folder with these three"
        )
    return [(child, split) for split, child in found.items()]


def manifest_rows(path: Path, split: str, layout: Layout = _OF_A_CORPUS) -> Iterator[_Row]:
    """Yield the lines of a manifest, which are of a split if its name says so."""
    if path.suffix.lower() not in (*_JSONL, *_TABLES):
        raise InputError(f"{path}: neither CSV ({', '.join(_TABLES)}) nor JSONL ({', '.join(_JSONL)}); rename the file")
    for one in (read_json_lines if path.suffix.lower() in _JSONL else read_table)(path, layout):
        row = _Row(
            file=path,
            line=one.line,
            audio=one.word("audio"),
            text=one.text("text"),
            label=one.label("label"),
            id=one.word("id"),
            speaker=one.word("speaker"),
            session=one.word("session"),
            script=one.word("script"),
            split=one.word("split") or split,
        )
        if row.split and split_named(row.split) is None:
            raise row.error(f"split {row.split!r:.60} is unknown; write train, val or test")
        for column in layout.required:
            if not getattr(row, column):
                raise row.error(f"{column} is empty; fill it in or delete the line")
        yield row


def _check_ids(rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.name, row)
        if other is not row:
            where = f"line {other.line}" + (f" of {other.file}" if other.file != row.file else "")
            remedy = "give each its own id" if row.id and other.id else "add a column id with distinct values"
            raise row.error(f"id {row.name!r} already occurs in {where}; {remedy}")


def _classes(rows: Sequence[_Row], class_names: Sequence[str] | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the class of each label in the manifest, and all classes."""
    first: dict[str, _Row] = {}
    for row in rows:
        first.setdefault(row.label, row)
    check_labels(rows[0].file, list(first))
    times = Counter(row.label for row in rows)
    numbers = all(re.fullmatch(r"[0-9]{1,9}", label) for label in first)
    if class_names is None:
        if numbers:
            classes = {label: f"class_{int(label)}" for label in first}
            return classes, tuple(sorted(set(classes.values()), key=_numeric))
        folded: dict[str, str] = {}
        frequent = [name for name in first if times[name] >= _FREQUENT]
        for label, row in first.items():
            if (other := folded.setdefault(label.casefold(), label)) != label:
                raise row.error(
                    f"label {label!r} and {other!r} (line {first[other].line}) differ only in case; use one of them"
                )
            if times[label] > 1:
                continue
            if meant := _like(label, [name for name in frequent if _letters(name) != _letters(label)]):
                raise row.error(
                    f"label {label!r} occurs only here and is similar to {meant!r}, which occurs {times[meant]} times; "
                    "correct it, or delete the line (a class needs utterances in every split)"
                )
        return {label: label for label in first}, tuple(sorted(first))
    names = tuple(class_names)
    by_name = {str(i): name for i, name in enumerate(names)} if numbers else {name.casefold(): name for name in names}
    classes = {}
    for label, row in first.items():
        key = str(int(label)) if numbers else label.casefold()
        if key not in by_name:
            known = ", ".join(f"{i} {name}" for i, name in enumerate(names)) if numbers else ", ".join(names)
            meant = _like(label, names)
            raise row.error(
                f"label {label!r} is not a class of this data set ({known})"
                f"{f'; did you mean {meant!r}?' if meant else ''}; correct it, delete the line, or give the manifest "
                "another --dataset name"
            )
        classes[label] = by_name[key]
    return classes, names


def _like(label: str, names: Iterable[str]) -> str:
    """Return the name that is most similar to a label, or an empty string if none is similar."""
    folded = {name.casefold(): name for name in names}
    return next((folded[name] for name in difflib.get_close_matches(label.casefold(), folded, 1, _SIMILARITY)), "")


def _letters(label: str) -> str:
    """Return a label without digits, because ``class_1`` and ``class_2`` are not typing errors."""
    return re.sub(r"[0-9]+", "", label.casefold())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for a file, for example a text
        return False


def _numeric(label: str) -> tuple[int, str]:
    number = re.search(r"\d+$", label)
    return (int(number[0]) if number else -1, label)

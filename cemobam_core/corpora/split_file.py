"""Files of splits: a csv with the fold and split of each utterance, to use the same utterances as someone else."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.manifest import manifest_files, manifest_rows
from cemobam_core.corpora.protocols.protocol import Cut
from cemobam_core.corpora.reading import read_walled
from cemobam_core.corpora.table import Layout, Place, Row, read_table
from cemobam_core.corpora.utterances import examples, split_named
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically

_COLUMNS = ("id", "fold", "split")
_LAYOUT = Layout(required=("id", "split"), optional=("fold",))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry(Place):
    """One line of a split file. The split is empty for an utterance that is left out."""

    id: str
    fold: str
    split: str


@dataclass(frozen=True, kw_only=True)
class SplitFile:
    """The splits in a file.

    Attributes:
        path: The file, or a folder of the authors' metadata files.
        entries: Its lines.
        complete: Whether it must list every utterance of the corpus. A folder of metadata files has no way to leave
            one out, so what it does not list is left out.
    """

    path: Path
    entries: tuple[_Entry, ...]
    complete: bool

    @classmethod
    def read(cls, path: Path) -> SplitFile:
        """Read a csv with the columns ``id``, ``split`` and, for several folds, ``fold``.

        A split has any of its usual names, or is empty for an utterance that is left out. Other columns are ignored.
        A folder of the authors' ``<CORPUS>_metadata_<split>.csv`` is also read. Its ids are the names of the audio
        files without their extensions.

        Args:
            path: The file or the folder.

        Raises:
            InputError: The file cannot be read, a column is missing, or a split has an unknown name.
        """
        entries = read_walled(_Entry, _read, path)
        if not entries:
            raise InputError(f"{path}: lists no utterances; give one per line, with {', '.join(_COLUMNS)}")
        return cls(path=path, entries=entries, complete=not path.is_dir())

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the content. The place and name of the file do not matter."""
        rows = sorted((entry.id, entry.fold, entry.split) for entry in self.entries)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def cut(self, columns: Columns) -> list[Cut]:
        """Split utterances as the file says.

        Args:
            columns: The utterances.

        Returns:
            The folds, in the order of their names.

        Raises:
            InputError: The file lists an utterance twice in a fold, or one that the corpus does not have, does not list
                one that the corpus has, or leaves a split empty.
        """
        row_of = {key: row for row, key in enumerate(columns.ids)}
        folds: dict[str, dict[int, str]] = {entry.fold: {} for entry in self.entries}
        seen: dict[tuple[str, str], _Entry] = {}
        for entry in self.entries:
            key = entry.id if entry.id in row_of else entry.id.strip()
            other = seen.setdefault((key, entry.fold), entry)
            if other is not entry:
                fold = f" of fold {entry.fold}" if entry.fold else ""
                raise entry.error(
                    f"utterance {key!r} is already in line {other.line}{fold}"
                    f"{f' of {other.file}' if other.file != entry.file else ''}; list it once in a fold"
                )
            if key in row_of:
                folds[entry.fold][row_of[key]] = entry.split
            elif key not in columns.unusable:
                raise entry.error(f"utterance {key!r} is not in {columns.source}; correct the id, or delete the line")
        return [self._fold(columns, name, folds[name]) for name in sorted(folds, key=_natural)]

    def _fold(self, columns: Columns, name: str, listed: Mapping[int, str]) -> Cut:
        where = f" in fold {name}" if name else ""
        splits = np.full(len(columns), "?", dtype="<U5")
        splits[list(listed)] = list(listed.values())
        missing = [columns.ids[row] for row in np.flatnonzero(splits == "?")]
        if missing and self.complete:
            raise InputError(
                f"{self.path}: {len(missing)} of {len(columns)} utterances of {columns.source} are not listed{where} "
                f"({examples(missing)}); list them, with an empty split to leave them out"
            )
        fold = Cut(*(np.flatnonzero(splits == split) for split in Cut._fields))
        for split, rows in fold._asdict().items():
            if not len(rows):
                raise InputError(
                    f"{self.path}: no utterance of {columns.source} is in the split {split}{where}; list some in each "
                    f"of {', '.join(Cut._fields)}"
                )
        return fold


def write_split_file(path: Path, ids: Sequence[str], folds: Sequence[Mapping[str, str]]) -> None:
    """Write a split file atomically.

    Args:
        path: File to write.
        ids: Ids of all utterances of the corpus.
        folds: For each fold, the split of each utterance by id. An utterance without one gets an empty split.

    Raises:
        InputError: An id contains a character that cannot be printed.
    """
    for key in ids:
        if not key.isprintable():
            raise InputError(f"utterance id {key!r}: contains a character that cannot be printed; correct it")
    with written_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((key, i, fold.get(key, "")) for i, fold in enumerate(folds) for key in ids)


def _read(path: Path) -> tuple[_Entry, ...]:
    if path.is_dir():
        rows = [row for file, split in manifest_files(path) for row in manifest_rows(file, split)]
        return tuple(
            _Entry(file=row.file, line=row.line, id=row.name, fold="", split=split_named(row.split) or "")
            for row in rows
        )
    return tuple(map(_entry, read_table(path, _LAYOUT)))


def _entry(row: Row) -> _Entry:
    # An id may have spaces at its ends, so it stays as it is.
    told, key, fold = row.word("split"), row.values["id"], row.label("fold")
    split = split_named(told) or ""
    if not row.word("id"):
        raise row.error("id is empty; fill it in, or delete the line")
    if "fold" in row.values and not fold:
        raise row.error(f"utterance {key!r} has no fold; fill it in, or leave the column out for one fold")
    if told and not split:
        raise row.error(
            f"split {told!r:.60} of utterance {key!r} is unknown; write train, val or test, or nothing to leave it out"
        )
    return _Entry(file=row.file, line=row.line, id=key, fold=fold, split=split)


def _natural(name: str) -> str:
    """Return a key that sorts ``fold_2`` before ``fold_10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)

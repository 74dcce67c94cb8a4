"""Files of splits: a csv with the fold and split of each utterance, to use the same utterances as someone else."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.manifest import manifest_files, manifest_rows
from cemobam_core.corpora.protocols.protocol import Cut
from cemobam_core.corpora.utterances import examples, split_named
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically

_COLUMNS = ("id", "fold", "split")
_DELIMITERS = (",", "\t", ";")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One line of a split file. The split is empty for an utterance that is left out."""

    file: Path
    line: int
    id: str
    fold: str
    split: str

    def error(self, what: str) -> InputError:
        return InputError(f"{self.file} line {self.line}: {what}")


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
        if path.is_dir():
            rows = [row for file, split in manifest_files(path) for row in manifest_rows(file, split)]
            entries = [
                _Entry(file=row.file, line=row.line, id=row.name, fold="", split=split_named(row.split) or "")
                for row in rows
            ]
        else:
            entries = list(_read(path))
        if not entries:
            raise InputError(f"{path}: lists no utterances; give one per line, with {', '.join(_COLUMNS)}")
        return cls(path=path, entries=tuple(entries), complete=not path.is_dir())

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
        names = sorted({entry.fold for entry in self.entries}, key=_natural)
        splits = {name: np.full(len(columns), "?", dtype="<U5") for name in names}
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
                splits[entry.fold][row_of[key]] = entry.split
            elif key not in columns.unusable:
                raise entry.error(f"utterance {key!r} is not in {columns.source}; correct the id, or delete the line")
        return [self._fold(columns, name, splits[name]) for name in names]

    def _fold(self, columns: Columns, name: str, splits: np.ndarray) -> Cut:
        where = f" in fold {name}" if name else ""
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


def _read(path: Path) -> Iterator[_Entry]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"--split-file {path}: cannot be read ({error.strerror}); give a csv with id, fold and split"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as a csv in UTF-8") from None
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        for needed in ("id", "split"):
            if columns.count(needed) != 1:
                there = ", ".join(map(repr, columns[:12])) or "nothing"
                raise InputError(
                    f"{path} line 1: {'several columns' if needed in columns else 'no column'} {needed!r}; it has "
                    f"{there}; give the columns {', '.join(_COLUMNS)} (fold only for several folds)"
                )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{path} line {reader.line_num}: {len(cells)} values for {len(columns)} columns; give one for each"
                )
            yield _entry(path, reader.line_num, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: cannot be read as csv ({error}); fix the quotes") from None


def _entry(path: Path, line: int, cells: Mapping[str, str]) -> _Entry:
    told = cells["split"].strip()
    entry = _Entry(
        file=path, line=line, id=cells["id"], fold=cells.get("fold", "").strip(), split=split_named(told) or ""
    )
    if not entry.id.strip():
        raise entry.error("id is empty; fill it in, or delete the line")
    if "fold" in cells and not entry.fold:
        raise entry.error(f"utterance {entry.id!r} has no fold; fill it in, or leave the column out for one fold")
    if told and not entry.split:
        raise entry.error(
            f"split {told!r} of utterance {entry.id!r} is unknown; write train, val or test, or nothing to leave it out"
        )
    return entry


def _natural(name: str) -> str:
    """Return a key that sorts ``fold_2`` before ``fold_10``."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)

"""Tables in text files: CSV with commas, tabs or semicolons, and JSONL with an object a line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cemobam_core.corpora.text_files import LONGEST_TEXT, read_utf8
from cemobam_core.errors import InputError

MOST_ROWS = 500_000
"""Largest number of rows."""
MOST_LABELS = 200
"""Largest number of different labels."""

_MOST_COLUMNS = 1_000
_LONGEST_RECORD = 1_000_000
"""Letters of the longest row, over all its columns."""
_LONGEST_WORD = 5_000
"""Letters of the longest value that is not a transcript. It may be a path."""
_LONGEST_LABEL = 100

_DELIMITERS = (",", "\t", ";")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns that a table has, in any order and case. Others are passed over.

    Attributes:
        required: Columns that must be there, in lower case.
        optional: Columns that may be there.
        aliases: Other names of columns, with ours. Our name takes precedence.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def places(self, header: Sequence[str], where: str) -> dict[str, int]:
        """Return the places of the columns.

        Args:
            header: Names of the columns in the file.
            where: File and line, for error messages.

        Raises:
            InputError: A column is missing, or there twice, or there are too many.
        """
        if len(header) > _MOST_COLUMNS:
            raise InputError(f"{where}: has {len(header)} columns; give at most {_MOST_COLUMNS}, {self._told()}")
        names = [name.strip().lower() for name in header]
        places: dict[str, int] = {}
        for column in (*self.required, *self.optional):
            spellings = (column, *(alias for alias, name in self.aliases.items() if name == column))
            name = next((name for name in spellings if name in names), None)
            if name is None and column in self.required:
                there = ", ".join(f"{name!r:.60}" for name in header[:12]) or "nothing"
                raise InputError(f"{where}: no column {column!r}; it has {there}; {self._told()}")
            if name is None:
                continue
            if names.count(name) > 1:
                raise InputError(f"{where}: several columns {name!r}; keep one of them")
            places[column] = names.index(name)
        return places

    def known(self, header: Sequence[str]) -> int:
        """Return the number of names that are names of columns."""
        names = {*self.required, *self.optional, *self.aliases}
        return sum(name.strip(' "').lower() in names for name in header)

    def _told(self) -> str:
        optional = f", optional are {', '.join(self.optional)}" if self.optional else ""
        return f"required are {', '.join(self.required)}{optional}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A line of a file.

    Attributes:
        file: The file.
        line: Number of the line, from 1.
    """

    file: Path
    line: int

    def error(self, what: str) -> InputError:
        """Return an error that names the line."""
        return InputError(f"{self.file} line {self.line}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row(Place):
    """A row of a table. Its place is the last of its lines.

    Attributes:
        values: The values by column. Those of a CSV are strings, those of a JSONL anything.
    """

    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a value with single spaces. It is empty if the column is missing.

        Raises:
            InputError: It is neither a string nor an integer, too long, or no text.
        """
        text = " ".join(self._string(column).split())
        if len(text) > LONGEST_TEXT:
            raise self.error(f"{column} has {len(text)} letters; give at most {LONGEST_TEXT}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.error(f"{column} contains half a character (a lone surrogate); correct it") from None
        return text

    def word(self, column: str, longest: int = _LONGEST_WORD) -> str:
        """Return a value without space at its ends. It is empty if the column is missing.

        Args:
            column: The column.
            longest: Number of letters that it may have.

        Raises:
            InputError: It is neither a string nor an integer, too long, or cannot be printed.
        """
        word = self._string(column).strip()
        if len(word) > longest:
            raise self.error(f"{column} {word!r:.60} has {len(word)} letters; give at most {longest}")
        if not word.isprintable():
            raise self.error(f"{column} {word!r:.60} contains a character that cannot be printed; correct it")
        return word

    def label(self, column: str) -> str:
        """Return a value that names a class, as :meth:`word` does, which has at most 100 letters."""
        return self.word(column, _LONGEST_LABEL)

    def _string(self, column: str) -> str:
        value = self.values.get(column)
        if isinstance(value, str):
            return value
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{column} is {value!r:.60}; it must be a string or an integer")
        return str(value)


def read_table(path: Path, layout: Layout, text: str | None = None) -> Iterator[Row]:
    """Yield the rows of a CSV, whose first line names its columns. Its delimiter is found. Empty rows are passed over.

    Args:
        path: The file.
        layout: Columns of the table.
        text: Its text, if it was read before. ``None`` to read it in UTF-8.

    Raises:
        InputError: The file cannot be read, a column is missing or there twice, a row has more or fewer values than the
            header, quotes are not closed, or the table is too large.
    """
    lines = _Lines(path, read_utf8(path) if text is None else text)
    # Choose the delimiter with the most known columns in the header. The texts contain commas and would mislead.
    delimiter = max(_DELIMITERS, key=lambda one: layout.known(lines.first.split(one)))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        places = layout.places(header, f"{path} line 1")
        lines.start_record()
        for number, cells in enumerate(reader):
            lines.start_record()
            if number == MOST_ROWS:
                raise InputError(f"{path}: has more than {MOST_ROWS} rows; give fewer at once")
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{path} line {reader.line_num}: {len(cells)} values for {len(header)} columns; give one for each, "
                    f"and put a value that contains {delimiter!r} in double quotes"
                )
            yield Row(file=path, line=reader.line_num, values={name: cells[i] for name, i in places.items()})
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: cannot be read as CSV ({error}); fix the quotes") from None


def read_json_lines(path: Path, layout: Layout) -> Iterator[Row]:
    """Yield the rows of a JSONL: an object a line, whose names are the columns. Empty lines are passed over.

    Args:
        path: The file.
        layout: Columns of the table.

    Raises:
        InputError: The file cannot be read, a line is not an object in JSON, a column is missing or there twice, or the
            table is too large.
    """
    lines = _Lines(path, read_utf8(path))
    header: list[str] = []
    places: dict[str, int] = {}
    for line in lines:
        lines.start_record()
        if lines.number > MOST_ROWS:
            raise InputError(f"{path}: has more than {MOST_ROWS} rows; give fewer at once")
        if not line.strip():
            continue
        where = f"{path} line {lines.number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error}); write one object per line") from None
        if not isinstance(entry, dict):
            raise InputError(
                f'{where}: {line.strip()!r:.60} is not an object; write {{"{layout.required[0]}": …}}, one a line'
            )
        if (names := list(entry)) != header:
            header, places = names, layout.places(names, where)
        yield Row(file=path, line=lines.number, values={column: entry[header[i]] for column, i in places.items()})


def check_labels(path: Path, labels: Sequence[str]) -> None:
    """Raise an error if there are too many different labels: a table with so many has another column there.

    Args:
        path: The file.
        labels: Different labels.

    Raises:
        InputError: There are too many.
    """
    if len(labels) > MOST_LABELS:
        raise InputError(
            f"{path}: has {len(labels)} different labels ({labels[0]!r}, {labels[1]!r} …); give at most {MOST_LABELS}"
        )


class _Lines:
    """The lines of a text with their ends. It raises an error if a record, which may have many lines, is too long."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._found, self._letters = path, _LINE.finditer(text), 0
        self.number = 0
        first = _LINE.match(text, 0, _LONGEST_RECORD)
        self.first = first[0] if first else ""

    def start_record(self) -> None:
        """Count the letters of the next record."""
        self._letters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._found)[0]
        self.number += 1
        self._letters += len(line)
        if self._letters > _LONGEST_RECORD:
            raise InputError(
                f"{self._path} line {self.number}: a row of more than {_LONGEST_RECORD} letters; give a table with a "
                "row for each utterance, and close its quotes"
            )
        return line

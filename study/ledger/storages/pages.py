"""The rows of an SQLite file, page by page, also of a file that SQLite refuses to read.

The format is described at https://www.sqlite.org/fileformat2.html. A table is a B-tree: its rows lie in leaf pages, and
interior pages say where those are. Here every page of the file is looked at, so a broken interior page loses no row,
and a broken leaf page loses its own rows only. Nothing is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Value = None | int | float | str | bytes

MAGIC = b"SQLite format 3\0"

_INTERIOR, _LEAF = 0x05, 0x0D
"""Types of the pages of a table."""

_INDEX_LEAF = 0x0A
"""Type of the leaf pages of an index. Those inside a B-tree hold entries too, but few."""

_SMALLEST_PAGE = 512
"""Smallest number of bytes of a page."""

_LONGEST_ROW = 2**24
"""Largest number of bytes of a row. A row of a ledger has at most 60,000 characters."""


class _Unreadable(Exception):
    """A page or a row is damaged."""


@dataclass(frozen=True)
class Cell:
    """A row of a table, or an entry of an index, whose id is 0.

    Attributes:
        page: Number of the page that the row lies on.
        id: The row's id.
        values: Values of the columns.
    """

    page: int
    id: int
    values: tuple[Value, ...]


@dataclass
class Content:
    """What an SQLite file holds.

    Attributes:
        tables: Rows of each table that the schema names, by the table's name.
        strays: Rows of leaf pages that no table leads to, by page, because an interior page or the schema is damaged.
        entries: Entries of all indices.
        damaged: Numbers of the pages that are damaged: they cannot be read, or some of their rows cannot.
        lost: Number of rows on them that can be counted but not be read.
        pages: Number of pages of the file.
    """

    tables: dict[str, list[Cell]] = field(default_factory=dict)
    strays: dict[int, list[Cell]] = field(default_factory=dict)
    entries: list[Cell] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    lost: int = 0
    pages: int = 0


def read_pages(path: Path) -> Content | None:
    """Return all rows of an SQLite file that can be read, or `None` if it is no SQLite file.

    Args:
        path: The file. A transaction that was not finished must have been rolled back.
    """
    data = path.read_bytes()
    if len(data) < _SMALLEST_PAGE:
        return None
    # The header lies on the first page, which may be damaged. SQLite writes pages of 4096 bytes unless told otherwise.
    size = int.from_bytes(data[16:18], "big") if data.startswith(MAGIC) else 4096
    size = 65536 if size == 1 else size
    if size < _SMALLEST_PAGE or size & (size - 1):
        size = 4096
    if not data.startswith(MAGIC) and not any(_starts_as_leaf(data, at, size) for at in range(0, len(data), size)):
        return None
    return _Reader(data, size).read()


def _starts_as_leaf(data: bytes, at: int, size: int) -> bool:
    """Return whether a page has the head of a leaf page: its type, and where its free space and its rows begin."""
    if at + size > len(data) or data[at] != _LEAF:
        return False
    count = int.from_bytes(data[at + 3 : at + 5], "big")
    start = int.from_bytes(data[at + 5 : at + 7], "big")
    return 0 < count <= size // 4 and 8 + 2 * count <= (start or 65536) <= size


class _Reader:
    """Reads one file.

    Args:
        data: Content of the file.
        size: Number of bytes of a page.
    """

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size
        reserved = data[20] if data.startswith(MAGIC) and data[20] <= size // 4 else 0
        self._usable = size - reserved
        self._content = Content(pages=len(data) // size)
        if len(data) % size:  # the file was cut off
            self._content.damaged.add(self._content.pages + 1)

    def read(self) -> Content:
        """Return what the file holds."""
        content = self._content
        taken = self._free_pages()
        roots: dict[str, int] = {}
        pages = self._leaves(1)
        taken |= pages
        for values in (cell.values for page in sorted(pages) for cell in self._cells(page)):
            if len(values) == 5 and values[0] == "table" and isinstance(values[1], str) and isinstance(values[3], int):
                roots[values[1]] = values[3]
        for table, root in roots.items():
            pages = self._leaves(root) - taken
            taken |= pages
            content.tables[table] = [cell for page in sorted(pages) for cell in self._cells(page)]
        for page in range(1, content.pages + 1):
            if page in taken:
                continue
            kind = self._page(page)[self._head(page)]
            if kind == _LEAF and (cells := self._cells(page)):
                content.strays[page] = cells
            elif kind == _INDEX_LEAF:
                content.entries += self._cells(page)
        return content

    def _page(self, number: int) -> bytes:
        if not 1 <= number <= self._content.pages:
            raise _Unreadable
        return self._data[(number - 1) * self._size : number * self._size]

    def _head(self, number: int) -> int:
        """Return where the head of a page begins: after the head of the file on the first page."""
        return 100 if number == 1 else 0

    def _free_pages(self) -> set[int]:
        """Return the pages that are not used. They may hold rows that were deleted."""
        free: set[int] = set()
        trunk = int.from_bytes(self._data[32:36], "big") if self._data.startswith(MAGIC) else 0
        while 1 < trunk <= self._content.pages and trunk not in free:
            free.add(trunk)
            page = self._page(trunk)
            following, count = struct.unpack_from(">II", page)
            count = min(count, self._size // 4 - 2)
            free.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = following
        return free

    def _leaves(self, root: int) -> set[int]:
        """Return the leaf pages of the table that begins at a page."""
        leaves: set[int] = set()
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            try:
                page, head = self._page(number), self._head(number)
                if page[head] == _LEAF:
                    leaves.add(number)
                    continue
                if page[head] != _INTERIOR:
                    raise _Unreadable
                (count,) = struct.unpack_from(">H", page, head + 3)
                cells = struct.unpack_from(f">{count}H", page, head + 12)
                children = [struct.unpack_from(">I", page, at)[0] for at in cells]
                waiting += [*children, struct.unpack_from(">I", page, head + 8)[0]]
            except (_Unreadable, struct.error):
                self._content.damaged.add(number)
        return leaves

    def _cells(self, number: int) -> list[Cell]:
        """Return the rows of a leaf page, or the entries of a leaf page of an index."""
        page, head = self._page(number), self._head(number)
        is_table = page[head] == _LEAF
        (count,) = struct.unpack_from(">H", page, head + 3)
        cells: list[Cell] = []
        if count > self._size // 4:
            self._content.damaged.add(number)
            return cells
        for at in struct.unpack_from(f">{count}H", page, head + 8):
            try:
                cells.append(self._cell(number, page, at, is_table=is_table))
            except (_Unreadable, struct.error, IndexError, UnicodeDecodeError):
                self._content.damaged.add(number)
                self._content.lost += is_table
        return cells

    def _cell(self, number: int, page: bytes, at: int, *, is_table: bool) -> Cell:
        length, at = _varint(page, at)
        row, at = _varint(page, at) if is_table else (0, at)
        if not 0 < length <= _LONGEST_ROW:
            raise _Unreadable
        usable = self._usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            payload = page[at : at + length]
        else:
            least = (usable - 12) * 32 // 255 - 23
            here = least + (length - least) % (usable - 4)
            here = here if here <= most else least
            (overflow,) = struct.unpack_from(">I", page, at + here)
            payload = page[at : at + here] + b"".join(self._overflow(overflow, length - here))
        if len(payload) != length:
            raise _Unreadable
        return Cell(number, row, tuple(_values(payload)))

    def _overflow(self, number: int, length: int) -> Iterator[bytes]:
        while length > 0:
            page = self._page(number)
            part = page[4 : min(self._usable, 4 + length)]
            length -= len(part)
            (number,) = struct.unpack_from(">I", page)
            yield part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of up to nine bytes that begins at a place, and the place after it."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    value = value << 8 | data[at + 8]
    return value - (value >> 63 << 64), at + 9


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Numbers of bytes of a whole number, by its type."""


def _values(payload: bytes) -> Iterator[Value]:
    """Yield the values of a row."""
    end, at = _varint(payload, 0)
    if not 0 < end <= len(payload):
        raise _Unreadable
    place = end
    while at < end:
        kind, at = _varint(payload, at)
        if kind in _INTEGERS:
            length = _INTEGERS[kind]
        elif kind >= 12:
            length = (kind - 12) // 2
        else:
            length = 8 if kind == 7 else 0
        content = payload[place : place + length]
        place += length
        if kind in (10, 11) or kind < 0 or len(content) != length:
            raise _Unreadable
        if kind == 0:
            yield None
        elif kind in _INTEGERS:
            yield int.from_bytes(content, "big", signed=True)
        elif kind == 7:
            yield float(struct.unpack(">d", content)[0])
        elif kind in (8, 9):
            yield kind - 8
        else:
            yield content.decode() if kind % 2 else content
    if place != len(payload):
        raise _Unreadable

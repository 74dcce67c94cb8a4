"""Embeddings that stay in their files: they are mapped into memory and read in part."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cemobam_core.errors import InputError

_DTYPES: dict[str, tuple[torch.dtype, np.dtype[Any]]] = {
    "F64": (torch.float64, np.dtype("<i8")),
    "F32": (torch.float32, np.dtype("<i4")),
    "F16": (torch.float16, np.dtype("<i2")),
    "BF16": (torch.bfloat16, np.dtype("<i2")),
}
"""Types of numbers that can be read in place, by their name in a file. They are mapped as integers of the same width,
because NumPy does not know bfloat16."""

_CHUNK_NUMBERS = 2**19
"""Numbers that are converted at once: few enough to stay in the cache of a processor."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a safetensors file, by reference: pickling it does not read it.

    Attributes:
        path: The file, as an absolute path.
        name: Name of the tensor.
        offset: Place of its first byte in the file.
        shape: Its shape.
        kind: Type of its numbers, as safetensors names it.
        size: Size of the file in bytes.
        changed: Time of the last change of the file in nanoseconds.
    """

    path: Path
    name: str
    offset: int
    shape: tuple[int, ...]
    kind: str
    size: int
    changed: int

    @classmethod
    def find(cls, path: Path, name: str) -> StoredTensor | None:
        """Return a tensor of a file, or ``None`` if its numbers are of a type that cannot be read in place.

        Args:
            path: A safetensors file.
            name: Name of a tensor in it.

        Raises:
            InputError: The header of the file does not fit its size.
        """
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < about.st_size else {}
        start, end = header[name]["data_offsets"]
        kind, shape = header[name]["dtype"], tuple(header[name]["shape"])
        if kind not in _DTYPES:
            return None
        one = cls(
            path=path.absolute(),
            name=name,
            offset=8 + length + start,
            shape=shape,
            kind=kind,
            size=about.st_size,
            changed=about.st_mtime_ns,
        )
        if end - start != math.prod(shape) * one.dtype.itemsize or one.offset + end - start > one.size:
            raise InputError(f"{path}: tensor {name!r} does not fit into the file; the file is damaged")
        return one

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers in the file."""
        return _DTYPES[self.kind][0]

    def check(self) -> None:
        """Check that this process sees the file as it was.

        Raises:
            InputError: The file is missing, or has changed.
        """
        try:
            about = self.path.stat()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}); features are read while they are used: keep them in "
                "their place until the run has ended"
            ) from None
        if (about.st_size, about.st_mtime_ns) != (self.size, self.changed):
            raise InputError(
                f"{self.path}: has changed since it was opened; features are read while they are used: restore the "
                "file, or run the command again"
            )

    @cached_property
    def array(self) -> npt.NDArray[Any]:
        """The numbers as integers of the same width, mapped into memory.

        Raises:
            InputError: The file is missing, or has changed.
        """
        self.check()
        kind = _DTYPES[self.kind][1]
        mapped = np.memmap(self.path, kind, mode="r", offset=self.offset, shape=self.shape)
        return np.asarray(mapped)  # plain arrays are pickled without a copy, mapped ones are not

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the reference only."""
        return {name: value for name, value in self.__dict__.items() if name != "array"}


@dataclass(frozen=True, eq=False)
class HeldTensor:
    """The numbers of a :class:`StoredTensor` without its file: pickling it takes them along.

    Attributes:
        array: Its numbers as integers of the same width.
        kind: Type of its numbers, as safetensors names it.
    """

    array: npt.NDArray[Any]
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return _DTYPES[self.kind][0]


class Rows:
    """Embeddings of one modality, (N, E) or (N, T, E), in one or several safetensors files. They are not in memory.

    Index it with whole numbers (a tensor) or a slice to get these rows as a float32 tensor. Pickled, it is a reference
    to the files: the process that loads it maps them again.

    Args:
        parts: Tensors that follow one another. They have the same size of rows.
        selection: (N,), the rows that this set has, in its order. ``None`` for all rows.

    Attributes:
        parts: Tensors that follow one another.
        ndim: Number of dimensions.
        shape: (N, E) or (N, T, E).
        dtype: float32, the type of what is read.
        finite: Whether all numbers are known to be finite.
    """

    ndim: int
    shape: torch.Size
    dtype = torch.float32

    def __init__(
        self, parts: Sequence[StoredTensor | HeldTensor], selection: Int64[Tensor, " n"] | None = None
    ) -> None:
        self.parts = tuple(parts)
        self._selection = selection
        self._ends = torch.tensor([len_of(part) for part in parts]).cumsum(0)
        count = int(self._ends[-1]) if selection is None else len(selection)
        self.shape = torch.Size((count, *parts[0].shape[1:]))
        self.ndim = len(self.shape)
        self.finite = False

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Name the shape and the number of files."""
        return f"Rows({tuple(self.shape)} in {len(self.parts)} tensors of {self.stored})"

    @property
    def stored(self) -> torch.dtype:
        """The type of the numbers in the files."""
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        """Size of the rows as a float32 tensor in bytes."""
        return 4 * self.shape.numel()

    def select(self, rows: Int64[Tensor, " m"]) -> Rows:
        """Return the rows at ``rows``, in that order. Only their numbers are kept, nothing is copied."""
        return _rows(self.parts, rows if self._selection is None else self._selection[rows], self.finite)

    def __getitem__(self, index: Int64[Tensor, " m"] | slice) -> Float[Tensor, "m ..."]:
        """Return rows as a float32 tensor. Consecutive rows of one float32 file are mapped, not copied.

        Raises:
            IndexError: There is no such row.
            InputError: A file is missing, or has changed.
        """
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)))
        index = torch.where(index < 0, index + len(self), index)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise IndexError(f"rows from {int(index.min())} to {int(index.max())} of {len(self)}")
        return self._gathered(index if self._selection is None else self._selection[index])

    def chunks(self, n: int) -> Iterator[Float[Tensor, "m ..."]]:
        """Yield all rows in order as float32 tensors of up to ``n`` rows."""
        for start in range(0, len(self), n):
            yield self[start : start + n]

    def place(self, row: int) -> str:
        """Describe where a row is: its file, and its number there."""
        at = row if self._selection is None else int(self._selection[row])
        number = int(torch.searchsorted(self._ends, at, right=True))
        part = self.parts[number]
        start = int(self._ends[number]) - len_of(part)
        return f"row {at - start} of {part.path}" if isinstance(part, StoredTensor) else f"row {at}"

    def held(self, known: dict[StoredTensor, HeldTensor]) -> Rows:
        """Return the same rows without their files. The numbers are still mapped here, and pickling takes them along.

        Args:
            known: Tensors that are held already. Pickled together, rows of the same files share them.
        """
        parts: list[HeldTensor] = []
        for part in self.parts:
            if isinstance(part, StoredTensor) and part not in known:
                known[part] = HeldTensor(part.array, part.kind)
            parts.append(known[part] if isinstance(part, StoredTensor) else part)
        return _rows(tuple(parts), self._selection, self.finite)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the references and the selection."""
        return _rows, (self.parts, self._selection, self.finite)

    def _gathered(self, places: Int64[Tensor, " m"]) -> Float[Tensor, "m ..."]:
        """Return the rows at these places of the files: each file is read in order, a chunk at a time."""
        in_order = _consecutive(places)
        number = int(torch.searchsorted(self._ends, places[0], right=True)) if in_order else 0
        if in_order and self.stored == torch.float32 and int(places[-1]) < int(self._ends[number]):
            part = self.parts[number]
            first = int(places[0]) - int(self._ends[number]) + len_of(part)
            return _tensor(part, first, first + len(places))
        out = torch.empty(len(places), *self.shape[1:])
        if in_order:
            order, ordered = torch.arange(len(places)), places
        else:
            ordered, order = places.sort()
        bounds = [0, *torch.searchsorted(ordered, self._ends).tolist()]
        step = _rows_at_once(self.shape)
        for part, (first, last), end in zip(self.parts, pairwise(bounds), self._ends.tolist(), strict=True):
            for at in range(first, last, step):
                until = min(last, at + step)
                rows = ordered[at:until] - (end - len_of(part))
                if _consecutive(rows):
                    read = _tensor(part, int(rows[0]), int(rows[-1]) + 1)
                else:
                    read = _tensor(part, 0, len_of(part))[rows]
                if in_order:
                    out[at:until] = read
                else:
                    out[order[at:until]] = read.float()
        return out


def _rows(parts: tuple[StoredTensor | HeldTensor, ...], selection: Tensor | None, finite: bool) -> Rows:
    made = Rows(parts, selection)
    made.finite = finite
    return made


def in_chunks(x: Tensor | Rows, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
    """Yield rows in order, a little at a time.

    Args:
        x: (N, ...), a tensor or rows of files.
        start: First row.
        stop: Row after the last. ``None`` for all.
    """
    stop = len(x) if stop is None else stop
    step = _rows_at_once(x.shape)
    for at in range(start, stop, step):
        yield x[at : min(stop, at + step)]


def first_not_finite(x: Tensor | Rows) -> int | None:
    """Return the first row that holds NaN or infinity, or ``None``. Rows of files are read for this only once.

    Args:
        x: (N, ...), a tensor or rows of files.
    """
    if isinstance(x, Rows) and x.finite:
        return None
    start = 0
    for chunk in in_chunks(x):
        finite = chunk.flatten(1).sum(dim=1).isfinite()  # a sum that is finite has no addend that is not
        for row in (~finite).nonzero().flatten().tolist():
            if not chunk[row].isfinite().all():
                return start + int(row)
        start += len(chunk)
    if isinstance(x, Rows):
        x.finite = True
    return None


def len_of(part: StoredTensor | HeldTensor) -> int:
    """Return the number of rows of a tensor in a file."""
    return part.shape[0]


def _rows_at_once(shape: torch.Size) -> int:
    return max(1, _CHUNK_NUMBERS // max(1, shape[1:].numel()))


def _consecutive(places: Int64[Tensor, " m"]) -> bool:
    return len(places) > 0 and int(places[-1]) - int(places[0]) == len(places) - 1 and bool((places.diff() == 1).all())


def _tensor(part: StoredTensor | HeldTensor, start: int, stop: int) -> Tensor:
    """Return consecutive rows of a tensor as they are stored, without a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the tensor is read-only; nothing writes to features
        return torch.from_numpy(part.array[start:stop]).view(part.dtype)

"""The few pairs of rows that can be nearest neighbours: a rough product excludes the others, float64 decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cemobam_core import bfloat16
from cemobam_core.progress import progress_bar
from cemobam_core.similarity import BELOW_ALL, RESOLUTION, Embeddings, full_float32, in_steps, margin, slices

_BLOCK = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of a block of the float32 product. On a CPU such a block and its factors stay in the cache."""

_SPARE = 128
"""Places for candidates of each row, in addition to twice the number of neighbours."""

_CHUNK_ELEMENTS = 4_000_000
"""Number of similarities that are ranked at once: 32 MB as integers, and about three times that for their sort keys."""

_LOWEST = -3.0
"""Threshold of a row without one: every cosine reaches it, and minus infinity, the mark of an empty place, does not."""


class Found(NamedTuple):
    """Candidates of some rows: the nearest columns of each row, all that tie with the last of them, and some others.

    Attributes:
        rows: (R,), the rows.
        columns: (R, C), the candidates of each row, or (1, C) if all rows have the same.
        steps: (R, C), their similarities as multiples of the resolution. ``BELOW_ALL`` marks a place without one.
    """

    rows: Int64[Tensor, " r"]
    columns: Int64[Tensor, "#r c"]
    steps: Int64[Tensor, "r c"]


def among(x: Embeddings, k: int) -> Iterator[Found]:
    """Return the candidates for the ``k`` nearest other rows of each row."""
    if x.device.type == "cpu" and len(x) >= bfloat16.LEAST and bfloat16.is_fast():
        centred = bfloat16.Centred.of(x, multiple=_block_size(x, k))
        if centred.is_narrow:
            return _by_bfloat16(centred, x, k)
    return _by_float32(x, k)


def _by_float32(x: Embeddings, k: int) -> Iterator[Found]:
    kept = _Candidates(x, x, k)
    rough = x.rough(multiple=kept.size)
    with full_float32(x.device):
        kept.offer_all(rough, rough.__getitem__)
    del rough
    yield from kept.found()
    yield from with_all(x, x, kept.crowded)


def _by_bfloat16(centred: bfloat16.Centred, x: Embeddings, k: int) -> Iterator[Found]:
    """Yield the candidates. The rows that bfloat16 leaves crowded are compared with all again in float32."""
    kept = _Candidates(x, x, k, error=centred.error, rounding=bfloat16.ROUNDING)
    with full_float32(x.device):
        finished = kept.offer_all(centred.rows, centred.facing, most_crowded=kept.size // 4)
    del centred
    if not finished:
        yield from _by_float32(x, k)
        return
    yield from kept.found()
    if len(kept.crowded):
        for rows in kept.crowded.split(max(kept.size, len(x) // 8)):
            for found in between(x.at(rows), x, k + 1):  # a row finds itself
                row = rows[found.rows]
                yield Found(row, found.columns, found.steps.masked_fill(found.columns == row[:, None], BELOW_ALL))


def between(choosers: Embeddings, x: Embeddings, k: int) -> Iterator[Found]:
    """Yield the candidates in ``x`` for the ``k`` nearest rows of each chooser."""
    kept = _Candidates(choosers, x, k)
    rough, rough_choosers = x.rough(multiple=kept.size), choosers.rough()
    with full_float32(x.device):
        for rows in slices(len(choosers), kept.size):
            for j in range(0, len(rough), kept.size):
                kept.offer(rough_choosers[rows] @ rough[j : j + kept.size].T, rows.start, j)
    del rough, rough_choosers
    yield from kept.found()
    yield from with_all(choosers, x, kept.crowded)


def reaching(
    choosers: Embeddings, x: Embeddings, steps: Int64[Tensor, " m"]
) -> Iterator[tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]]:
    """Yield pairs of a chooser and a row of ``x``: all that are at least as similar as ``steps`` says, and others.

    Args:
        choosers: Embeddings of M choosers.
        x: Embeddings of the rows that may be chosen.
        steps: (M,), a similarity per chooser, as a multiple of the resolution.
    """
    rough, rough_choosers, size = x.rough(), choosers.rough(), _BLOCK[x.device.type]
    threshold = (steps.double() * RESOLUTION - margin(x.width)).float()
    for columns in slices(len(x), size):
        for rows in slices(len(choosers), size):
            with full_float32(x.device):
                similarity = rough_choosers[rows] @ rough[columns].T
            row, column = (similarity >= threshold[rows, None]).nonzero(as_tuple=True)
            yield row + rows.start, column + columns.start


def with_all(choosers: Embeddings, x: Embeddings, rows: Int64[Tensor, " r"]) -> Iterator[Found]:
    """Yield the similarities of some rows to all rows of ``x``, in float64. A row is not compared with itself."""
    everyone = torch.arange(len(x), device=x.device)
    for some in rows.split(max(1, _CHUNK_ELEMENTS // len(x))):
        unit = choosers.unit_at(some)
        steps = torch.empty(len(some), len(x), dtype=torch.int64, device=x.device)
        for columns in slices(len(x), x.at_once):
            steps[:, columns] = in_steps(unit @ x.unit(columns).T)
        if choosers is x:
            steps[torch.arange(len(some), device=x.device), some] = BELOW_ALL
        yield Found(some, everyone[None], steps)


def _groups(k: int) -> int:
    """Return the number of groups of the columns of a block: at least four times ``k``."""
    return 64 * math.ceil(k / 16)


def _block_size(x: Embeddings, k: int) -> int:
    """Return the number of rows and columns of a block, a multiple of the number of groups."""
    groups = _groups(k)
    return groups * max(1, min(_BLOCK[x.device.type] // groups, math.ceil(len(x) / groups)))


class _Candidates:
    """The columns that can be among the ``k`` nearest of each row, of those that were offered so far.

    Each row has a threshold: a lower bound of its k-th largest rough similarity, less the possible errors. A similarity
    below it cannot be among the k largest in float64, and cannot tie with them.

    The columns of a block are divided into groups, at least four times as many as ``k``. Only the groups whose largest
    similarity reaches the threshold are searched. The largest similarities of all groups so far bound the k-th largest
    similarity, because they belong to different columns.

    A row has a limited number of places. If they do not suffice for the similarities above the threshold, the row is
    crowded: it takes no more candidates, and must be compared with all columns.

    Args:
        choosers: Embeddings of the rows.
        x: Embeddings of the columns.
        k: Number of neighbours.
        error: (padded,), the largest error of the rough similarities of each row, without their rounding. ``None`` for
            the error of float32.
        rounding: Unit roundoff of the rough similarities if it is not part of the error.
    """

    def __init__(
        self,
        choosers: Embeddings,
        x: Embeddings,
        k: int,
        *,
        error: Float32[Tensor, " padded"] | None = None,
        rounding: float = 0.0,
    ) -> None:
        n, device = len(choosers), x.device
        self._groups, self.size = _groups(k), _block_size(x, k)
        rows = math.ceil(n / self.size) * self.size
        self._choosers, self._x, self._k, self._places = choosers, x, k, min(len(x), 2 * k + _SPARE)
        self._rounding = rounding
        self._error = torch.full((rows,), margin(x.width) / 2, device=device) if error is None else error
        self._peak = torch.full((rows, self._groups), -torch.inf, dtype=torch.float32, device=device)
        self._similarity = torch.full((rows, self._places), -torch.inf, dtype=torch.float32, device=device)
        self._column = torch.zeros(rows, self._places, dtype=torch.int32, device=device)
        self._taken = torch.zeros(rows, dtype=torch.int64, device=device)
        self._threshold = torch.full((rows,), _LOWEST, dtype=torch.float32, device=device)
        self._threshold[n:] = torch.inf
        self._crowded = torch.zeros(rows, dtype=torch.bool, device=device)

    @property
    def crowded(self) -> Int64[Tensor, " r"]:
        """The crowded rows."""
        return self._crowded.nonzero().flatten()

    def offer_all(
        self,
        left: Float[Tensor, "n w"],
        right: Callable[[slice], Float[Tensor, "r w"]],
        *,
        most_crowded: int | None = None,
    ) -> bool:
        """Take candidates of all rows from the products of two factors of the similarities of ``x`` to itself.

        Similarities are symmetric, so half of the matrix is enough. The blocks on the diagonal come first, because they
        give a threshold to every row. If more than ``most_crowded`` of the first rows are crowded, stop early and
        return false.
        """
        block = left.new_empty(self.size, self.size)
        firsts = range(0, len(left), self.size)
        for i in firsts:
            rows = slice(i, i + self.size)
            torch.mm(right(rows), left[rows].T, out=block)
            block.diagonal().fill_(-torch.inf)  # a row is not its own neighbour
            self.offer(block, i, i)
        number = len(firsts) * (len(firsts) - 1) // 2
        with progress_bar(total=number, desc=f"ranking {len(self._x):,}", unit="block", leave=False, delay=5) as bar:
            for i in firsts:
                factor = right(slice(i, i + self.size))
                for j in firsts[i // self.size + 1 :]:
                    torch.mm(factor, left[j : j + self.size].T, out=block)
                    self.offer(block, i, j)
                    self.offer_columns(block, i, j)
                    bar.update()
                if i == 0 and most_crowded is not None and int(self._crowded[: self.size].sum()) > most_crowded:
                    return False
        return True

    def offer(self, block: Float[Tensor, "r c"], first_row: int, first_column: int) -> None:
        """Take candidates of rows from a block of similarities."""
        block[:, max(0, len(self._x) - first_column) :] = -torch.inf
        peak = block.view(len(block), self.size // self._groups, self._groups).amax(dim=1)
        self._offer(block, peak, first_row, first_column)

    def offer_columns(self, block: Float[Tensor, "size size"], first_row: int, first_column: int) -> None:
        """Take candidates of the columns of a block of similarities."""
        peak = block.view(-1, self._groups, self.size).amax(dim=0).T.contiguous()
        self._offer(block.T, peak, first_column, first_row)

    def _offer(
        self, block: Float[Tensor, "r c"], peak: Float[Tensor, "r g"], first_row: int, first_column: int
    ) -> None:
        rows = slice(first_row, first_row + len(block))
        threshold = self._threshold[rows]
        peaks = self._peak[rows]
        row, group = (peak >= threshold[:, None]).nonzero(as_tuple=True)
        peaks[row, group] = torch.maximum(peaks[row, group], peak[row, group].float())  # no others raise a threshold
        if len(row) > 2 * len(block):  # it is cheaper to raise the thresholds than to search so many groups
            torch.maximum(threshold, self._reached(peaks, rows), out=threshold)
            row, group = (peak >= threshold[:, None]).nonzero(as_tuple=True)
        column = group[:, None] + torch.arange(0, block.shape[1], self._groups, device=block.device)
        value = block[row[:, None], column]
        place, which = (value >= threshold[row, None]).nonzero(as_tuple=True)
        self._take(rows, row[place], first_column + column[place, which], value[place, which].float())

    def _take(
        self, rows: slice, row: Int64[Tensor, " p"], column: Int64[Tensor, " p"], value: Float32[Tensor, " p"]
    ) -> None:
        """Take candidates that reach their thresholds. ``row`` is sorted."""
        everyone = torch.arange(rows.start, rows.stop, device=row.device)
        count = row.bincount(minlength=len(everyone))
        if (full := self._taken[rows] + count > self._places).any():
            self._condense(everyone[full])
            kept = value >= self._threshold[rows][row]
            row, column, value = row[kept], column[kept], value[kept]
            count = row.bincount(minlength=len(everyone))
            crowded = self._taken[rows] + count > self._places
            self._crowded[rows] |= crowded
            self._threshold[rows].masked_fill_(crowded, torch.inf)
            count.masked_fill_(crowded, 0)
            kept = ~crowded[row]
            row, column, value = row[kept], column[kept], value[kept]
        self._put(everyone, row, count, column, value)

    def _condense(self, rows: Int64[Tensor, " r"]) -> None:
        """Raise the thresholds of ``rows`` as far as possible, and drop the candidates that no longer reach them."""
        similarity, column = self._similarity[rows], self._column[rows]
        reached = torch.maximum(self._reached(similarity, rows), self._reached(self._peak[rows], rows))
        threshold = torch.maximum(self._threshold[rows], reached)
        row, place = (similarity >= threshold[:, None]).nonzero(as_tuple=True)
        self._threshold[rows] = threshold
        self._similarity[rows] = -torch.inf
        self._taken[rows] = 0
        self._put(rows, row, row.bincount(minlength=len(rows)), column[row, place].long(), similarity[row, place])

    def _put(
        self,
        rows: Int64[Tensor, " r"],
        row: Int64[Tensor, " p"],
        count: Int64[Tensor, " r"],
        column: Int64[Tensor, " p"],
        value: Float32[Tensor, " p"],
    ) -> None:
        """Put candidates of ``rows[row]`` into free places. ``row`` is sorted and holds each row ``count`` times."""
        first = self._taken[rows] - count.cumsum(0) + count
        place = rows[row] * self._places + first[row] + torch.arange(len(row), device=row.device)
        self._similarity.view(-1)[place] = value
        self._column.view(-1)[place] = column.int()
        self._taken[rows] += count

    def _reached(self, similarity: Float32[Tensor, "r c"], rows: slice | Int64[Tensor, " r"]) -> Float32[Tensor, " r"]:
        """Return the thresholds of rows with at least these similarities to different columns.

        Before they were rounded, the k largest were at least the k-th less its rounding. Each of them may be too large
        by the error, and the similarity of a candidate too small. Then that is rounded, too.
        """
        if similarity.shape[1] < self._k:
            return similarity.new_full((len(similarity),), _LOWEST)
        reached = similarity.topk(self._k, dim=1).values[:, -1]
        rounding = 1.01 * self._rounding
        lowest = reached - 2 * self._error[rows] - rounding * reached.abs()
        return (lowest - rounding * lowest.abs()).nan_to_num_(_LOWEST).clamp_min_(_LOWEST)

    def found(self) -> Iterator[Found]:
        """Yield the candidates of the rows that are not crowded, with their similarities in float64."""
        for rows in slices(len(self._choosers), max(1, _CHUNK_ELEMENTS // self._places)):
            similarity, columns = self._similarity[rows], self._column[rows].long()
            threshold = self._reached(similarity, rows).masked_fill_(self._crowded[rows], torch.inf)
            row, place = (similarity >= threshold[:, None]).nonzero(as_tuple=True)
            steps = torch.full(similarity.shape, BELOW_ALL, dtype=torch.int64, device=similarity.device)
            steps[row, place] = self._choosers.steps(row + rows.start, self._x, columns[row, place])
            settled = (~self._crowded[rows]).nonzero().flatten()
            yield Found(settled + rows.start, columns[settled], steps[settled])

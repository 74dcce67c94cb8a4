"""The few pairs of rows that can be nearest neighbours: a float32 product excludes the others, float64 decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from cemobam_core.similarity import BELOW_ALL, RESOLUTION, Embeddings, full_float32, in_steps, margin, slices

_BLOCK = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of a block of the float32 product. On a CPU such a block and its factors stay in the cache."""

_SPARE = 64
"""Places for candidates of each row, in addition to twice the number of neighbours."""

_CHUNK_ELEMENTS = 4_000_000
"""Number of similarities that are ranked at once: 32 MB as integers, and about three times that for their sort keys."""


class Found(NamedTuple):
    """Candidates of some rows: the nearest columns of each row, all that tie with the last of them, and some others.

    Attributes:
        rows: (R,), the rows.
        columns: (R, C), the candidates of each row.
        steps: (R, C), their similarities as multiples of the resolution. ``BELOW_ALL`` marks a place without one.
    """

    rows: Int64[Tensor, " r"]
    columns: Int64[Tensor, "r c"]
    steps: Int64[Tensor, "r c"]


def among(x: Embeddings, k: int) -> Iterator[Found]:
    """Yield the candidates for the ``k`` nearest other rows of each row.

    Similarities are symmetric, so half of the matrix is enough. The blocks on the diagonal come first, because they
    give a threshold to every row.
    """
    rough, kept = x.rough(), _Candidates(x, x, k)
    blocks = list(slices(len(x), _BLOCK[x.device.type]))
    with full_float32(x.device):
        for rows in blocks:
            similarity = rough[rows] @ rough[rows].T
            similarity.diagonal().fill_(-torch.inf)  # a row is not its own neighbour
            kept.offer_all(similarity, rows, rows)
        for i, rows in enumerate(blocks):
            for columns in blocks[i + 1 :]:
                similarity = rough[rows] @ rough[columns].T
                kept.offer(similarity, rows, columns)
                kept.offer(similarity.T, columns, rows)
    del rough
    yield from kept.found()


def between(choosers: Embeddings, x: Embeddings, k: int) -> Iterator[Found]:
    """Yield the candidates in ``x`` for the ``k`` nearest rows of each chooser."""
    rough, rough_choosers, kept = x.rough(), choosers.rough(), _Candidates(choosers, x, k)
    size = _BLOCK[x.device.type]
    with full_float32(x.device):
        for rows in slices(len(choosers), size):
            for columns in slices(len(x), size):
                similarity = rough_choosers[rows] @ rough[columns].T
                (kept.offer if columns.start else kept.offer_all)(similarity, rows, columns)
    del rough
    yield from kept.found()


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
            row, column = _where(similarity >= threshold[rows, None])
            yield row + rows.start, column + columns.start


class _Candidates:
    """The columns that can be among the ``k`` nearest of each row, of those that were offered so far.

    Each row has a threshold: its k-th largest float32 similarity so far, less the margin. A similarity below it cannot
    be among the k largest in float64, and cannot tie with them. A row has a limited number of places. If they do not
    suffice for the similarities above the threshold, the row is crowded: it takes no more candidates, and ``found``
    compares it with all columns in float64.
    """

    def __init__(self, choosers: Embeddings, x: Embeddings, k: int) -> None:
        n, places = len(choosers), min(len(x), 2 * k + _SPARE)
        self._choosers, self._x, self._k, self._places = choosers, x, k, places
        self._margin = margin(x.width)
        self._similarity = torch.full((n, places), -torch.inf, device=x.device)
        self._column = torch.zeros(n, places, dtype=torch.int32, device=x.device)
        self._taken = torch.zeros(n, dtype=torch.int64, device=x.device)
        self._threshold = torch.full((n,), -torch.inf, device=x.device)
        self._crowded = torch.zeros(n, dtype=torch.bool, device=x.device)

    def offer(self, similarity: Float32[Tensor, "r c"], rows: slice, columns: slice) -> None:
        """Take the similarities that reach the threshold of their row."""
        row, column = _where(similarity >= self._threshold[rows, None])
        count = row.bincount(minlength=len(similarity))
        full = self._taken[rows] + count > self._places
        if full.any():
            these = full.nonzero().flatten()
            self._condense(these + rows.start, similarity[these], columns)
            kept = ~full[row]
            row, column = row[kept], column[kept]
        self._take(row + rows.start, column + columns.start, similarity[row, column])

    def offer_all(self, similarity: Float32[Tensor, "r c"], rows: slice, columns: slice) -> None:
        """Take similarities of rows that have no threshold yet."""
        self._condense(torch.arange(rows.start, rows.stop, device=similarity.device), similarity, columns)

    def _condense(self, rows: Int64[Tensor, " r"], similarity: Float32[Tensor, "r c"], columns: slice) -> None:
        """Raise the thresholds of ``rows`` by their candidates and these similarities, and keep what reaches them."""
        similarity = torch.cat([self._similarity[rows], similarity], dim=1)
        new = torch.arange(columns.start, columns.stop, dtype=torch.int32, device=rows.device)
        column = torch.cat([self._column[rows], new.expand(len(rows), -1)], dim=1)
        threshold = self._raised(similarity)
        row, place = _where((similarity >= threshold[:, None]) & (similarity > -torch.inf))
        crowded = row.bincount(minlength=len(rows)) > self._places
        self._threshold[rows] = threshold.masked_fill(crowded, torch.inf)
        self._crowded[rows] = crowded
        self._similarity[rows] = -torch.inf
        self._taken[rows] = 0
        kept = ~crowded[row]
        row, place = row[kept], place[kept]
        self._take(rows[row], column[row, place], similarity[row, place])

    def _take(self, row: Int64[Tensor, " p"], column: Int64[Tensor, " p"], similarity: Float32[Tensor, " p"]) -> None:
        """Put candidates into free places. ``row`` is sorted, and each row has enough places."""
        _, which, count = row.unique_consecutive(return_inverse=True, return_counts=True)
        before = count.cumsum(0) - count
        place = self._taken[row] + torch.arange(len(row), device=row.device) - before[which]
        self._similarity[row, place] = similarity
        self._column[row, place] = column.int()
        self._taken.index_add_(0, row, torch.ones_like(row))

    def _raised(self, similarity: Float32[Tensor, "r c"]) -> Float32[Tensor, " r"]:
        """Return the thresholds of rows with these candidates."""
        if similarity.shape[1] < self._k:
            return similarity.new_full((len(similarity),), -torch.inf)
        return similarity.topk(self._k, dim=1).values[:, -1] - self._margin

    def found(self) -> Iterator[Found]:
        """Yield the candidates of all rows with their similarities in float64."""
        n = len(self._x)
        for rows in slices(len(self._choosers), max(1, _CHUNK_ELEMENTS // self._places)):
            similarity, columns = self._similarity[rows], self._column[rows].long()
            row, place = _where((similarity >= self._raised(similarity)[:, None]) & (similarity > -torch.inf))
            steps = torch.full(similarity.shape, BELOW_ALL, device=similarity.device)
            steps[row, place] = self._choosers.steps(row + rows.start, self._x, columns[row, place])
            settled = (~self._crowded[rows]).nonzero().flatten()
            yield Found(settled + rows.start, columns[settled], steps[settled])
        everyone = torch.arange(n, device=self._x.device)
        for crowded in self._crowded.nonzero().flatten().split(max(1, _CHUNK_ELEMENTS // n)):
            steps = self._all_steps(crowded)
            yield Found(crowded, everyone.expand(len(crowded), -1), steps)

    def _all_steps(self, rows: Int64[Tensor, " r"]) -> Int64[Tensor, "r n"]:
        """Return the similarities of rows to all columns."""
        unit = self._choosers.unit(rows)
        steps = torch.empty(len(rows), len(self._x), dtype=torch.int64, device=rows.device)
        for columns in slices(len(self._x), self._x.at_once):
            steps[:, columns] = in_steps(unit @ self._x.unit(columns).T)
        if self._choosers is self._x:
            steps[torch.arange(len(rows), device=rows.device), rows] = BELOW_ALL
        return steps


def _where(mask: Bool[Tensor, "r c"]) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]:
    """Return the rows and the columns of the true values, sorted by row."""
    row, column = mask.nonzero(as_tuple=True)
    return row, column

"""Cosine similarity of embeddings: in float32 with a bound of its error, and in float64 as an integer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

RESOLUTION = 2.0**-33
"""Resolution of similarities. Cosines that differ by less (1.2e-10) tie.

The rounding error of a float64 product is about 1e-15, so equal embeddings tie on every machine, whatever its matrix
product does. Different float32 embeddings do not.
"""

BELOW_ALL = -(2**34)
"""The similarity -2, which is below every cosine, as a multiple of the resolution."""

_CHUNK_ELEMENTS = 1_000_000
"""Numbers of embeddings that are converted to float64 at once: 8 MB, and some copies of them."""

_PRODUCT_ELEMENTS = 65_536
"""Numbers of embeddings, for each thread, whose products are summed at once. On a CPU they stay in the cache."""


class Embeddings:
    """Embeddings and their norms.

    Args:
        x: (N, E) embeddings of any scale.
    """

    def __init__(self, x: Float[Tensor, "n e"]) -> None:
        self._x = x.detach()
        self.at_once = max(1, _CHUNK_ELEMENTS // max(1, x.shape[1]))
        norms = [part.double().norm(dim=1) for part in self._x.split(self.at_once)]
        self._inverse = torch.cat(norms).clamp_min_(1e-12).reciprocal_()  # a product is faster than a division
        if x.dtype == torch.float64:  # products of such numbers, or of such inverses, could be too large or too small
            self._x, self._inverse = self._x * self._inverse[:, None], torch.ones_like(self._inverse)

    def __len__(self) -> int:
        """Return the number of embeddings."""
        return len(self._x)

    def at(self, rows: Int64[Tensor, " r"]) -> Embeddings:
        """Return the embeddings at these ``rows``."""
        return Embeddings(self._x[rows])

    @property
    def width(self) -> int:
        """The number of numbers of one embedding."""
        return self._x.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return self._x.device

    def unit(self, rows: slice) -> Float64[Tensor, "r e"]:
        """Return the embeddings at ``rows``, scaled to length 1."""
        return self._x[rows].double() * self._inverse[rows, None]

    def unit_at(self, rows: Int64[Tensor, " r"]) -> Float64[Tensor, "r e"]:
        """Return the embeddings at these ``rows``, scaled to length 1."""
        picked = self._x.index_select(0, rows).double()  # a copy
        return picked.mul_(self._inverse.index_select(0, rows)[:, None])

    def rough(self, *, multiple: int = 1) -> Float32[Tensor, "padded e"]:
        """Return all embeddings, scaled to length 1, in float32. Zeros follow up to a multiple of so many rows."""
        padded = math.ceil(len(self) / multiple) * multiple
        rough = torch.zeros(padded, self.width, dtype=torch.float32, device=self.device)
        for rows in slices(len(self), self.at_once):
            rough[rows] = self.unit(rows)
        return rough

    def steps(
        self, rows: Int64[Tensor, " p"], other: Embeddings, other_rows: Int64[Tensor, " p"]
    ) -> Int64[Tensor, " p"]:
        """Return the similarity of each of these rows to one row of ``other``, as multiples of the resolution.

        Every sum is taken in the same order. So equal embeddings are equally similar to all others, and similarities
        are symmetric. Two rows that are compared in both directions are compared once.
        """
        if other is self:
            low, high = torch.minimum(rows, other_rows), torch.maximum(rows, other_rows)
            pairs, which = torch.unique(low * len(self) + high, return_inverse=True)
            return self._steps(pairs // len(self), self, pairs % len(self))[which]
        return self._steps(rows, other, other_rows)

    def _steps(
        self, rows: Int64[Tensor, " p"], other: Embeddings, other_rows: Int64[Tensor, " p"]
    ) -> Int64[Tensor, " p"]:
        made = torch.empty(len(rows), dtype=torch.int64, device=self.device)  # at once: many parts fragment the memory
        size = max(1, torch.get_num_threads() * _PRODUCT_ELEMENTS // max(1, self.width))
        for part in slices(len(rows), size):
            a, b = rows[part], other_rows[part]
            product = other._x.index_select(0, b).double().mul_(self._x.index_select(0, a)).sum(dim=1)
            lengths = self._inverse.index_select(0, a).mul_(other._inverse.index_select(0, b))
            made[part] = in_steps(product.mul_(lengths))
        return made


def in_steps(similarity: Float64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Return similarities as multiples of the resolution. The given tensor is overwritten."""
    return similarity.div_(RESOLUTION).round_().to(torch.int64)


def margin(width: int) -> float:
    """Return how far below another a float32 similarity must be, so that the order in float64 is certain.

    Let u = 2^-24, the unit roundoff of float32. A term of the dot product of two vectors of length 1 is rounded
    ``width`` + 2 times at most: in both vectors, in the product, and in the ``width`` - 1 sums, in whatever order they
    are taken. So its relative error is at most (1 + u)^(width + 2) - 1. The magnitudes of all terms sum to at most 1
    (Cauchy-Schwarz), so this is also a bound of the error of the similarity. The two similarities can err in opposite
    directions. The remainder of 4u covers the rounding of the threshold, the resolution, underflow, and the errors of
    float64.

    Args:
        width: Number of numbers of one embedding.
    """
    u = 2.0**-24
    return 2 * math.expm1((width + 2) * u) + 4 * u


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 products in float32, whatever precision the caller has chosen."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def slices(n: int, size: int) -> Iterator[slice]:
    """Yield slices of ``size`` rows that cover ``n`` rows. The last one may be smaller, or empty if ``n`` is 0."""
    for first in range(0, max(n, 1), size):
        yield slice(first, min(first + size, n))

"""Embeddings in bfloat16, whose products are fast on CPUs with instructions for them, and a bound of the error."""

from __future__ import annotations

import math
import time
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float32, Float64
from torch import Tensor

from cemobam_core.similarity import Embeddings, slices

LEAST = 4096
"""Smallest number of rows for which bfloat16 is used. Among fewer, the product takes little of the time."""

ROUNDING = 2.0**-8
"""Unit roundoff of bfloat16."""

_NARROW = 0.01
"""Largest median of the bounds, as a share of the mean of |c|². It is 0.004 for embeddings of equal |c|."""

_CHUNK_ELEMENTS = 65_536
"""Numbers of embeddings that are rounded at once. With their copies in float64, they stay in the cache."""

_SIZE, _FASTER = 1024, 3.0
"""Rows of the product that is timed, and how much faster it must be than in float32."""


class Centred(NamedTuple):
    """Factors in bfloat16 of the similarities less a constant.

    The embeddings of a modality often have a large part in common. Let m be their mean at length 1, c = u - m for each
    unit vector u, and o = c · m. Then u · v = c · d + o + p + m · m, with d and p for v. The factors hold c and o, and
    leave out m · m, which is the same for all pairs. So they are small where embeddings are alike, and the errors,
    which are proportional to them, are small beside the differences of the similarities.

    Attributes:
        rows: (padded, E + 4), the rows (c, o', o'', 1, 1), where o' is o in bfloat16 and o'' the remainder.
        error: (padded,), bound of the error of the products of a row with any other, before they are rounded.
        is_narrow: Whether most of these bounds are small beside the differences of similarities. They are not if a few
            embeddings are far from all others, such as those of silence.
    """

    rows: BFloat16[Tensor, "padded w"]
    error: Float32[Tensor, " padded"]
    is_narrow: bool

    @classmethod
    def of(cls, x: Embeddings, *, multiple: int) -> Centred:
        """Return the factors of all embeddings. Zeros follow up to a multiple of so many rows.

        The product of (c + a) and (d + b), with rounding errors a and b, differs from that of c and d by
        a · d + (c + a) · b, which is at most |a| |d| + |c + a| |b| (Cauchy-Schwarz). All these norms are computed. The
        error of o' + o'' is computed, too. Products of bfloat16 are exact in float32, and their sum in float32 is
        bounded as in ``margin``. The last term covers underflow and the rounding of float64.
        """
        n, width = len(x), x.width
        padded = math.ceil(n / multiple) * multiple
        mean = torch.zeros(width, dtype=torch.float64)
        for rows in slices(n, x.at_once):
            mean += x.unit(rows).sum(dim=0) / n
        made = torch.zeros(padded, width + 4, dtype=torch.bfloat16)
        norms = torch.zeros(5, n, dtype=torch.float64)  # |c|, |a|, |c + a|, |o'| + |o''|, and the error of o
        for rows in slices(n, max(1, _CHUNK_ELEMENTS // max(1, width))):
            c = x.unit(rows) - mean
            o, made[rows, :width] = c @ mean, c.bfloat16()
            made[rows, width] = o.bfloat16()
            made[rows, width + 1] = (o - made[rows, width]).bfloat16()
            made[rows, width + 2 :] = 1
            rounded, parts = made[rows, :width].double(), made[rows, width : width + 2].double()
            norms[:3, rows] = torch.stack([one.norm(dim=1) for one in (c, rounded - c, rounded)])
            norms[3:, rows] = torch.stack([parts.abs().sum(dim=1), (o - parts.sum(dim=1)).abs()])
        error = _error(norms, width + 4).float()
        is_narrow = bool(error.median() < _NARROW * norms[0].square().mean())
        return cls(made, torch.nn.functional.pad(error, (0, padded - n)), is_narrow)

    def facing(self, rows: slice) -> BFloat16[Tensor, "r w"]:
        """Return the second factors of rows: (c, 1, 1, o', o'')."""
        width = self.rows.shape[1] - 4
        return torch.cat([self.rows[rows, :width], self.rows[rows, width + 2 :], self.rows[rows, width : width + 2]], 1)


def _error(norms: Float64[Tensor, "5 n"], width: int) -> Float64[Tensor, " n"]:
    _, a, c_and_a, parts, of_o = norms
    most_c, most_a, most_c_and_a, most_parts, most_of_o = norms.amax(dim=1)
    in_sum = math.expm1((width + 2) * 2.0**-24) * (c_and_a * most_c_and_a + parts + most_parts)
    error: Tensor = (a * most_c + c_and_a * most_a + of_o + most_of_o + in_sum) * (1 + 2.0**-20) + 2.0**-24
    return error


@cache
def is_fast() -> bool:
    """Return whether this CPU multiplies bfloat16 much faster than float32. Only the time depends on the answer."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(_SIZE, 768, dtype=dtype)
        timed = []
        for _ in range(4):  # the first prepares the product
            start = time.perf_counter()
            x @ x.T
            timed.append(time.perf_counter() - start)
        seconds.append(min(timed[1:]))
    return seconds[0] > _FASTER * seconds[1]

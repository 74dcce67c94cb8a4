"""Triton kernels for the sparse products of graph attention on a GPU.

One program computes one row, without atomic operations, so results are reproducible. On the CPU the same products are
computed by torch (see ``sparse_attention``). With ``TRITON_INTERPRET=1`` Triton also runs these kernels on the CPU,
slowly. The tests use that.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

# The kernels carry no_type_check because a run-time type checker, as in the tests, would hide this module's names from
# Triton.

_MAX_WIDTH = 1024
"""Largest number of elements of a row that one program holds at once."""


@triton.jit
@no_type_check
def _product_kernel(offsets, columns, values, x, out, d, width: tl.constexpr):  # noqa: PLR0917
    row = tl.program_id(0).to(tl.int64)
    within = tl.program_id(1) * width + tl.arange(0, width)
    there = within < d
    total = tl.zeros((width,), dtype=out.dtype.element_ty)
    for entry in range(tl.load(offsets + row), tl.load(offsets + row + 1)):
        column = tl.load(columns + entry)
        total += tl.load(values + entry) * tl.load(x + column * d + within, mask=there, other=0.0)
    tl.store(out + row * d + within, total, mask=there)


@triton.jit
@no_type_check
def _sampled_kernel(offsets, columns, a, b, out, d, width: tl.constexpr):  # noqa: PLR0917
    row = tl.program_id(0).to(tl.int64)
    for entry in range(tl.load(offsets + row), tl.load(offsets + row + 1)):
        column = tl.load(columns + entry)
        total = tl.zeros((width,), dtype=out.dtype.element_ty)
        for first in range(0, d, width):
            within = first + tl.arange(0, width)
            there = within < d
            ours = tl.load(a + row * d + within, mask=there, other=0.0)
            total += ours * tl.load(b + column * d + within, mask=there, other=0.0)
        tl.store(out + entry, tl.sum(total, axis=0))


def product(
    offsets: Int64[Tensor, " m_plus_1"],
    columns: Int64[Tensor, " e"],
    values: Float[Tensor, " e"],
    x: Float[Tensor, "m d"],
) -> Float[Tensor, "m d"]:
    """Return the product of a sparse matrix (CSR) and ``x``."""
    m, d = x.shape
    width = _width(d)
    out = torch.empty_like(x)
    _launch(_product_kernel, (m, triton.cdiv(d, width)), offsets, columns, values, x.contiguous(), out, d, width=width)
    return out


def sampled_product(
    offsets: Int64[Tensor, " m_plus_1"],
    columns: Int64[Tensor, " e"],
    a: Float[Tensor, "m d"],
    b: Float[Tensor, "m d"],
) -> Float[Tensor, " e"]:
    """Return the elements of ``a @ b.T`` at the entries of the sparse matrix."""
    m, d = a.shape
    out = a.new_empty(len(columns))
    _launch(_sampled_kernel, (m,), offsets, columns, a.contiguous(), b.contiguous(), out, d, width=_width(d))
    return out


def _width(d: int) -> int:
    return min(_MAX_WIDTH, int(triton.next_power_of_2(d)))


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, width: int) -> None:
    # enable_fp_fusion is set explicitly because Triton's default changes between versions.
    kernel[grid](*arguments, width=width, num_warps=max(1, min(8, width // 128)), enable_fp_fusion=True)

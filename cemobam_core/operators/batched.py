"""Products for one model or for R models at once. Weights of R models have a trial axis in front, (R, ...).

Operators call these functions for weights that they use directly. Modules inside operators are replaced by the class
``Stack`` of ``cemobam_core.training.stacks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Generators = Sequence[torch.Generator]
"""One random generator per trial."""


def linear(x: Float[Tensor, "*r_n e"], weight: Float[Tensor, "*r out e"], bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b.

    Args:
        x: (..., E). For R models, (R, ..., E), or (N, E) if all models share it.
        weight: (out, E). For R models, (R, out, E).
        bias: (out,). For R models, (R, 1, out).
    """
    if weight.ndim == 2:
        return torch.nn.functional.linear(x, weight, bias)
    if x.ndim == 2:
        x = x.expand(len(weight), -1, -1)
    rows, turned = x.flatten(1, -2), weight.transpose(1, 2)
    product = rows @ turned if bias is None else torch.baddbmm(bias, rows, turned)
    out: Tensor = product.unflatten(1, x.shape[1:-1])
    return out


def for_each(x: Float[Tensor, "*shape"], weight: Tensor) -> Float[Tensor, "*r shape"]:
    """Add a trial axis to shared inputs, (R, ...), if ``weight`` belongs to R models. Otherwise return ``x``.

    Call it before a layer that draws random numbers if no layer with weights precedes it: each model must draw its own.

    Args:
        x: Inputs that all models share.
        weight: Weight of a layer that will receive the inputs: (out, E), or (R, out, E) for R models.
    """
    return x.expand(len(weight), *x.shape) if weight.ndim == 3 else x


def convolve(x: Float[Tensor, "*r n planes l"], weight: Float[Tensor, "*r 1 planes k"]) -> Float[Tensor, "*r n 1 l"]:
    """Return the convolution along the last axis. Padding with zeros keeps the length."""
    padding = weight.shape[-1] // 2
    if weight.ndim == 3:
        return torch.conv1d(x, weight, padding=padding)
    laid = x.transpose(0, 1).flatten(1, 2)  # (N, R * planes, L): R models as one convolution in groups
    out = torch.conv1d(laid, weight.flatten(0, 1), padding=padding, groups=len(weight))
    return out.transpose(0, 1).unsqueeze(2)


def drop(x: Float[Tensor, "*shape"], p: float, generators: Generators | None = None) -> Float[Tensor, "*shape"]:
    """Apply dropout with probability ``p``. For R models, each trial draws from its own generator."""
    if generators is None:
        return torch.nn.functional.dropout(x, p)
    if not p:
        return x
    # On a GPU, a mask of bytes takes a quarter of the memory. On the CPU, the draws must be those of a single model,
    # whose mask has the type of x.
    kept = torch.empty_like(x, memory_format=torch.contiguous_format, dtype=torch.bool if x.is_cuda else None)
    for own, generator in zip(kept, generators, strict=True):
        own.bernoulli_(1 - p, generator=generator)
    if x.is_cuda:
        dropped: Tensor = _Drop.apply(x, kept, 1 / (1 - p))  # type: ignore[no-untyped-call]
        return dropped
    return x * kept.div_(1 - p)


class _Drop(torch.autograd.Function):
    """The product with a mask and a number, in one pass over the elements."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        out: Tensor = torch.ops.aten.native_dropout_backward(x, kept, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(grad.contiguous(), kept, ctx.scale), None, None

"""Products of one model, or of R models at once: then weights have a trial axis in front, (R, ...).

Operators call these where they use a weight by itself. The modules that they call are exchanged by
:class:`cemobam_core.training.stacks.Stack`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Generators = Sequence[torch.Generator]
"""One for each trial, from which its random numbers come."""


def linear(x: Float[Tensor, "*r_n e"], weight: Float[Tensor, "*r out e"], bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b.

    Args:
        x: (..., E); of R models (R, ..., E), or (N, E) that all of them share.
        weight: (out, E); of R models (R, out, E).
        bias: (out,); of R models (R, 1, out).
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
    """Return what all models share with their axis in front, (R, ...), if ``weight`` is of R models; else as it is.

    A layer that draws random numbers needs it before the first layer that has weights: each model draws its own.

    Args:
        x: inputs.
        weight: the matrix of a layer that will see them, (out, E); of R models (R, out, E).
    """
    return x.expand(len(weight), *x.shape) if weight.ndim == 3 else x


def convolve(x: Float[Tensor, "*r n planes l"], weight: Float[Tensor, "*r 1 planes k"]) -> Float[Tensor, "*r n 1 l"]:
    """Return the convolution along the last axis, padded with zeros so that it keeps its length."""
    padding = weight.shape[-1] // 2
    if weight.ndim == 3:
        return torch.conv1d(x, weight, padding=padding)
    laid = x.transpose(0, 1).flatten(1, 2)  # (N, R * planes, L): R models as one convolution in groups
    out = torch.conv1d(laid, weight.flatten(0, 1), padding=padding, groups=len(weight))
    return out.transpose(0, 1).unsqueeze(2)


def drop(x: Float[Tensor, "*shape"], p: float, generators: Generators | None = None) -> Float[Tensor, "*shape"]:
    """Return ``x`` after dropout with probability ``p``; of R models each trial's from its own generator."""
    if generators is None:
        return torch.nn.functional.dropout(x, p)
    if not p:
        return x
    kept = torch.empty_like(x, memory_format=torch.contiguous_format)
    for mine, generator in zip(kept, generators, strict=True):
        mine.bernoulli_(1 - p, generator=generator)
    return x * kept.div_(1 - p)

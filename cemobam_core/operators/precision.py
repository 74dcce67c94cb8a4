"""Conversion of low-precision numbers before sums and losses are computed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert numbers below 32 bits, such as bfloat16, to float32 for sums and losses. Others are unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

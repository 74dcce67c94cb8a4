"""Numbers of less than 32 bits, and what is not computed in them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a bfloat16 product in float32, in which sums and losses are taken; anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

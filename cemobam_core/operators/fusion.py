"""Fusion of the steps of several streams into one vector."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from cemobam_core.operators.pooling import masked_max, masked_mean, masked_min

Fusion = Literal["cls", "min", "max", "mean"]

FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


def fuse(streams: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"], fusion: Fusion) -> Float[Tensor, "*r n d"]:
    """Fuse streams, concatenated along time, into one vector per utterance.

    ``cls`` takes the first step. ``min``, ``max`` and ``mean`` are element-wise over the valid steps.
    """
    if fusion == "cls":
        return streams[..., 0, :]
    return {"min": masked_min, "max": masked_max, "mean": masked_mean}[fusion](streams, mask)

"""Reductions over time that use only valid steps, so padding cannot change a result."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n d"]:
    """Return the mean over the valid steps of each utterance. Every utterance must have at least one."""
    if mask.shape[1] == 1:
        return x[..., 0, :]
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(dim=-2) / weight.sum(dim=-2)


def masked_max(x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n d"]:
    """Return the element-wise maximum over the valid steps of each utterance."""
    return x.masked_fill(~mask.unsqueeze(-1), -float("inf")).amax(dim=-2)


def masked_min(x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n d"]:
    """Return the element-wise minimum over the valid steps of each utterance."""
    return x.masked_fill(~mask.unsqueeze(-1), float("inf")).amin(dim=-2)


def node_features(
    audio: Float[Tensor, "*r n ta d"],
    text: Float[Tensor, "*r n tt d"],
    audio_mask: Bool[Tensor, "n ta"],
    text_mask: Bool[Tensor, "n tt"],
) -> Float[Tensor, "*r n two_d"]:
    """Return one node per utterance, (N, 2d): V = [pool(text) ‖ pool(audio)] (Eq. 1)."""
    return torch.cat([masked_mean(text, text_mask), masked_mean(audio, audio_mask)], dim=-1)

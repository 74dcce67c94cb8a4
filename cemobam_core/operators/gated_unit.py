"""The gated multimodal unit: a gate weighs the two modalities, number by number."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GatedMultimodalUnit(nn.Module):
    r"""Fusion of two vectors of an utterance with a gate (Arevalo et al., 2017, "Gated Multimodal Units").

    .. math:: h = z \odot \tanh(W_A x_A + b_A) + (1 - z) \odot \tanh(W_T x_T + b_T), \quad
              z = \sigma(W_z [x_T \| x_A] + b_z)

    Args:
        dim: d, the size of each input vector and of the fused vector.

    Shapes:
        audio (N, d), text (N, d) → (N, d).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.audio = nn.Linear(dim, dim)
        self.text = nn.Linear(dim, dim)
        self.gate = nn.Linear(2 * dim, dim)

    def forward(self, audio: Float[Tensor, "*r n d"], text: Float[Tensor, "*r n d"]) -> Float[Tensor, "*r n d"]:
        """Return the fused vector."""
        z = self.gate(torch.cat([text, audio], dim=-1)).sigmoid()
        fused: Tensor = z * self.audio(audio).tanh() + (1 - z) * self.text(text).tanh()
        return fused

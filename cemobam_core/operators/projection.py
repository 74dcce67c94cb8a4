"""Projection of the encoders' embeddings to the hidden size of the model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.inputs import Steps


class Projection(nn.Module):
    """Linear, BatchNorm, ReLU and Dropout on every valid step.

    Padding is left out, so neither the batch statistics nor the dropout mask depends on it.

    Args:
        in_dim: Size of an embedding.
        out_dim: d, the size after the projection.
        dropout: Dropout probability.

    Shapes:
        steps (N, T, in_dim) → (N, T, out_dim), with zeros for padding.
    """

    def __init__(self, *, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim, out_dim), nn.BatchNorm1d(out_dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, steps: Steps) -> Float[Tensor, "*r n t out_dim"]:
        """Return the projected steps."""
        return steps.laid_out(self.layers(steps.valid))

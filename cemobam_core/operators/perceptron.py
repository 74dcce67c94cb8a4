"""Fully connected layers on one vector per utterance."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.operators.batched import for_each


def hidden_layers(in_dim: int, hidden_dim: int, *, layers: int = 1, dropout: float) -> nn.Sequential:
    """Return a sequence of hidden layers, each with Linear, BatchNorm, ReLU and Dropout.

    Args:
        in_dim: Size of the input.
        hidden_dim: Number of units per layer.
        layers: Number of layers.
        dropout: Dropout probability after each layer.

    Shapes:
        (N, in_dim) → (N, hidden_dim).
    """
    made: list[nn.Module] = []
    for i in range(layers):
        dim = hidden_dim if i else in_dim
        made += [nn.Linear(dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*made)


class UnimodalEncoder(nn.Module):
    """The subnetwork of one modality in tensor fusion: dropout, then three layers of Linear and ReLU.

    Zadeh et al., 2017, "Tensor Fusion Network for Multimodal Sentiment Analysis", section 4.1, as in MERBench's
    toolkit.

    Args:
        in_dim: Size of the pooled embedding.
        hidden_dim: Number of units per layer.
        dropout: Dropout probability of the embedding.

    Shapes:
        (N, in_dim) → (N, hidden_dim).
    """

    def __init__(self, *, in_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(in_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.third = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, pooled: Float[Tensor, "n in_dim"]) -> Float[Tensor, "*r n hidden_dim"]:
        """Return the encoded utterances."""
        x: Tensor = self.dropout(for_each(pooled, self.first.weight))
        for layer in (self.first, self.second, self.third):
            x = layer(x).relu()
        return x

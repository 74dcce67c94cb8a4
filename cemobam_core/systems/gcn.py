"""A graph convolutional network over the utterances, of torch-geometric's own layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class GCN(NeuralSystem):
    """Graph convolutions (Kipf and Welling, 2017) over both pooled embeddings, concatenated: torch-geometric's GCNConv.

    Args:
        hidden_dim: size of a node after a convolution.
        layers: convolutions, each followed by batch norm, ReLU and dropout.
        dropout: probability of dropout.

    Raises:
        InputError: a value out of range.
    """

    hidden_dim: int = 512
    layers: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.dropout >= 1:
            raise InputError(f"dropout={self.dropout} must be less than 1")

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        return _GCNNetwork(self, sizes)


class _GCNNetwork(nn.Module):
    def __init__(self, system: GCN, sizes: Sizes) -> None:
        from torch_geometric.nn import GCNConv  # noqa: PLC0415  (slow to import)

        super().__init__()
        dims = [sizes.audio_dim + sizes.text_dim, *[system.hidden_dim] * system.layers]
        # The graph brings its own self-loops.
        self.convolutions = nn.ModuleList(
            GCNConv(before, after, add_self_loops=False) for before, after in pairwise(dims)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(system.hidden_dim) for _ in range(system.layers))
        self.dropout = nn.Dropout(system.dropout)
        self.classifier = nn.Linear(system.hidden_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "n hidden"]:
        nodes = torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=-1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            nodes = self.dropout(norm(convolution(nodes, inputs.edge_index)).relu())
        return nodes

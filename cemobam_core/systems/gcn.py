"""A graph convolutional network over the utterances, of torch-geometric's own layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import ConvolutionNetwork, ConvolutionSystem


@dataclass(frozen=True, kw_only=True)
class GCN(ConvolutionSystem):
    """Graph convolutions (Kipf and Welling, 2017) over both pooled embeddings, concatenated: torch-geometric's GCNConv.

    Args:
        hidden_dim: size of a node after a convolution.
        layers: convolutions, each followed by batch norm, ReLU and dropout.
        dropout: probability of dropout.

    Raises:
        InputError: a value out of range.
    """

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        from torch_geometric.nn import GCNConv  # noqa: PLC0415  (slow to import)

        # The graph brings its own self-loops.
        return ConvolutionNetwork(lambda before, after: GCNConv(before, after, add_self_loops=False), self, sizes)

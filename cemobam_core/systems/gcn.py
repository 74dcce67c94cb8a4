"""A graph convolutional network over the utterances, with layers of torch-geometric."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import ConvolutionNetwork, ConvolutionSystem


@dataclass(frozen=True, kw_only=True)
class GCN(ConvolutionSystem):
    """Graph convolutions with GCNConv of torch-geometric (Kipf and Welling, 2017) on both pooled embeddings.

    The embeddings of an utterance are concatenated.

    Args:
        hidden_dim: Size of a node after a convolution.
        layers: Number of convolutions. Each is followed by batch norm, ReLU and dropout.
        dropout: Dropout probability.

    Raises:
        InputError: A value is out of range.
    """

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        from torch_geometric.nn import GCNConv  # noqa: PLC0415  (slow to import)

        # The graph already contains self-loops.
        return ConvolutionNetwork(lambda before, after: GCNConv(before, after, add_self_loops=False), self, sizes)

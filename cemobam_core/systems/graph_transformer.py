"""A transformer whose attention follows the graph of the utterances, with layers of torch-geometric."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import AttentionSystem, ConvolutionNetwork


@dataclass(frozen=True, kw_only=True)
class GraphTransformer(AttentionSystem):
    """Dot-product attention along the edges with TransformerConv of torch-geometric (Shi et al., 2021, UniMP).

    The nodes are both pooled embeddings, concatenated. Each node has separate weights for itself in addition to the
    attention, in which it also takes part through its self-loop. In UniMP the labels of training utterances are inputs.
    Here they are not.

    Args:
        hidden_dim: Size of a node after a convolution, with all heads concatenated.
        layers: Number of convolutions. Each is followed by batch norm, ReLU and dropout.
        dropout: Dropout probability.
        heads: Number of attention heads.

    Raises:
        InputError: A value is out of range.
    """

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        from torch_geometric.nn import TransformerConv  # noqa: PLC0415  (slow to import)

        return ConvolutionNetwork(
            lambda before, after: TransformerConv(before, after // self.heads, self.heads), self, sizes
        )

"""A transformer whose attention follows the graph of the utterances, of torch-geometric's own layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import AttentionSystem, ConvolutionNetwork


@dataclass(frozen=True, kw_only=True)
class GraphTransformer(AttentionSystem):
    """Dot-product attention along the edges (Shi et al., 2021, UniMP): torch-geometric's TransformerConv.

    The nodes are both pooled embeddings, concatenated. A node has weights for itself beside the attention, in which it
    takes part by its self-loop. The labels of training utterances are no input here, as they are in UniMP.

    Args:
        hidden_dim: size of a node after a convolution: of all its heads, concatenated.
        layers: convolutions, each followed by batch norm, ReLU and dropout.
        dropout: probability of dropout.
        heads: of the attention.

    Raises:
        InputError: a value out of range.
    """

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        from torch_geometric.nn import TransformerConv  # noqa: PLC0415  (slow to import)

        return ConvolutionNetwork(
            lambda before, after: TransformerConv(before, after // self.heads, self.heads), self, sizes
        )

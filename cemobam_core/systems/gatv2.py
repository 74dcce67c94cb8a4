"""GATv2: graph attention whose ranking of neighbours depends on the node, with layers of torch-geometric."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import AttentionSystem, ConvolutionNetwork


@dataclass(frozen=True, kw_only=True)
class GATv2(AttentionSystem):
    """Graph attention with GATv2Conv of torch-geometric (Brody, Alon and Yahav, 2022) on both pooled embeddings.

    In GAT (Veličković et al., 2018) all nodes rank their neighbours in the same order. Here the ranking depends on the
    node.

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
        from torch_geometric.nn import GATv2Conv  # noqa: PLC0415  (slow to import)

        def convolution(before: int, after: int) -> nn.Module:
            # The graph already contains self-loops.
            made: nn.Module = GATv2Conv(before, after // self.heads, self.heads, add_self_loops=False)
            return made

        return ConvolutionNetwork(convolution, self, sizes)

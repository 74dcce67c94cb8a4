"""Graph attention that ranks neighbours anew for each node, of torch-geometric's own layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import AttentionSystem, ConvolutionNetwork


@dataclass(frozen=True, kw_only=True)
class GATv2(AttentionSystem):
    """Graph attention (Brody, Alon and Yahav, 2022) over both pooled embeddings: torch-geometric's GATv2Conv.

    In GAT (Veličković et al., 2018) every node ranks its neighbours alike; here the ranking depends on the node.

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
        from torch_geometric.nn import GATv2Conv  # noqa: PLC0415  (slow to import)

        def convolution(before: int, after: int) -> nn.Module:
            # The graph brings its own self-loops.
            made: nn.Module = GATv2Conv(before, after // self.heads, self.heads, add_self_loops=False)
            return made

        return ConvolutionNetwork(convolution, self, sizes)

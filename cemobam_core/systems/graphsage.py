"""GraphSAGE over the utterances, with layers of torch-geometric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import CONVOLUTIONS, ConvolutionNetwork, ConvolutionSystem
from cemobam_core.systems.search import OneOf, Space


@dataclass(frozen=True, kw_only=True)
class GraphSAGE(ConvolutionSystem):
    """GraphSAGE with SAGEConv of torch-geometric (Hamilton, Ying and Leskovec, 2017) on both pooled embeddings.

    A node has one set of weights for itself and another for the aggregate of its neighbours, which include itself
    because of the self-loop. All neighbours are used. None are sampled.

    Args:
        hidden_dim: Size of a node after a convolution.
        layers: Number of convolutions. Each is followed by batch norm, ReLU and dropout.
        dropout: Dropout probability.
        aggregation: How neighbours are aggregated: their ``mean``, or the element-wise ``max``.

    Raises:
        InputError: A value is out of range.
    """

    search: ClassVar[Space] = {**CONVOLUTIONS, "aggregation": OneOf("mean", "max")}

    aggregation: Literal["mean", "max"] = "mean"

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        from torch_geometric.nn import SAGEConv  # noqa: PLC0415  (slow to import)

        return ConvolutionNetwork(lambda before, after: SAGEConv(before, after, aggr=self.aggregation), self, sizes)

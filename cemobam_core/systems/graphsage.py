"""GraphSAGE over the utterances, of torch-geometric's own layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from cemobam_core.inputs import Sizes
from cemobam_core.systems.convolutions import CONVOLUTIONS, ConvolutionNetwork, ConvolutionSystem
from cemobam_core.systems.search import OneOf, Space


@dataclass(frozen=True, kw_only=True)
class GraphSAGE(ConvolutionSystem):
    """GraphSAGE (Hamilton, Ying and Leskovec, 2017) over both pooled embeddings: torch-geometric's SAGEConv.

    A node has weights for itself and others for what its neighbours come to; by its self-loop it is one of them. All
    neighbours count, none is sampled.

    Args:
        hidden_dim: size of a node after a convolution.
        layers: convolutions, each followed by batch norm, ReLU and dropout.
        dropout: probability of dropout.
        aggregation: what the neighbours come to: their ``mean``, or the ``max`` of each number.

    Raises:
        InputError: a value out of range.
    """

    search: ClassVar[Space] = {**CONVOLUTIONS, "aggregation": OneOf("mean", "max")}

    aggregation: Literal["mean", "max"] = "mean"

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        from torch_geometric.nn import SAGEConv  # noqa: PLC0415  (slow to import)

        return ConvolutionNetwork(lambda before, after: SAGEConv(before, after, aggr=self.aggregation), self, sizes)

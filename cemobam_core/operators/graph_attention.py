"""CH-GAT: graph attention over the utterances (Veličković et al., 2018, "Graph Attention Networks")."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cemobam_core.operators.sparse_attention import adjacency_of, attend


class GraphAttention(nn.Module):
    r"""One graph attention layer: torch-geometric's ``GATConv`` over a graph with its own self-loops (Eq. 2).

    In each head, node i gathers from its neighbours j, including itself:

    .. math:: h_i' = \sum_j \alpha_{ij} W h_j, \quad
              \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}_{0.2}(a^T [W h_i \| W h_j])

    The layer computes products with a sparse matrix (see ``sparse_attention``). For the same seed, its weights have the
    same values and names as those of ``GATConv``.

    Args:
        in_dim: Size of a node's features.
        dim: Size of the output of one head.
        heads: Number of attention heads.
        concat: Whether to concatenate the heads. If false, they are averaged.

    Shapes:
        nodes (N, in_dim), edge_index (2, E) → (N, heads · dim), or (N, dim) if averaged.
    """

    negative_slope = 0.2

    def __init__(self, in_dim: int, dim: int, *, heads: int, concat: bool = True) -> None:
        super().__init__()
        self.heads, self.concat = heads, concat
        self.att_src = nn.Parameter(torch.empty(1, heads, dim))
        self.att_dst = nn.Parameter(torch.empty(1, heads, dim))
        self.bias = nn.Parameter(torch.zeros(heads * dim if concat else dim))
        # GATConv draws its projection twice and keeps the second draw. Here nn.Linear makes the first draw.
        self.lin = nn.Linear(in_dim, heads * dim, bias=False)
        for weight in (self.lin.weight, self.att_src, self.att_dst):
            bound = math.sqrt(6.0 / (weight.shape[-2] + weight.shape[-1]))  # Glorot and Bengio, 2010
            nn.init.uniform_(weight, -bound, bound)

    def forward(
        self, nodes: Float[Tensor, "*r n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "*r n width"]:
        """Return the nodes after the layer."""
        gathered = self._gather(nodes, edge_index)
        heads: Tensor = gathered.flatten(-2) if self.concat else gathered.mean(dim=-2)
        return heads + self.bias

    def _gather(
        self, nodes: Float[Tensor, "*r n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "*r n heads dim"]:
        """Return what each node gathers. An evaluation frees the projected nodes at the end of this method."""
        h = self.lin(nodes).unflatten(-1, (self.heads, -1))  # (N, heads, dim)
        rows = h.flatten(0, -3)  # nodes of several trials follow each other, graph by graph
        adjacency = adjacency_of(edge_index, len(rows), self.heads)
        return attend(rows, self.att_src, self.att_dst, adjacency, self.negative_slope).view(h.shape)


class CHGAT(nn.Module):
    """Several graph attention layers in sequence.

    Hidden layers concatenate their heads and are followed by batch norm, LeakyReLU and dropout. Then every hidden layer
    except the first adds its residual. The last layer averages its heads, and nothing follows it.

    Args:
        in_dim: Size of a node's features: 2d for [text ‖ audio] (Eq. 1).
        hidden_dim: d, the size of the output of one head.
        heads: Number of attention heads.
        layers: Number of layers, including the last one.
        dropout: Dropout probability after the hidden layers.
        last_heads: Number of heads of the last layer. ``None`` for the same number as in the other layers.
        shared_norm: Whether all hidden layers share one batch norm. If false, each has its own.
        first_dropout: Whether dropout also follows the first hidden layer.

    Shapes:
        nodes (N, in_dim), edge_index (2, E) → (N, hidden_dim).
    """

    def __init__(
        self,
        *,
        in_dim: int,
        hidden_dim: int,
        heads: int,
        layers: int,
        dropout: float,
        last_heads: int | None = None,
        shared_norm: bool = False,
        first_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.hidden = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.dropouts = nn.ModuleList()
        for i in range(layers - 1):
            self.hidden.append(GraphAttention(in_dim, hidden_dim, heads=heads))
            self.norms.append(self.norms[0] if shared_norm and i else nn.BatchNorm1d(heads * hidden_dim))
            self.dropouts.append(nn.Dropout(dropout if i or first_dropout else 0.0))
            in_dim = heads * hidden_dim
        self.last = GraphAttention(in_dim, hidden_dim, heads=last_heads or heads, concat=False)

    def forward(
        self, nodes: Float[Tensor, "*r n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "*r n hidden_dim"]:
        """Return the nodes after all layers."""
        for i, (layer, norm, dropout) in enumerate(zip(self.hidden, self.norms, self.dropouts, strict=True)):
            gathered = dropout(leaky_relu(norm(layer(nodes, edge_index))))  # (N, heads * d)
            nodes = gathered + nodes if i else gathered
        out: Tensor = self.last(nodes, edge_index)  # (N, d)
        return out

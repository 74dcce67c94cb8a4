"""CH-GAT: graph attention over the utterances (Veličković et al., 2018, "Graph Attention Networks")."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cemobam_core.operators.sparse_attention import adjacency_of, attend


class GraphAttention(nn.Module):
    r"""One graph attention layer: torch-geometric's ``GATConv`` over a graph that brings its own self-loops (Eq. 2).

    In each head, node i gathers from its neighbours j (itself among them)

    .. math:: h_i' = \sum_j \alpha_{ij} W h_j, \quad
              \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}_{0.2}(a^T [W h_i \| W h_j])

    It is computed as products with a sparse matrix (:mod:`.sparse_attention`). For the same seed the weights are those
    of ``GATConv``, under the same names.

    Args:
        in_dim: size of a node's features.
        dim: size of one head's output.
        heads: attention heads.
        concat: whether heads are concatenated; else they are averaged.

    Shapes:
        nodes (N, in_dim), edge_index (2, E) → (N, heads · dim), or (N, dim) averaged
    """

    negative_slope = 0.2

    def __init__(self, in_dim: int, dim: int, *, heads: int, concat: bool = True) -> None:
        super().__init__()
        self.heads, self.concat = heads, concat
        self.att_src = nn.Parameter(torch.empty(1, heads, dim))
        self.att_dst = nn.Parameter(torch.empty(1, heads, dim))
        self.bias = nn.Parameter(torch.zeros(heads * dim if concat else dim))
        # GATConv draws its projection twice and keeps the second; the first is drawn here by nn.Linear.
        self.lin = nn.Linear(in_dim, heads * dim, bias=False)
        for weight in (self.lin.weight, self.att_src, self.att_dst):
            bound = math.sqrt(6.0 / (weight.shape[-2] + weight.shape[-1]))  # Glorot and Bengio, 2010
            nn.init.uniform_(weight, -bound, bound)

    def forward(
        self, nodes: Float[Tensor, "*r n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "*r n width"]:
        """Return the nodes after the layer."""
        h = self.lin(nodes).unflatten(-1, (self.heads, -1))  # (N, heads, dim)
        rows = h.flatten(0, -3)  # of several trials, one graph's nodes after another's
        adjacency = adjacency_of(edge_index, len(rows), self.heads)
        gathered = attend(rows, self.att_src, self.att_dst, adjacency, self.negative_slope).view(h.shape)
        heads: Tensor = gathered.flatten(-2) if self.concat else gathered.mean(dim=-2)
        return heads + self.bias


class CHGAT(nn.Module):
    """A stack of graph attention layers.

    Hidden layers concatenate their heads and are followed by batch norm, LeakyReLU and dropout. The middle layers, that
    is the hidden ones but the first, then add the residual. The last layer averages its heads and nothing follows it.

    Args:
        in_dim: size of a node's features, 2d for [text ‖ audio] (Eq. 1).
        hidden_dim: d, the size of one head's output.
        heads: attention heads.
        layers: layers in all, the last one included.
        dropout: probability of dropout after the hidden layers.
        last_heads: heads of the last layer, which it averages; None: as many as the others.
        shared_norm: whether the hidden layers share one batch norm instead of having one each.
        first_dropout: whether dropout follows the first hidden layer too.

    Shapes:
        nodes (N, in_dim), edge_index (2, E) → (N, hidden_dim)
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

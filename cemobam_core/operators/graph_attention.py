"""CH-GAT: graph attention over the utterances (Veličković et al., 2018, "Graph Attention Networks")."""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class GraphAttention(nn.Module):
    r"""One graph attention layer: torch-geometric's ``GATConv`` over a graph that brings its own self-loops (Eq. 2).

    In each head, node i gathers from its neighbours j (itself among them)

    .. math:: h_i' = \sum_j \alpha_{ij} W h_j, \quad
              \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}_{0.2}(a^T [W h_i \| W h_j])

    The weights are held here, with ``GATConv``'s names and, for the same seed, its initial values. What computes is
    ``GATConv`` itself, which is imported when it is first called: that takes longer than many a trial, and the fast
    pass (:mod:`cemobam_core.fast`) does without.

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
        self.in_dim, self.dim, self.heads, self.concat = in_dim, dim, heads, concat
        self.att_src = nn.Parameter(torch.empty(1, heads, dim))
        self.att_dst = nn.Parameter(torch.empty(1, heads, dim))
        self.bias = nn.Parameter(torch.zeros(heads * dim if concat else dim))
        # GATConv draws its projection twice and keeps the second; the first is drawn here by nn.Linear.
        self.lin = nn.Linear(in_dim, heads * dim, bias=False)
        for weight in (self.lin.weight, self.att_src, self.att_dst):
            bound = math.sqrt(6.0 / (weight.shape[-2] + weight.shape[-1]))  # Glorot and Bengio, 2010
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, nodes: Float[Tensor, "n in_dim"], edge_index: Int64[Tensor, "2 e"]) -> Float[Tensor, "n width"]:
        """Nodes after the layer."""
        layer = _gat_conv(self.in_dim, self.dim, self.heads, self.concat)
        out: Tensor = torch.func.functional_call(layer, dict(self.named_parameters()), (nodes, edge_index))
        return out


@cache
def _gat_conv(in_dim: int, dim: int, heads: int, concat: bool) -> nn.Module:
    """The layer, without weights of its own."""
    from torch_geometric.nn import GATConv  # noqa: PLC0415  (slow to import)

    with torch.device("meta"):
        layer: nn.Module = GATConv(in_dim, dim, heads=heads, concat=concat, add_self_loops=False)
    return layer


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
        self, nodes: Float[Tensor, "n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "n hidden_dim"]:
        """Nodes after all layers."""
        for i, (layer, norm, dropout) in enumerate(zip(self.hidden, self.norms, self.dropouts, strict=True)):
            gathered = dropout(leaky_relu(norm(layer(nodes, edge_index))))  # (N, heads * d)
            nodes = gathered + nodes if i else gathered
        out: Tensor = self.last(nodes, edge_index)  # (N, d)
        return out

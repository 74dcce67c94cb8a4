"""CH-GAT: graph attention over the utterances (Veličković et al., 2018, "Graph Attention Networks")."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GATConv


class CHGAT(nn.Module):
    r"""A stack of graph attention layers.

    In each layer and head, node i gathers from its neighbours j (itself among them)

    .. math:: h_i' = \sum_j \alpha_{ij} W h_j, \quad
              \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}_{0.2}(a^T [W h_i \| W h_j])

    Hidden layers concatenate their heads and are followed by batch norm, LeakyReLU, dropout and, where the shapes
    agree, the residual; the last layer averages its heads and nothing follows it.

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
            # The graph brings its own self-loops (Eq. 2), so the layer adds none.
            self.hidden.append(GATConv(in_dim, hidden_dim, heads=heads, add_self_loops=False))
            self.norms.append(self.norms[0] if shared_norm and i else nn.BatchNorm1d(heads * hidden_dim))
            self.dropouts.append(nn.Dropout(dropout if i or first_dropout else 0.0))
            in_dim = heads * hidden_dim
        self.last = GATConv(in_dim, hidden_dim, heads=last_heads or heads, concat=False, add_self_loops=False)

    def forward(
        self, nodes: Float[Tensor, "n in_dim"], edge_index: Int64[Tensor, "2 e"]
    ) -> Float[Tensor, "n hidden_dim"]:
        """Nodes after all layers."""
        for layer, norm, dropout in zip(self.hidden, self.norms, self.dropouts, strict=True):
            gathered = dropout(leaky_relu(norm(layer(nodes, edge_index))))  # (N, heads * d)
            nodes = gathered + nodes if gathered.shape == nodes.shape else gathered
        out: Tensor = self.last(nodes, edge_index)  # (N, d)
        return out

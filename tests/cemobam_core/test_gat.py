from __future__ import annotations

import torch
from torch.nn.functional import leaky_relu

from cemobam_core import TopKGraph
from cemobam_core.gat import CHGAT


def layer_by_hand(x: torch.Tensor, edges: torch.Tensor, layer: torch.nn.Module, *, concat: bool) -> torch.Tensor:
    """One GAT layer, node by node and head by head, from its formula."""
    heads, d = layer.att_src.shape[1:]
    h = (x @ layer.lin.weight.T).view(len(x), heads, d)
    out = torch.zeros(len(x), heads, d, dtype=x.dtype)
    for i in range(len(x)):
        sources = edges[0][edges[1] == i]
        for head in range(heads):
            scores = [
                leaky_relu(h[j, head] @ layer.att_src[0, head] + h[i, head] @ layer.att_dst[0, head], 0.2)
                for j in sources
            ]
            alpha = torch.softmax(torch.stack(scores), dim=0)
            out[i, head] = sum(a * h[j, head] for a, j in zip(alpha, sources, strict=True))
    return (out.flatten(1) if concat else out.mean(dim=1)) + layer.bias


def test_the_stack_is_its_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 6, dtype=torch.float64)
    edges = TopKGraph.from_features(x, torch.randn(9, 6), 3).edge_index(3, 2)
    gat = CHGAT(in_dim=6, hidden_dim=4, heads=3, layers=3, dropout=0.0).double().eval()
    for norm in gat.norms:  # any statistics but the trivial
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    first = leaky_relu(gat.norms[0](layer_by_hand(x, edges, gat.hidden[0], concat=True)), 0.01)
    second = leaky_relu(gat.norms[1](layer_by_hand(first, edges, gat.hidden[1], concat=True)), 0.01) + first
    expected = layer_by_hand(second, edges, gat.last, concat=False)
    torch.testing.assert_close(gat(x, edges), expected)
    assert gat(x, edges).shape == (9, 4)


def test_a_node_gathers_from_those_it_chose_and_from_no_other() -> None:
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 0]])  # 0 chose 1
    gat = CHGAT(in_dim=3, hidden_dim=2, heads=1, layers=1, dropout=0.0)
    x = torch.randn(3, 3)
    moved = x.clone()
    moved[1] += 1
    changed = (gat(x, edges) != gat(moved, edges)).any(dim=1)
    assert changed.tolist() == [True, True, False]
    moved = x.clone()
    moved[0] += 1  # 1 did not choose 0
    changed = (gat(x, edges) != gat(moved, edges)).any(dim=1)
    assert changed.tolist() == [True, False, False]

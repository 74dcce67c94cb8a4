from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GATConv

from cemobam_core import TopKGraph
from cemobam_core.operators.graph_attention import CHGAT, GraphAttention


@pytest.mark.parametrize(("heads", "concat"), [(1, True), (4, True), (4, False)])
def test_a_layer_is_torch_geometrics_to_the_bit_from_the_same_seed(heads: int, concat: bool) -> None:
    torch.manual_seed(3)
    theirs = GATConv(6, 5, heads=heads, concat=concat, add_self_loops=False)
    drawn_next = torch.rand(1)
    torch.manual_seed(3)
    ours = GraphAttention(6, 5, heads=heads, concat=concat)
    assert torch.rand(1) == drawn_next
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(mine, of) for mine, of in zip(ours.parameters(), theirs.parameters(), strict=True))
    nodes, edges = torch.randn(7, 6), torch.tensor([[0, 1, 2, 3, 4, 5, 6, 3], [0, 1, 2, 3, 4, 5, 6, 0]])
    state = torch.get_rng_state()
    outs = []
    for layer in (ours, theirs):
        outs.append(layer(nodes, edges))
        outs[-1].square().sum().backward()
    assert torch.equal(*outs)
    assert all(torch.equal(mine.grad, of.grad) for mine, of in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.process
def test_training_does_without_torch_geometric_which_takes_longer_to_import_than_a_trial() -> None:
    program = """
import sys, torch
from cemobam_core.config import CemoBAMConfig, TrainingConfig
from cemobam_core.training.loop import Batch, train
x = torch.randn(6, 4)
batch = Batch(x, x, torch.arange(6) % 2, torch.arange(6).expand(2, -1))
config = CemoBAMConfig(num_classes=2, audio_dim=4, text_dim=4, hidden_dim=4, heads=2)
train(config, {"train": batch, "val": batch}, training=TrainingConfig(epochs=1))
print("torch_geometric" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


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


@pytest.mark.parametrize(("in_dim", "heads"), [(6, 3), (8, 2)])  # of the second the first layer keeps the shape
def test_the_stack_is_its_formula(in_dim: int, heads: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(9, in_dim, dtype=torch.float64)
    edges = TopKGraph.from_features(x, torch.randn(9, 6), 3).edge_index(3, 2)
    gat = CHGAT(in_dim=in_dim, hidden_dim=4, heads=heads, layers=3, dropout=0.0).double().eval()
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

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from batches import TOLERANCE, any_graph
from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise
from torch import nn
from torch.nn.functional import dropout, leaky_relu
from torch_geometric.nn import GATConv

from cemobam_core import InputError, TopKGraph
from cemobam_core.operators.graph_attention import CHGAT, GraphAttention
from cemobam_core.operators.sparse_attention import Adjacency, adjacency_of


@given(
    in_dim=st.integers(1, 12),
    dim=st.integers(1, 20),
    heads=st.integers(1, 5),
    concat=st.booleans(),
    n=st.integers(1, 20),
    density=st.integers(0, 5),
    loops=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_layer_is_torch_geometrics_from_the_same_seed(
    in_dim: int,
    dim: int,
    heads: int,
    concat: bool,
    n: int,
    density: int,
    loops: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    """Compare weights bit for bit, then the output and every gradient, including that of the nodes."""
    torch.manual_seed(seed)
    theirs = GATConv(in_dim, dim, heads=heads, concat=concat, add_self_loops=False)
    drawn_next = torch.rand(1)
    torch.manual_seed(seed)
    ours = GraphAttention(in_dim, dim, heads=heads, concat=concat)
    assert torch.rand(1) == drawn_next
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(mine, of) for mine, of in zip(ours.parameters(), theirs.parameters(), strict=True))
    nodes, edges = torch.randn(n, in_dim, dtype=dtype), any_graph(n, n * density, seed, loops=loops)
    weight = torch.randn(n, dim * heads if concat else dim, dtype=dtype)
    state, results = torch.get_rng_state(), []
    for layer in (ours.to(dtype), theirs.to(dtype)):
        x = nodes.clone().requires_grad_()
        out = layer(x, edges)
        (out * weight).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for mine, of in zip(*results, strict=True):
        torch.testing.assert_close(mine, of, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.process
def test_training_does_without_torch_geometric_which_takes_longer_to_import_than_a_trial() -> None:
    program = """
import sys, torch
from cemobam_core import Batch, CemoBAM, Inputs, TrainingConfig, train
x = torch.randn(6, 4)
batch = Batch(Inputs.from_features(x, x, torch.arange(6).expand(2, -1)), torch.arange(6) % 2, num_classes=2)
train(CemoBAM(hidden_dim=4, heads=2), {"train": batch, "val": batch}, training=TrainingConfig(epochs=1))
print("torch_geometric" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def layer_by_hand(x: torch.Tensor, edges: torch.Tensor, layer: torch.nn.Module, *, concat: bool) -> torch.Tensor:
    """Compute one GAT layer from its formula, node by node and head by head."""
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


class Theirs(nn.Module):
    """CH-GAT with layers of torch-geometric, from its description."""

    def __init__(
        self, in_dim: int, d: int, heads: int, layers: int, last_heads: int | None, *, shared: bool, first: bool
    ) -> None:
        super().__init__()
        widths = [in_dim, *[heads * d] * (layers - 1)]
        self.hidden = nn.ModuleList(GATConv(w, d, heads=heads, add_self_loops=False) for w in widths[:-1])
        self.last = GATConv(widths[-1], d, heads=last_heads or heads, concat=False, add_self_loops=False)
        norm = nn.BatchNorm1d(heads * d)
        self.norms = nn.ModuleList(norm if shared else nn.BatchNorm1d(heads * d) for _ in range(layers - 1))
        self.first = first

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        for i, (layer, norm) in enumerate(zip(self.hidden, self.norms, strict=True)):
            after = leaky_relu(norm(layer(x, edges)), 0.01)
            if i or self.first:
                after = dropout(after, 0.3, self.training)
            x = after + x if i else after
        return self.last(x, edges)


@pairwise(
    heads=[1, 3],
    layers=[2, 3, 4],
    last_heads=[None, 1],
    shared=[False, True],
    first=[False, True],
    training=[False, True],
    dtype=[torch.float32, torch.float64],
)
def test_the_whole_is_one_of_torch_geometrics_layers(
    heads: int, layers: int, last_heads: int | None, shared: bool, first: bool, training: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(heads + layers)
    x, edges = torch.randn(14, 6, dtype=dtype), any_graph(14, 40, 0, loops=True)
    theirs = Theirs(6, 5, heads, layers, last_heads, shared=shared, first=first).to(dtype).train(training)
    ours = CHGAT(
        in_dim=6,
        hidden_dim=5,
        heads=heads,
        layers=layers,
        dropout=0.3,
        last_heads=last_heads,
        shared_norm=shared,
        first_dropout=first,
    ).to(dtype)
    ours.train(training).load_state_dict(theirs.state_dict())
    results = []
    for model in (ours, theirs):
        torch.manual_seed(7)
        out = model(x, edges)
        out.square().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        results.append({"out": out.detach(), "next": torch.rand(1), **grads, **dict(model.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for name, of in results[1].items():
        torch.testing.assert_close(results[0][name], of, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], msg=name)


@pytest.mark.parametrize(("in_dim", "heads"), [(6, 3), (8, 2)])  # in the second case the first layer keeps the shape
def test_the_whole_is_its_formula(in_dim: int, heads: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(9, in_dim, dtype=torch.float64)
    edges = TopKGraph.from_features(x, torch.randn(9, 6), 3).edge_index(3, 2)
    gat = CHGAT(in_dim=in_dim, hidden_dim=4, heads=heads, layers=3, dropout=0.0).double().eval()
    for norm in gat.norms:  # random statistics
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


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            torch.tensor([[0, 3], [1, 1]]),
            "edge_index refers to utterances 0 to 3, but there are 3: build the graph from",
        ),
        (torch.tensor([[0, 1], [-1, 1]]), "edge_index refers to utterances -1 to 1, but there are 3"),
        (torch.tensor([[0.0], [1.0]]), r"edge_index is float32 \(2, 1\); it must be int64 \(2, E\)"),
        (torch.tensor([[0, 1], [1, 2], [2, 0]]), r"edge_index is int64 \(3, 2\); it must be int64"),
        (torch.tensor([0, 1]), r"edge_index is int64 \(2,\); it must be int64"),
    ],
)
def test_edges_that_are_none_are_named(edges: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adjacency_of(edges, 3, 2)


def test_the_layer_refuses_edges_to_nobody() -> None:
    with pytest.raises(InputError, match="edge_index refers to utterances 0 to 3, but there are 3"):
        GraphAttention(4, 2, heads=2)(torch.randn(3, 4), torch.tensor([[0, 3], [1, 1]]))


def test_a_graphs_matrix_is_made_once_and_freed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    plainly = Adjacency.from_edges
    monkeypatch.setattr(Adjacency, "from_edges", lambda *given: made.append(given[1:]) or plainly(*given))
    edges, equal = any_graph(9, 20, 0, loops=True), any_graph(9, 20, 0, loops=True)
    gat = CHGAT(in_dim=6, hidden_dim=4, heads=2, layers=3, dropout=0.0, last_heads=1)
    for _ in range(3):
        gat(torch.randn(9, 6), edges)
    assert made == [(9, 2), (9, 1)]
    gat(torch.randn(9, 6), equal)  # another tensor with the same edges
    assert made == [(9, 2), (9, 1)] * 2
    kept = weakref.ref(adjacency_of(edges, 9, 2))
    assert kept() is adjacency_of(edges, 9, 2)
    del edges
    gc.collect()
    assert kept() is None


def test_edges_changed_in_place_are_seen() -> None:
    torch.manual_seed(0)
    layer, x = GraphAttention(3, 2, heads=1), torch.randn(3, 3)
    edges = torch.tensor([[0, 1, 2], [0, 1, 2]])
    before = layer(x, edges)
    edges[0] = torch.tensor([1, 2, 0])
    after = layer(x, edges)
    assert not torch.equal(before, after)
    assert torch.equal(after, layer(x, edges.clone()))


def test_in_inference_mode_it_works_too() -> None:
    with torch.inference_mode():
        edges = torch.tensor([[0, 1, 2], [0, 1, 2]])
        assert GraphAttention(3, 2, heads=1)(torch.randn(3, 3), edges).shape == (3, 2)

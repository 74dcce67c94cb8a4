from __future__ import annotations

import pytest
import torch
from batches import any_graph
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import GATConv

from cemobam_core.operators.sparse_attention import (
    Adjacency,
    attend,
    score_gradients_in_one_pass,
    scores_in_one_pass,
)


def both(
    layer: GATConv, x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return output and gradients of torch-geometric's layer, and of ours with the same parameters."""

    def ours() -> torch.Tensor:
        h = layer.lin(x).view(len(x), layer.heads, -1)
        out = attend(h, layer.att_src, layer.att_dst, Adjacency.from_edges(edges, len(x), layer.heads))
        return (out.flatten(1) if layer.concat else out.mean(dim=1)) + layer.bias

    results = []
    for forward in (lambda: layer(x, edges), ours):
        layer.zero_grad()
        x.grad = None
        out = forward()
        (out * weight).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad for p in layer.parameters())])
    return results[0], results[1]


@given(
    n=st.integers(1, 30),
    density=st.integers(0, 8),
    heads=st.integers(1, 5),
    dim=st.integers(1, 40),
    concat=st.booleans(),
    loops=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_is_torch_geometrics_layer_in_value_and_every_gradient(
    n: int, density: int, heads: int, dim: int, concat: bool, loops: bool, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    edges = any_graph(n, n * density, seed, loops=loops)
    layer = GATConv(7, dim, heads=heads, concat=concat, add_self_loops=False).to(dtype)
    x = torch.randn(n, 7, dtype=dtype, requires_grad=True)
    weight = torch.randn(n, dim * heads if concat else dim, dtype=dtype)
    expected, ours = both(layer, x, edges, weight)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    for theirs, mine in zip(expected, ours, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def test_its_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    adjacency = Adjacency.from_edges(any_graph(6, 12, 0, loops=True), 6, 2)
    inputs = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 2, 3), (1, 2, 3), (1, 2, 3))
    ]
    assert torch.autograd.gradcheck(lambda *x: attend(*x, adjacency), inputs)


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_large_scores_do_not_overflow(scale: float) -> None:
    edges = any_graph(8, 20, 1, loops=True)
    h = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(0))
    out = attend(h, torch.full((1, 1, 4), scale), torch.zeros(1, 1, 4), Adjacency.from_edges(edges, 8, 1))
    assert out.isfinite().all()


def test_a_node_without_neighbours_gathers_zeros() -> None:
    adjacency = Adjacency.from_edges(torch.tensor([[0], [1]]), 3, 2)
    h = torch.randn(3, 2, 4)
    out = attend(h, torch.randn(1, 2, 4), torch.randn(1, 2, 4), adjacency)
    assert torch.equal(out[1], h[0])  # a single neighbour has weight 1
    assert not out[[0, 2]].any()


def test_an_edge_given_twice_counts_twice_as_in_torch_geometric() -> None:
    torch.manual_seed(0)
    edges = torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 1, 2]])
    layer = GATConv(3, 4, heads=2, add_self_loops=False).double()
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    expected, ours = both(layer, x, edges, torch.randn(3, 8, dtype=torch.float64))
    for theirs, mine in zip(expected, ours, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@given(
    graphs=st.integers(1, 3),
    n=st.integers(1, 6),
    heads=st.integers(1, 4),
    dim=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_scores_of_a_gpu_are_those_of_a_cpu(graphs: int, n: int, heads: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    h, grad_h = torch.randn(2, graphs, n, heads, dim, dtype=torch.float64)
    attention = torch.randn(2, graphs, heads, dim, dtype=torch.float64)
    of_scores = torch.randn(2, graphs, n, heads, 1, dtype=torch.float64)
    for scores, att in zip(scores_in_one_pass(h, *attention), attention, strict=True):
        torch.testing.assert_close(scores, (h * att.unsqueeze(1)).sum(dim=-1).flatten())
    expected = grad_h + sum(of * att.unsqueeze(1) for of, att in zip(of_scores, attention, strict=True))
    gradients = score_gradients_in_one_pass(grad_h, h, *attention, *of_scores)
    torch.testing.assert_close(grad_h, expected)
    for gradient, of in zip(gradients, of_scores, strict=True):
        torch.testing.assert_close(gradient, (of * h).sum(dim=1))

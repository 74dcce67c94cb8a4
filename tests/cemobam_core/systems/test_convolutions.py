"""The networks with graph convolutions of torch-geometric, compared with the formulas of their layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import SIZES, any_batch
from torch import Tensor
from torch.nn.functional import leaky_relu

from cemobam_core import Inputs
from cemobam_core.systems.convolutions import ConvolutionSystem
from cemobam_core.systems.gatv2 import GATv2
from cemobam_core.systems.gcn import GCN
from cemobam_core.systems.graph_transformer import GraphTransformer
from cemobam_core.systems.graphsage import GraphSAGE

SYSTEMS: list[ConvolutionSystem] = [
    GCN(hidden_dim=8),
    GraphSAGE(hidden_dim=8),
    GraphSAGE(hidden_dim=8, aggregation="max", layers=1),
    GATv2(hidden_dim=8, heads=2),
    GraphTransformer(hidden_dim=8, heads=4, layers=3),
]


def network_of(system: ConvolutionSystem) -> Any:
    torch.manual_seed(0)
    network: Any = system.build(SIZES).double().eval()
    for norm in network.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return network


def inputs_of(n: int = 20) -> Inputs:
    return any_batch(n, (0, 0), 3, torch.float64).inputs


def first_layer(system: ConvolutionSystem) -> tuple[Any, Tensor, Inputs, Tensor]:
    """Return a network's first layer, the nodes before it, their graph, and the nodes after it."""
    convolution, inputs = network_of(system).convolutions[0], inputs_of()
    nodes = torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=1)
    return convolution, nodes, inputs, convolution(nodes, inputs.edge_index)


def gathered(inputs: Inputs, node: int) -> Tensor:
    """Return the nodes that a node gathers from in the graph, including itself."""
    source, target = inputs.edge_index
    return source[target == node]


def test_a_layer_of_graphsage_is_its_formula() -> None:
    """W₁ · mean of the neighbours + b + W₂ x."""
    for aggregation in ("mean", "max"):
        system = GraphSAGE(hidden_dim=8, aggregation=aggregation)  # type: ignore[arg-type]
        convolution, x, inputs, out = first_layer(system)
        for node in range(20):
            around = x[gathered(inputs, node)]
            of = around.mean(dim=0) if aggregation == "mean" else around.amax(dim=0)
            torch.testing.assert_close(out[node], convolution.lin_l(of) + convolution.lin_r(x[node]))


def test_a_layer_of_gatv2_is_its_formula() -> None:
    """Softmax over the neighbours j of aᵀ LeakyReLU(W_l x_j + W_r x_i), for each head."""
    convolution, x, inputs, out = first_layer(GATv2(hidden_dim=8, heads=2))
    left, right = (lin(x).view(20, 2, 4) for lin in (convolution.lin_l, convolution.lin_r))
    for node in range(20):
        around = gathered(inputs, node)
        score = (convolution.att * leaky_relu(left[around] + right[node], 0.2)).sum(dim=-1)
        expected = (score.softmax(dim=0).unsqueeze(-1) * left[around]).sum(dim=0).flatten() + convolution.bias
        torch.testing.assert_close(out[node], expected)


def test_a_layer_of_the_transformer_is_its_formula() -> None:
    """Softmax over the neighbours j of (W_q x_i) · (W_k x_j) / √d, of W_v x_j, for each head, + W x_i."""
    convolution, x, inputs, out = first_layer(GraphTransformer(hidden_dim=8, heads=2))
    query, key, value = (
        lin(x).view(20, 2, 4) for lin in (convolution.lin_query, convolution.lin_key, convolution.lin_value)
    )
    for node in range(20):
        around = gathered(inputs, node)
        weight = ((query[node] * key[around]).sum(dim=-1) / 2).softmax(dim=0)
        expected = (weight.unsqueeze(-1) * value[around]).sum(dim=0).flatten() + convolution.lin_skip(x[node])
        torch.testing.assert_close(out[node], expected)


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_the_order_of_utterances_does_not_matter(system: ConvolutionSystem) -> None:
    network, inputs = network_of(system), inputs_of()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    edges = order.argsort()[inputs.edge_index]
    mixed = Inputs.from_features(inputs.audio[order].squeeze(1), inputs.text[order].squeeze(1), edges)
    torch.testing.assert_close(network(mixed), network(inputs)[order])


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_layers_have_the_width(system: ConvolutionSystem) -> None:
    network = network_of(system)
    assert len(network.convolutions) == len(network.norms) == system.layers
    assert network.embedding(inputs_of()).shape == (20, 8)
    assert network(inputs_of()).shape == (20, 3)


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_padding_does_not_matter(system: ConvolutionSystem) -> None:
    network, inputs = network_of(system), any_batch(12, (4, 3), 5, torch.float64).inputs
    audio = torch.where(inputs.audio.mask.unsqueeze(-1), inputs.audio, 9.0)
    other = Inputs.from_features(
        audio, torch.Tensor(inputs.text), inputs.edge_index, inputs.audio.mask, inputs.text.mask
    )
    torch.testing.assert_close(network(other), network(inputs))

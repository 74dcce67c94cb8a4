from __future__ import annotations

import torch

from cemobam_core import Inputs, Sizes
from cemobam_core.systems.gcn import GCN

SIZES = Sizes(audio_dim=3, text_dim=2, num_classes=4)


def test_a_layer_is_kipf_and_wellings_formula() -> None:
    """D^(-1/2) A D^(-1/2) X W + b, where a node's degree counts the edges that it gathers from."""
    torch.manual_seed(0)
    network = GCN(hidden_dim=6, layers=2).build(SIZES).double().eval()
    for norm in network.norms:  # type: ignore[union-attr]
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    edges = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 0, 4], [0, 1, 2, 3, 4, 0, 0, 1, 3]])  # self-loops first
    audio, text = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    adjacency = torch.zeros(5, 5, dtype=torch.float64)
    adjacency[edges[1], edges[0]] = 1.0
    degree = adjacency.sum(dim=1)
    normed = adjacency / degree.sqrt().outer(degree.sqrt())
    x = torch.cat([audio, text], dim=1)
    for convolution, norm in zip(network.convolutions, network.norms, strict=True):  # type: ignore[arg-type]
        torch.nn.init.normal_(convolution.bias)
        x = norm(normed @ x @ convolution.lin.weight.T + convolution.bias).relu()
    expected = network.classifier(x)  # type: ignore[operator]
    torch.testing.assert_close(network(Inputs.from_features(audio, text, edges)), expected)


def test_dropout_follows_each_layer_in_training() -> None:
    torch.manual_seed(0)
    network = GCN(hidden_dim=64, layers=1, dropout=0.5).build(SIZES).train()
    nodes = torch.arange(50).expand(2, -1)
    embedding = network.embedding(Inputs.from_features(torch.randn(50, 3), torch.randn(50, 2), nodes))  # type: ignore[operator]
    assert 0.65 < (embedding == 0).double().mean() < 0.85  # ReLU sets half to zero, dropout half of the rest

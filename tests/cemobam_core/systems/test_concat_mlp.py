from __future__ import annotations

import torch
from batches import SIZES, any_batch
from torch import nn

from cemobam_core.systems.concat_mlp import ConcatMLP


def test_it_is_linear_norm_relu_dropout_on_both_embeddings() -> None:
    torch.manual_seed(0)
    network = ConcatMLP(hidden_dim=7, layers=2).build(SIZES).eval()
    kinds = [type(module) for module in network.hidden]  # type: ignore[union-attr]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 2
    inputs = any_batch(20, (4, 3), 0).inputs
    x = torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=1)
    for linear, norm in ((network.hidden[0], network.hidden[1]), (network.hidden[4], network.hidden[5])):  # type: ignore[index]
        x = ((x @ linear.weight.T + linear.bias) / (1 + norm.eps) ** 0.5).relu()
    classifier = network.classifier
    torch.testing.assert_close(network(inputs), x @ classifier.weight.T + classifier.bias)  # type: ignore[operator, union-attr]


def test_padding_does_not_matter() -> None:
    torch.manual_seed(0)
    network = ConcatMLP(hidden_dim=7).build(SIZES).eval()
    inputs = any_batch(20, (4, 3), 0).inputs
    before = network(inputs)
    inputs.audio.as_subclass(torch.Tensor)[~inputs.audio.mask] = 1e6
    del inputs.audio.pooled
    torch.testing.assert_close(network(inputs), before)

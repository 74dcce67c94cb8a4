from __future__ import annotations

import pytest
import torch
from batches import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cemobam_core.inputs import Steps
from cemobam_core.operators.projection import Projection


@given(
    n=st.integers(2, 9),
    steps=st.integers(1, 5),
    out_dim=st.integers(1, 12),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_is_linear_norm_relu_dropout_on_each_valid_step_and_zero_elsewhere(
    n: int, steps: int, out_dim: int, training: bool, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    projection = Projection(in_dim=7, out_dim=out_dim, dropout=0.3).to(dtype).train(training)
    x, mask = torch.randn(n, steps, 7, dtype=dtype), torch.arange(steps) < torch.randint(1, steps + 1, (n, 1))
    linear, norm = projection.layers[0], projection.layers[1]
    rows = torch.stack([x[i, t] for i in range(n) for t in range(steps) if mask[i, t]])
    projected = rows @ linear.weight.T + linear.bias
    mean, var = (projected.mean(0), projected.var(0, correction=0)) if training else (torch.zeros(()), torch.ones(()))
    normed = (projected - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.manual_seed(seed)
    expected = nn.functional.dropout(normed.relu(), 0.3, training)
    torch.manual_seed(seed)
    out = projection(Steps.of(x, mask))
    assert out.shape == (n, steps, out_dim)
    assert type(out) is torch.Tensor
    # with few rows batch norm divides by variances near zero
    torch.testing.assert_close(out[mask], expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])
    assert not out[~mask].any()


def test_padding_has_no_gradient() -> None:
    projection = Projection(in_dim=3, out_dim=4, dropout=0.0)
    x = torch.randn(4, 3, 3, requires_grad=True)
    mask = torch.arange(3) < torch.tensor([[1], [2], [3], [1]])
    projection(Steps.of(x, mask)).square().sum().backward()
    assert x.grad is not None
    assert not x.grad[~mask].any()
    assert x.grad[mask].any(dim=-1).all()


@pytest.mark.parametrize("trials", [1, 3])
def test_of_several_trials_each_is_laid_out_alike(trials: int) -> None:
    mask = torch.arange(3) < torch.tensor([[1], [3]])
    steps = Steps.of(torch.randn(2, 3, 5), mask)
    valid = torch.randn(trials, 4, 6)
    for one, out in zip(valid, steps.laid_out(valid), strict=True):
        assert torch.equal(out, steps.laid_out(one))
        assert torch.equal(out[mask], one)

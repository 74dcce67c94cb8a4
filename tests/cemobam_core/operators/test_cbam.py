from __future__ import annotations

import torch
from batches import TOLERANCE
from pairwise import pairwise

from cemobam_core.operators.cbam import CBAM1d, ChannelAttention, ChannelGate, SpatialAttention, SpatialAxis


def test_channel_attention_is_equation_3() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 32)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    attention = ChannelAttention(channels=32, reduction=16)
    down, up = attention.mlp[0].weight, attention.mlp[2].weight
    assert down.shape == (2, 32)
    for i, steps in ((0, 5), (1, 3)):
        pooled = (x[i, :steps].mean(dim=0), x[i, :steps].max(dim=0).values)
        logits = sum(up @ torch.relu(down @ p) for p in pooled)
        torch.testing.assert_close(attention(x, mask)[i, 0], torch.sigmoid(logits))


def test_spatial_attention_is_equation_4() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 9, 6)
    attention = SpatialAttention(kernel=7)
    weight = attention.conv.weight[0]  # (2, 7)
    planes = torch.stack([x[0].mean(dim=1), x[0].max(dim=1).values])  # (2, 9)
    padded = torch.nn.functional.pad(planes, (3, 3))
    expected = torch.stack([torch.sigmoid((padded[:, t : t + 7] * weight).sum()) for t in range(9)])
    torch.testing.assert_close(attention(x, torch.ones(1, 9, dtype=torch.bool))[0, :, 0], expected)


def test_cbam_is_channel_then_spatial_and_blind_to_padding() -> None:
    torch.manual_seed(0)
    cbam = CBAM1d(channels=16, reduction=16, kernel=7)
    x, valid = torch.randn(3, 4, 16), torch.ones(3, 4, dtype=torch.bool)
    channelled = x * cbam.channel(x, valid)
    expected = channelled * cbam.spatial(channelled, valid)
    torch.testing.assert_close(cbam(x, valid), expected)
    junk = torch.cat([x, torch.full((3, 9, 16), 7.0)], dim=1)
    longer = torch.cat([valid, torch.zeros(3, 9, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(cbam(junk, longer)[:, :4], expected)


@pairwise(
    channels=[1, 8, 33],
    kernel=[1, 3, 7],
    gate=["sigmoid_of_sum", "sum_of_sigmoids"],
    axis=["time", "channels"],
    dtype=[torch.float32, torch.float64],
)
def test_over_one_step_it_is_the_general_formula(
    channels: int, kernel: int, gate: ChannelGate, axis: SpatialAxis, dtype: torch.dtype
) -> None:
    """The same step with and without padding has the same value and the same gradients."""
    torch.manual_seed(channels)
    cbam = CBAM1d(channels=channels, reduction=4, kernel=kernel, gate=gate, axis=axis).to(dtype)
    step, weight = torch.randn(5, 1, channels, dtype=dtype), torch.randn(5, 1, channels, dtype=dtype)
    padded_mask = torch.arange(3).expand(5, -1) < 1
    results = []
    for mask in (torch.ones(5, 1, dtype=torch.bool), padded_mask):
        cbam.zero_grad()
        x = step.clone().requires_grad_()
        longer = torch.cat([x, torch.zeros(5, mask.shape[1] - 1, channels, dtype=dtype)], dim=1)
        out = cbam(longer, mask)[:, :1]
        (out * weight).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad for p in cbam.parameters())])
    for short, general in zip(*results, strict=True):
        torch.testing.assert_close(short, general, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_reduction_larger_than_the_channels_leaves_one_unit() -> None:
    assert ChannelAttention(channels=8, reduction=16).mlp[0].out_features == 1

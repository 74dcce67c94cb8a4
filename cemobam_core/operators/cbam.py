"""1D-CBAM: channel attention, then spatial attention (Eqs. 3, 4; Woo et al., 2018, "CBAM", in one dimension)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.operators.batched import convolve
from cemobam_core.operators.pooling import masked_max, masked_mean

ChannelGate = Literal["sigmoid_of_sum", "sum_of_sigmoids"]
SpatialAxis = Literal["time", "channels"]


class ChannelAttention(nn.Module):
    r"""A gate per channel, computed from its average and its maximum over time (Eq. 3).

    .. math:: M_c(F) = \sigma(\mathrm{MLP}(\mathrm{AvgPool}(F)) + \mathrm{MLP}(\mathrm{MaxPool}(F)))

    Args:
        channels: d.
        reduction: The hidden layer of the shared MLP has ``channels // reduction`` units, but at least one.
        gate: ``sigmoid_of_sum`` is Eq. 3. ``sum_of_sigmoids`` adds the sigmoids of both poolings.

    Shapes:
        x (N, T, d), mask (N, T) → gate (N, 1, d), between 0 and 1 (and 2 for the sum of sigmoids).
    """

    def __init__(self, *, channels: int, reduction: int, gate: ChannelGate = "sigmoid_of_sum") -> None:
        super().__init__()
        self.gate = gate
        squeezed = max(1, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=False),
        )

    def forward(self, x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n 1 d"]:
        """Return the gate. For T = 1, average and maximum equal the step, so the MLP is evaluated only once."""
        if mask.shape[1] == 1:
            pooled = self.mlp(x)  # (N, 1, d)
            gate = torch.sigmoid(2 * pooled) if self.gate == "sigmoid_of_sum" else 2 * torch.sigmoid(pooled)
            return gate
        average, maximum = self.mlp(masked_mean(x, mask)), self.mlp(masked_max(x, mask))  # (N, d) each
        if self.gate == "sum_of_sigmoids":
            return (torch.sigmoid(average) + torch.sigmoid(maximum)).unsqueeze(-2)
        return torch.sigmoid(average + maximum).unsqueeze(-2)


class SpatialAttention(nn.Module):
    r"""A gate per step, computed from its average and its maximum over the channels (Eq. 4).

    .. math:: M_s(F) = \sigma(\mathrm{Conv1d}_k([\mathrm{AvgPool}(F); \mathrm{MaxPool}(F)]))

    With ``axis="channels"`` the axes are exchanged: there is a gate per channel, computed from its average and its
    maximum over time.

    Args:
        kernel: k, an odd number. The convolution is padded with zeros.
        axis: ``time`` is Eq. 4. The other choice is ``channels``.

    Shapes:
        x (N, T, d), mask (N, T) → gate (N, T, 1), or (N, 1, d) for ``channels``, between 0 and 1.
    """

    def __init__(self, *, kernel: int, axis: SpatialAxis = "time") -> None:
        super().__init__()
        self.axis = axis
        self.conv = nn.Conv1d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n t_or_1 d_or_1"]:
        """Return the gate."""
        if mask.shape[1] == 1:
            return torch.sigmoid(self._over_one_step(x))
        if self.axis == "channels":
            planes = torch.stack([masked_mean(x, mask), masked_max(x, mask)], dim=-2)  # (N, 2, d)
            along_channels: Tensor = torch.sigmoid(self.conv(planes))  # (N, 1, d)
            return along_channels
        planes = torch.stack([x.mean(dim=-1), x.amax(dim=-1)], dim=-2)  # (N, 2, T)
        # Padded steps become zeros, like the padding of the convolution, so longer padding changes nothing.
        planes = planes * mask.unsqueeze(-2)
        gate: Tensor = torch.sigmoid(self.conv(planes))  # (N, 1, T)
        return gate.transpose(-1, -2)

    def _over_one_step(self, x: Float[Tensor, "*r n 1 d"]) -> Float[Tensor, "*r n 1 d_or_1"]:
        """Compute the convolution for T = 1: both poolings equal the step, or only the middle tap counts."""
        kernel = self.conv.weight  # (1, 2, k)
        if self.axis == "channels":
            return convolve(x, kernel.sum(dim=-2, keepdim=True))
        average, maximum = kernel[..., kernel.shape[-1] // 2].unsqueeze(-1).unbind(-2)  # (1, 1) each
        return average.unsqueeze(-1) * x.mean(dim=-1, keepdim=True) + maximum.unsqueeze(-1) * x.amax(
            dim=-1, keepdim=True
        )


class CBAM1d(nn.Module):
    r"""Channel attention followed by spatial attention: F' = M_c(F) ⊗ F, F'' = M_s(F') ⊗ F'.

    Args:
        channels: d.
        reduction: See ``ChannelAttention``.
        kernel: See ``SpatialAttention``.
        gate: See ``ChannelAttention``.
        axis: See ``SpatialAttention``.

    Shapes:
        x (N, T, d), mask (N, T) → (N, T, d).
    """

    def __init__(
        self,
        *,
        channels: int,
        reduction: int,
        kernel: int,
        gate: ChannelGate = "sigmoid_of_sum",
        axis: SpatialAxis = "time",
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels=channels, reduction=reduction, gate=gate)
        self.spatial = SpatialAttention(kernel=kernel, axis=axis)

    def forward(self, x: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "*r n t d"]:
        """Return the gated features."""
        x = x * self.channel(x, mask)
        gated: Tensor = x * self.spatial(x, mask)
        return gated

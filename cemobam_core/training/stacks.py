"""Several models of one configuration as one: every weight has a trial axis, and every product is batched.

A trial's matrices are small for a GPU; R trials' together are not (Wang et al., 2021, "Horizontally Fused Training
Arrays", MLSys). :func:`stack` gives the modules of :mod:`.systems.cemobam` with their leaves exchanged for ones whose
weights are (R, ...): linear layers become batched products, batch norms keep statistics a trial, and dropout draws from
each trial's own generator, so that nothing a trial computes depends on its companions. The forward pass is
:func:`cemobam_core.fast.logits`, the same as for one model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.operators.graph_attention import GraphAttention
from cemobam_core.systems.cemobam import CemoBAM

Generators = Sequence[torch.Generator]


def stack(models: Sequence[CemoBAM], generators: Generators) -> CemoBAM:
    """One model of R: what it takes is shared, what it gives has a trial axis in front, (R, N, C).

    Args:
        models: of one configuration; their weights and statistics are copied.
        generators: of each, for its dropout, on the device where the stack will be.
    """
    stacked = copy.deepcopy(models[0])
    _exchange(stacked, models, generators, {})
    stacked.trials = len(models)
    return stacked.train(models[0].training)


def unstack(stacked: CemoBAM, trial: int) -> CemoBAM:
    """The model of one trial, a copy, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        model = CemoBAM(stacked.config)
    mine = {
        name: (ours[trial].reshape(of.shape) if of.ndim else ours)
        for (name, of), ours in zip(model.state_dict().items(), stacked.state_dict().values(), strict=True)
    }
    model.to(next(stacked.parameters())).load_state_dict(mine)  # its type, and where it is
    return model.eval()


def _exchange(
    module: nn.Module, sources: Sequence[nn.Module], generators: Generators, made: dict[nn.Module, nn.Module]
) -> None:
    """Exchange the leaves of ``module``, a copy of the first of ``sources``."""
    for name, child in module._modules.items():
        if child is None:
            continue
        of = [source._modules[name] for source in sources]
        leaf = next((leaf for kind, leaf in _LEAVES.items() if isinstance(child, kind)), None)
        if leaf is None:
            _exchange(child, of, generators, made)  # type: ignore[arg-type]
            if isinstance(child, GraphAttention):
                child.att_src = _together(of, "att_src", squeeze=True)
                child.att_dst = _together(of, "att_dst", squeeze=True)
                child.bias = _together(of, "bias", row=True)
            continue
        if child not in made:  # hidden layers may share one batch norm
            made[child] = leaf(of, generators)
        module._modules[name] = made[child]


def _together(modules: Iterable[Any], name: str, *, row: bool = False, squeeze: bool = False) -> nn.Parameter:
    """A parameter of all of them, (R, ...); as a row, (R, 1, ...), it is added to every utterance."""
    stacked = torch.stack([getattr(module, name).detach() for module in modules])
    if row:
        stacked = stacked.unsqueeze(1)
    return nn.Parameter(stacked.squeeze(1) if squeeze else stacked)


class _Linear(nn.Module):
    """R linear layers: (N, E) shared or (R, ..., E) → (R, ..., out)."""

    def __init__(self, layers: Sequence[Any], _: Generators) -> None:
        super().__init__()
        self.weight = _together(layers, "weight")  # (R, out, in)
        self.bias = None if layers[0].bias is None else _together(layers, "bias", row=True)  # (R, 1, out)

    def forward(self, x: Float[Tensor, "*r_n e"]) -> Float[Tensor, "r *n out"]:
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*r_n e"], weight: Float[Tensor, "r out e"], bias: Float[Tensor, "r 1 out"] | None
) -> Float[Tensor, "r *n out"]:
    """R linear layers, as one batched product."""
    if x.ndim == 2:
        x = x.expand(len(weight), -1, -1)
    rows, turned = x.flatten(1, -2), weight.transpose(1, 2)
    product = rows @ turned if bias is None else torch.baddbmm(bias, rows, turned)
    out: Tensor = product.unflatten(1, x.shape[1:-1])
    return out


class _BatchNorm(nn.BatchNorm1d):
    """R batch norms over the utterances: (R, N, d) → (R, N, d)."""

    def __init__(self, norms: Sequence[Any], _: Generators) -> None:
        first = norms[0]
        super().__init__(first.num_features, eps=first.eps, momentum=first.momentum)
        self.weight, self.bias = _together(norms, "weight", row=True), _together(norms, "bias", row=True)
        self.running_mean = _together(norms, "running_mean", row=True).detach()
        self.running_var = _together(norms, "running_var", row=True).detach()
        self.num_batches_tracked = first.num_batches_tracked.clone()

    def forward(self, input: Float[Tensor, "r n d"]) -> Float[Tensor, "r n d"]:
        x = input.float() if input.dtype == torch.bfloat16 else input
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.detach(), share)
                self.running_var.lerp_(var.detach() * (x.shape[1] / (x.shape[1] - 1)), share)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return torch.addcmul(self.bias - mean * scale, x, scale).to(input.dtype)


class _LayerNorm(nn.Module):
    """R layer norms: (R, ..., d) → (R, ..., d)."""

    def __init__(self, norms: Sequence[Any], _: Generators) -> None:
        super().__init__()
        self.shape, self.eps = norms[0].normalized_shape, norms[0].eps
        self.weight, self.bias = _together(norms, "weight"), _together(norms, "bias")  # (R, d)

    def forward(self, x: Float[Tensor, "r *n d"]) -> Float[Tensor, "r *n d"]:
        shape = (len(self.weight), *[1] * (x.ndim - 2), -1)
        normed = nn.functional.layer_norm(x, self.shape, eps=self.eps)
        return torch.addcmul(self.bias.view(shape), normed, self.weight.view(shape))


class _Convolution(nn.Module):
    """R convolutions: (R, N, 2, L) → (R, N, 1, L)."""

    def __init__(self, convolutions: Sequence[Any], _: Generators) -> None:
        super().__init__()
        self.weight = _together(convolutions, "weight")  # (R, 1, 2, k)

    def forward(self, x: Float[Tensor, "r n planes l"]) -> Float[Tensor, "r n 1 l"]:
        return convolve(x, self.weight)


def convolve(x: Float[Tensor, "r n planes l"], weight: Float[Tensor, "r 1 planes k"]) -> Float[Tensor, "r n 1 l"]:
    """R convolutions along the last axis, padded with zeros, as one in groups."""
    laid = x.transpose(0, 1).flatten(1, 2)  # (N, R * planes, L)
    out = nn.functional.conv1d(laid, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=len(weight))
    return out.transpose(0, 1).unsqueeze(2)


class _Dropout(nn.Module):
    """Dropout of (R, ...), each trial's from its own generator: what it would draw alone."""

    def __init__(self, dropouts: Sequence[Any], generators: Generators) -> None:
        super().__init__()
        self.p, self.generators = dropouts[0].p, tuple(generators)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return drop(x, self.p, self.generators) if self.training else x


def drop(x: Float[Tensor, "*shape"], p: float, generators: Generators) -> Float[Tensor, "*shape"]:
    """Dropout with probability ``p``, each trial's from its own generator."""
    if not p:
        return x
    kept = torch.empty_like(x, memory_format=torch.contiguous_format)
    for mine, generator in zip(kept, generators, strict=True):
        mine.bernoulli_(1 - p, generator=generator)
    return x * kept.div_(1 - p)


class Attention(nn.Module):
    """R multi-head attentions, called as :class:`torch.nn.MultiheadAttention` is: (R, N, T, d) → (R, N, T, d)."""

    def __init__(self, attentions: Sequence[Any], generators: Generators) -> None:
        super().__init__()
        first = attentions[0]
        self.num_heads, self.dropout, self.generators = first.num_heads, first.dropout, tuple(generators)
        self.in_proj_weight = _together(attentions, "in_proj_weight")  # (R, 3 d, d)
        self.in_proj_bias = _together(attentions, "in_proj_bias", row=True)  # (R, 1, 3 d)
        self.out_proj = _Linear([attention.out_proj for attention in attentions], generators)

    def forward(
        self,
        query: Float[Tensor, "r n tq d"],
        key: Float[Tensor, "r n tk d"],
        value: Float[Tensor, "r n tk d"],
        key_padding_mask: Bool[Tensor, "n tk"],
        need_weights: bool,
    ) -> tuple[Float[Tensor, "r n tq d"], None]:
        """The answers; the weights are not kept."""
        weights, biases = self.in_proj_weight.chunk(3, dim=1), self.in_proj_bias.chunk(3, dim=2)
        q, k, v = (
            linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)  # (R, N, H, T, d / H)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (R, N, H, T_q, T_k)
        scores = scores.masked_fill(key_padding_mask[:, None, None, :], -float("inf"))
        weight = scores.softmax(dim=-1)
        if self.training:
            weight = drop(weight, self.dropout, self.generators)
        return self.out_proj((weight @ v).transpose(-2, -3).flatten(-2)), None


_LEAVES: dict[type[nn.Module], Any] = {
    nn.MultiheadAttention: Attention,
    nn.Linear: _Linear,
    nn.BatchNorm1d: _BatchNorm,
    nn.LayerNorm: _LayerNorm,
    nn.Conv1d: _Convolution,
    nn.Dropout: _Dropout,
}
"""What stands for each leaf of the model; what is not here has no weights and draws nothing."""

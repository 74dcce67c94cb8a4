"""Several models of one configuration as one: every weight has a trial axis, and every product is batched.

A trial's matrices are small for a GPU; R trials' together are not (Wang et al., 2021, "Horizontally Fused Training
Arrays", MLSys). A :class:`Stack` is a model whose leaves are exchanged for ones whose weights are (R, ...): linear
layers become batched products, batch norms keep statistics a trial, and dropout draws from each trial's own generator,
so that nothing a trial computes depends on its companions.

Not every module can be stacked. :func:`why_alone` looks at a model's leaves, then compares a small stack with each
model alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.inputs import Inputs
from cemobam_core.operators.batched import Generators, convolve, drop, linear
from cemobam_core.operators.graph_attention import GraphAttention

_TRIALS = 2
"""Models of the small stack that is compared with each of them alone."""

_CLOSE = 1e-8
"""How far a number of a small stack in float64 may be from the model's alone, relative to the largest of its kind."""


class Stack(nn.Module):
    """R models as one. Its inputs are shared, except for the graph; its logits have a trial axis in front, (R, N, C).

    Args:
        models: of one configuration; their weights and statistics are copied.
        generators: one for each model's dropout, on the device where the stack will be.
    """

    def __init__(self, models: Sequence[nn.Module], generators: Generators) -> None:
        super().__init__()
        self.trials = len(models)
        whole = nn.ModuleDict({"model": copy.deepcopy(models[0])})
        _exchange(whole, [nn.ModuleDict({"model": model}) for model in models], generators, {})
        self.model = whole["model"]
        self.train(models[0].training)

    def forward(self, inputs: Inputs) -> Float[Tensor, "r n c"]:
        """Return the logits of every model."""
        logits: Tensor = self.model(inputs)
        return logits

    def unstack(self, trial: int, template: nn.Module) -> nn.Module:
        """Return the model of one trial, a copy, in evaluation mode.

        Args:
            trial: which one, from 0.
            template: a model of the same configuration; it is given the trial's weights.
        """
        stacked = self.model.state_dict()
        mine = {
            name: (stacked[name][trial].reshape(of.shape) if of.ndim else stacked[name])
            for name, of in template.state_dict().items()
        }
        template.to(next(self.parameters())).load_state_dict(mine)  # its type, and where it is
        return template.eval()


def why_alone(build: Callable[[], nn.Module], inputs: Inputs) -> str:
    """Return why models cannot be stacked, in words; an empty string if they can.

    Every module that has weights or draws random numbers must be one for which there is a batched form. What a model
    computes between its modules is found out by trying: of two models with different weights and graphs, a stack must
    give the logits and the gradients that each gives alone, in training and in evaluation mode, in float64.

    Args:
        build: returns a new model, its weights drawn from torch's random state.
        inputs: a few utterances, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [build() for _ in range(_TRIALS)]
        for name, module in models[0].named_modules():
            if why := _unknown(module):
                return f"{name or 'the model'} is a {type(module).__name__}, {why}"
        if _tied(models[0]):
            return "two of its modules share a weight"
        inputs = inputs.to("cpu", torch.float64)
        other = replace(inputs, edge_index=inputs.edge_index.flip(0))
        return _differs([model.double() for model in models], [inputs, other], template=build())


def _differs(models: Sequence[nn.Module], inputs: Sequence[Inputs], template: nn.Module) -> str:
    """Return how a stack of models differs from each of them alone, in words; an empty string if it does not."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(models))]
    state = torch.get_rng_state()
    try:
        stack = Stack(models, generators)
        together = _shown(stack, Inputs.together(inputs))
        again = stack.unstack(0, template)(inputs[0])
        untouched = torch.equal(torch.get_rng_state(), state)
        alone = []
        for seed, (model, of) in enumerate(zip(models, inputs, strict=True)):
            torch.manual_seed(seed)
            alone.append(_shown(model, of))
    except Exception as error:  # whatever a model does to a tensor with one axis more, or to one of float64
        said = str(error).partition("\n")[0][:100]
        return f"its forward is written for one model ({type(error).__name__}: {said})"
    if not untouched:
        return "its forward draws random numbers itself; use nn.Dropout"
    for trial, expected in enumerate(alone):
        if what := _first_difference(together, expected, trial):
            return f"its forward is written for one model: a stack gives other {what}"
    return "" if _close(again, alone[0][0][-1], again) else "it keeps numbers that are not in its state"


_Shown = tuple[list[Tensor], dict[str, Tensor]]
"""Logits of several passes, and the gradient of each weight."""


def _first_difference(together: _Shown, alone: _Shown, trial: int) -> str:
    """Return what a trial of a stack computes otherwise than alone; an empty string if it is all the same."""
    for ours, theirs in zip(together[0], alone[0], strict=True):
        if ours.shape != (_TRIALS, *theirs.shape) or not _close(ours[trial], theirs, theirs):
            return "logits"
    if alone[1].keys() != together[1].keys():
        return "weights a gradient"
    largest = max((gradient.abs().max() for gradient in alone[1].values()), default=torch.zeros(()))
    for name, theirs in alone[1].items():
        if not _close(together[1][name][trial].reshape(theirs.shape), theirs, largest):
            return f"gradients of {name}"
    return ""


def _shown(model: nn.Module, inputs: Inputs) -> _Shown:
    """Return a model's logits in two passes in training mode and one in evaluation, and the gradient of each weight."""
    logits = []
    for _ in range(2):  # the second one shows what the first has left behind
        logits.append(model.train()(inputs))
    (logits[-1] + torch.linspace(-1, 1, logits[-1].shape[-1])).square().sum().backward()
    with torch.no_grad():
        logits.append(model.eval()(inputs))
    of_stack = model.model if isinstance(model, Stack) else model
    gradients = {name: weight.grad for name, weight in of_stack.named_parameters() if weight.grad is not None}
    return [one.detach() for one in logits], gradients


def _close(ours: Tensor, theirs: Tensor, scale: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= _CLOSE * scale.abs().max())


def _unknown(module: nn.Module) -> str:
    """Return why a module has no place in a stack, in words; an empty string if it has one."""
    kind, own = type(module), {*module._parameters, *module._buffers}
    if kind in _LEAVES:
        if any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)):
            return "which has hooks"
        if any(not weight.requires_grad for weight in module.parameters(recurse=False)):
            return "which has a frozen weight"
        return "" if _plain(module, own) else "with options that have no batched form"
    if own:
        return "whose weights or buffers have no batched form"
    return "" if kind in _WEIGHTLESS or len(module._modules) else "which has no batched form"


def _plain(module: Any, own: set[str]) -> bool:
    """Return whether a known module has the options for which its stand-in is written."""
    match module:
        case nn.MultiheadAttention():
            same = module.batch_first and module._qkv_same_embed_dim and not module.add_zero_attn
            return same and module.in_proj_bias is not None and module.bias_k is None
        case nn.Linear():
            return own == {"weight", "bias"}
        case nn.BatchNorm1d():
            return bool(module.affine and module.track_running_stats)
        case nn.LayerNorm():
            return module.bias is not None and len(module.normalized_shape) == 1
        case nn.Conv1d():
            (kernel,), whole = module.kernel_size, (module.stride, module.dilation, module.groups) == ((1,), (1,), 1)
            padded = kernel % 2 == 1 and module.padding == (kernel // 2,) and module.padding_mode == "zeros"
            return whole and padded and module.bias is None and module.out_channels == 1
        case _:
            return True


def _tied(model: nn.Module) -> bool:
    """Return whether two different modules hold the same weight."""
    owners: dict[int, nn.Module] = {}
    return any(
        owners.setdefault(id(weight), module) is not module
        for module in model.modules()
        for weight in module.parameters(recurse=False)
    )


def _exchange(
    module: nn.Module, sources: Sequence[nn.Module], generators: Generators, made: dict[nn.Module, nn.Module]
) -> None:
    """Exchange the leaves of ``module``, a copy of the first of ``sources``."""
    for name, child in module._modules.items():
        if child is None:
            continue
        of: Any = [source._modules[name] for source in sources]
        if (leaf := _LEAVES.get(type(child))) is None:
            _exchange(child, of, generators, made)
        elif leaf is GraphAttention:
            _exchange(child, of, generators, made)
            child.att_src = _together(of, "att_src", squeeze=True)
            child.att_dst = _together(of, "att_dst", squeeze=True)
            child.bias = _together(of, "bias", row=True)
        else:
            if child not in made:  # hidden layers may share one batch norm
                made[child] = leaf(of, generators)
            module._modules[name] = made[child]


def _together(modules: Iterable[Any], name: str, *, row: bool = False, squeeze: bool = False) -> nn.Parameter:
    """Return a parameter of all of them, (R, ...); as a row, (R, 1, ...), it is added to every utterance."""
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
                # As a tensor it can be part of a recorded epoch.
                share = self.num_batches_tracked.to(mean.dtype).reciprocal() if self.momentum is None else self.momentum
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


class _Dropout(nn.Module):
    """Dropout of (R, ...), each trial's from its own generator: what it would draw alone."""

    def __init__(self, dropouts: Sequence[Any], generators: Generators) -> None:
        super().__init__()
        self.p, self.generators = dropouts[0].p, tuple(generators)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return drop(x, self.p, self.generators) if self.training else x


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
        key_padding_mask: Bool[Tensor, "n tk"] | None = None,
        need_weights: bool = True,
    ) -> tuple[Float[Tensor, "r n tq d"], None]:
        """Return the answers; the attention weights are not kept, even if they are asked for."""
        weights, biases = self.in_proj_weight.chunk(3, dim=1), self.in_proj_bias.chunk(3, dim=2)
        q, k, v = (
            linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)  # (R, N, H, T, d / H)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (R, N, H, T_q, T_k)
        if key_padding_mask is not None:
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
    nn.modules.linear.NonDynamicallyQuantizableLinear: _Linear,  # within an attention
    GraphAttention: GraphAttention,
}
"""What stands for each leaf; a graph attention stays what it is, with stacked weights."""

_WEIGHTLESS = {
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.ReLU6),
    *(nn.Softmax, nn.LogSoftmax, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict),
}
"""Modules without weights that draw nothing, or only hold others."""

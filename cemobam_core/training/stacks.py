"""Several models of one configuration as one model: every weight has a trial axis, and every product is batched.

The matrices of one trial are small for a GPU. Those of R trials together are not (Wang et al., 2021, "Horizontally
Fused Training Arrays", MLSys). A ``Stack`` is a model whose leaf modules are replaced by modules with weights (R, ...):
linear layers become batched products, batch norms keep statistics per trial, and dropout draws from the generator of
each trial, so the numbers of a trial do not depend on the other trials.

Not every module can be stacked. ``why_alone`` inspects the leaf modules of a model, then compares a small stack with
each single model.
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

_MODELS = 2
"""Number of models in the small stack that is compared with single models."""

_TOLERANCE = 1e-8
"""Largest difference between a small stack in float64 and a single model, relative to the largest number compared."""


class Stack(nn.Module):
    """R models as one. All share the inputs except for the graph. The logits have a trial axis in front, (R, N, C).

    Args:
        models: Models of one configuration. Their weights and statistics are copied.
        generators: Generator of each model's dropout, on the device where the stack will be.
    """

    def __init__(self, models: Sequence[nn.Module], generators: Generators) -> None:
        super().__init__()
        self.trials = len(models)
        whole = nn.ModuleDict({"model": copy.deepcopy(models[0])})
        _replace_leaves(whole, [nn.ModuleDict({"model": model}) for model in models], generators, {})
        self.model = whole["model"]
        self.train(models[0].training)

    def forward(self, inputs: Inputs) -> Float[Tensor, "r n c"]:
        """Return the logits of every model, (R, N, C)."""
        logits: Tensor = self.model(inputs)
        return logits

    def unstack(self, trial: int, template: nn.Module) -> nn.Module:
        """Return a copy of the model of one trial, in evaluation mode.

        Args:
            trial: Index of the trial, from 0.
            template: Model of the same configuration. Its copy receives the weights of the trial.
        """
        stacked = self.model.state_dict()
        own = {
            name: (stacked[name][trial].reshape(tensor.shape) if tensor.ndim else stacked[name])
            for name, tensor in template.state_dict().items()
        }
        own_model = copy.deepcopy(template).to(next(self.parameters()))  # the type and device of the stack
        own_model.load_state_dict(own)
        return own_model.eval()


def why_alone(build: Callable[[], nn.Module], inputs: Inputs) -> str:
    """Return the reason why models cannot be stacked, or an empty string if they can.

    Every module that has weights or draws random numbers needs a batched form. The computation between the modules is
    tested: for two models with different weights and graphs, a stack must give the same logits and gradients as each
    single model, in training and in evaluation mode, in float64.

    Args:
        build: Function that returns a new model, with weights drawn from torch's random state.
        inputs: Inputs of a few utterances, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [build() for _ in range(_MODELS)]
        for name, module in models[0].named_modules():
            if why := _why_unsupported(module):
                return f"{name or 'the model'} is a {type(module).__name__}, {why}"
        if _tied(models[0]):
            return "two of its modules share a weight"
        inputs = inputs.to("cpu", torch.float64)
        other = replace(inputs, edge_index=inputs.edge_index.flip(0))
        return _difference([model.double() for model in models], [inputs, other], template=build())


def _difference(models: Sequence[nn.Module], inputs: Sequence[Inputs], template: nn.Module) -> str:
    """Describe how a stack of models differs from the single models. Return an empty string if it does not."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(models))]
    state = torch.get_rng_state()
    try:
        stack = Stack(models, generators)
        together = _observe(stack, Inputs.together(inputs))
        again = stack.unstack(0, template)(inputs[0])
        untouched = torch.equal(torch.get_rng_state(), state)
        alone = []
        for seed, (model, own_inputs) in enumerate(zip(models, inputs, strict=True)):
            torch.manual_seed(seed)
            alone.append(_observe(model, own_inputs))
    except Exception as error:  # a model may fail in any way on a tensor with one more axis, or on one of float64
        said = str(error).partition("\n")[0][:100]
        return f"its forward is written for one model ({type(error).__name__}: {said})"
    if not untouched:
        return "its forward draws random numbers itself; use nn.Dropout"
    for trial, expected in enumerate(alone):
        if why := _first_difference(together, expected, trial):
            return f"its forward is written for one model: in a stack, {why}"
    return "" if _close(again, alone[0][0][-1], again) else "it keeps numbers that are not in its state_dict"


_Observation = tuple[list[Tensor], dict[str, Tensor]]
"""The logits of several forward passes, and the gradient of each weight."""


def _first_difference(together: _Observation, alone: _Observation, trial: int) -> str:
    """Describe the first difference between a trial of a stack and its single model, or return an empty string."""
    for ours, theirs in zip(together[0], alone[0], strict=True):
        if ours.shape != (_MODELS, *theirs.shape) or not _close(ours[trial], theirs, theirs):
            return "the logits differ"
    if alone[1].keys() != together[1].keys():
        return "different weights get a gradient"
    largest = max((gradient.abs().max() for gradient in alone[1].values()), default=torch.zeros(()))
    for name, theirs in alone[1].items():
        if not _close(together[1][name][trial].reshape(theirs.shape), theirs, largest):
            return f"the gradient of {name} differs"
    return ""


def _observe(model: nn.Module, inputs: Inputs) -> _Observation:
    """Return the logits of two passes in training mode and one in evaluation mode, and the gradient of each weight."""
    logits = []
    for _ in range(2):  # the second pass shows side effects of the first one
        logits.append(model.train()(inputs))
    (logits[-1] + torch.linspace(-1, 1, logits[-1].shape[-1])).square().sum().backward()
    with torch.no_grad():
        logits.append(model.eval()(inputs))
    of_stack = model.model if isinstance(model, Stack) else model
    gradients = {name: weight.grad for name, weight in of_stack.named_parameters() if weight.grad is not None}
    return [one.detach() for one in logits], gradients


def _close(ours: Tensor, theirs: Tensor, scale: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= _TOLERANCE * scale.abs().max())


def _why_unsupported(module: nn.Module) -> str:
    """Return the reason why a module cannot be part of a stack, or an empty string if it can."""
    kind, own = type(module), {*module._parameters, *module._buffers}
    if kind in _LEAVES:
        if any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)):
            return "which has hooks"
        if any(not weight.requires_grad for weight in module.parameters(recurse=False)):
            return "which has a frozen weight"
        return "" if _has_supported_options(module, own) else "with options that have no batched form"
    if own:
        return "whose weights or buffers have no batched form"
    return "" if kind in _WEIGHTLESS or len(module._modules) else "which has no batched form"


def _has_supported_options(module: Any, own: set[str]) -> bool:
    """Return whether the batched form of a known module supports the options of the module."""
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


def _replace_leaves(
    module: nn.Module, sources: Sequence[nn.Module], generators: Generators, made: dict[nn.Module, nn.Module]
) -> None:
    """Replace the leaves of ``module``, which is a copy of the first of ``sources``, by their batched forms."""
    for name, child in module._modules.items():
        if child is None:
            continue
        originals: Any = [source._modules[name] for source in sources]
        if (leaf := _LEAVES.get(type(child))) is None:
            _replace_leaves(child, originals, generators, made)
        elif leaf is GraphAttention:
            _replace_leaves(child, originals, generators, made)
            child.att_src = _stacked(originals, "att_src", squeeze=True)
            child.att_dst = _stacked(originals, "att_dst", squeeze=True)
            child.bias = _stacked(originals, "bias", row=True)
        else:
            if child not in made:  # hidden layers may share one batch norm
                made[child] = leaf(originals, generators)
            module._modules[name] = made[child]


def _stacked(modules: Iterable[Any], name: str, *, row: bool = False, squeeze: bool = False) -> nn.Parameter:
    """Stack a parameter of all modules as (R, ...), or with ``row`` as (R, 1, ...) to broadcast over utterances."""
    stacked = torch.stack([getattr(module, name).detach() for module in modules])
    if row:
        stacked = stacked.unsqueeze(1)
    return nn.Parameter(stacked.squeeze(1) if squeeze else stacked)


class _Linear(nn.Module):
    """R linear layers: (N, E), shared, or (R, ..., E) → (R, ..., out)."""

    def __init__(self, layers: Sequence[Any], _: Generators) -> None:
        super().__init__()
        self.weight = _stacked(layers, "weight")  # (R, out, in)
        self.bias = None if layers[0].bias is None else _stacked(layers, "bias", row=True)  # (R, 1, out)

    def forward(self, x: Float[Tensor, "*r_n e"]) -> Float[Tensor, "r *n out"]:
        return linear(x, self.weight, self.bias)


class _BatchNorm(nn.BatchNorm1d):
    """R batch norms over the utterances: (R, N, d) → (R, N, d)."""

    def __init__(self, norms: Sequence[Any], _: Generators) -> None:
        first = norms[0]
        super().__init__(first.num_features, eps=first.eps, momentum=first.momentum)
        self.weight, self.bias = _stacked(norms, "weight", row=True), _stacked(norms, "bias", row=True)
        self.running_mean = _stacked(norms, "running_mean", row=True).detach()
        self.running_var = _stacked(norms, "running_var", row=True).detach()
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
                # A tensor is needed here because a recorded epoch must read the current value.
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
        self.weight, self.bias = _stacked(norms, "weight"), _stacked(norms, "bias")  # (R, d)

    def forward(self, x: Float[Tensor, "r *n d"]) -> Float[Tensor, "r *n d"]:
        shape = (len(self.weight), *[1] * (x.ndim - 2), -1)
        normed = nn.functional.layer_norm(x, self.shape, eps=self.eps)
        return torch.addcmul(self.bias.view(shape), normed, self.weight.view(shape))


class _Convolution(nn.Module):
    """R convolutions: (R, N, 2, L) → (R, N, 1, L)."""

    def __init__(self, convolutions: Sequence[Any], _: Generators) -> None:
        super().__init__()
        self.weight = _stacked(convolutions, "weight")  # (R, 1, 2, k)

    def forward(self, x: Float[Tensor, "r n planes l"]) -> Float[Tensor, "r n 1 l"]:
        return convolve(x, self.weight)


class _Dropout(nn.Module):
    """Dropout of (R, ...). Each trial draws from its own generator the same numbers as a single model."""

    def __init__(self, dropouts: Sequence[Any], generators: Generators) -> None:
        super().__init__()
        self.p, self.generators = dropouts[0].p, tuple(generators)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return drop(x, self.p, self.generators) if self.training else x


class Attention(nn.Module):
    """R multi-head attentions with the interface of ``torch.nn.MultiheadAttention``: (R, N, T, d) → (R, N, T, d)."""

    def __init__(self, attentions: Sequence[Any], generators: Generators) -> None:
        super().__init__()
        first = attentions[0]
        self.num_heads, self.dropout, self.generators = first.num_heads, first.dropout, tuple(generators)
        self.in_proj_weight = _stacked(attentions, "in_proj_weight")  # (R, 3 d, d)
        self.in_proj_bias = _stacked(attentions, "in_proj_bias", row=True)  # (R, 1, 3 d)
        self.out_proj = _Linear([attention.out_proj for attention in attentions], generators)

    def forward(
        self,
        query: Float[Tensor, "r n tq d"],
        key: Float[Tensor, "r n tk d"],
        value: Float[Tensor, "r n tk d"],
        key_padding_mask: Bool[Tensor, "n tk"] | None = None,
        need_weights: bool = True,
    ) -> tuple[Float[Tensor, "r n tq d"], None]:
        """Return the outputs. Attention weights are never returned, even if ``need_weights`` is true."""
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
    nn.modules.linear.NonDynamicallyQuantizableLinear: _Linear,  # the output projection of an attention
    GraphAttention: GraphAttention,
}
"""Batched form of each leaf module. A ``GraphAttention`` is kept and receives stacked weights."""

_WEIGHTLESS = {
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.ReLU6),
    *(nn.Softmax, nn.LogSoftmax, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict),
}
"""Modules that have no weights and draw no random numbers, or only contain other modules."""

"""The fast forward pass: the model of :mod:`.systems.cemobam`, with the same weights, arranged to cost less.

:class:`~.systems.cemobam.CemoBAM` called as a module is the reference: plain, module by module, and what the tests
hold this one against. Training and evaluation come here, by :func:`logits`. What differs:

- CH-GAT's gathering is three products with a sparse matrix (:mod:`cemobam_core.operators.sparse_attention`);
- attention over a single key is that key's value, so utterance-level features need no query and no key projection.
  Their weights have a gradient of zero, as in the reference;
- over a single step average and maximum are the step itself, so 1D-CBAM evaluates its MLP once and its convolution's
  middle tap alone;
- what a batch settles once (which steps are valid, the sparse matrix's entries) is :class:`Inputs`, made once.

Dropout draws the same numbers in the same order as the reference. Of a stack of models
(:mod:`.training.stacks`) every tensor but the features has a trial axis in front, and the graphs of all trials are
one graph that falls into as many parts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from cemobam_core.errors import InputError
from cemobam_core.operators.cbam import CBAM1d
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.graph_attention import CHGAT, GraphAttention
from cemobam_core.operators.pooling import masked_mean
from cemobam_core.operators.sparse_attention import Adjacency, attend
from cemobam_core.systems.cemobam import XCBAM, CemoBAM, Projection, fuse
from cemobam_core.training import stacks as stacked

_log = logging.getLogger("cemobam_core")


@dataclass(frozen=True, eq=False)
class Steps:
    """One modality of a batch.

    Attributes:
        valid: (valid steps, E), utterance by utterance.
        mask: (N, T), true where a step is valid.
        places: of the valid steps among the N · T; None: every step is valid.
    """

    valid: Float[Tensor, "v e"]
    mask: Bool[Tensor, "n t"]
    places: Int64[Tensor, " v"] | None = None

    @classmethod
    def from_features(cls, x: Float[Tensor, "n *t e"], mask: Bool[Tensor, "n t"] | None) -> Steps:
        """From (N, E) or (N, T, E) and its mask, if it has one."""
        if x.ndim == 2:
            x = x.unsqueeze(1)
        if mask is None or bool(mask.all()):
            return cls(x.flatten(0, 1), torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
        return cls(x[mask], mask, mask.flatten().nonzero().squeeze(1))

    @property
    def single(self) -> bool:
        """Whether every utterance is one step."""
        return self.places is None and self.mask.shape[1] == 1


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch as the fast pass takes it, whatever the model; made once.

    Attributes:
        audio: the audio steps.
        text: the text steps.
        edge_index: (2, E), the graph; of several trials, trial r's node i being r · N + i.
        trials: how many.
    """

    audio: Steps
    text: Steps
    edge_index: Int64[Tensor, "2 e"]
    trials: int = 1
    _adjacency: dict[int, Adjacency] = field(default_factory=dict)

    @classmethod
    def from_features(
        cls,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n *tt et"],
        edge_index: Int64[Tensor, "2 e"],
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
        *,
        trials: int = 1,
    ) -> Inputs:
        """What :meth:`CemoBAM.forward` takes.

        Raises:
            InputError: an edge to an utterance that is not there.
        """
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < trials * len(audio):
            raise InputError(
                f"edge_index names utterances {int(edge_index.min())} to {int(edge_index.max())}, but there are "
                f"{len(audio)}: make the graph from the same features"
            )
        return cls(Steps.from_features(audio, audio_mask), Steps.from_features(text, text_mask), edge_index, trials)

    def adjacency(self, heads: int) -> Adjacency:
        """The sparse matrix's entries for so many heads."""
        if heads not in self._adjacency:
            self._adjacency[heads] = Adjacency.from_edges(self.edge_index, self.trials * len(self.audio.mask), heads)
        return self._adjacency[heads]


def applies(model: CemoBAM, device: torch.device) -> bool:
    """Whether :func:`logits` can stand for ``model``; where it cannot, the log says why, once."""
    if type(model) is not CemoBAM:
        _tell_once(f"{type(model).__name__} runs as it is: the fast pass knows CemoBAM alone")
        return False
    if device.type != "cpu" and model.trials is None:
        _tell_once(f"a model runs as torch-geometric has it: alone the fast pass is for the CPU, this is {device.type}")
        return False
    return True


def stacks(device: torch.device | str, trials: int) -> bool:
    """Whether so many models are trained there as a stack: on a GPU always, if there is Triton for it."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and find_spec("triton") is None:
        _tell_once("models are trained one by one as torch-geometric has them: the fast pass on a GPU needs Triton")
        return False
    return on_gpu or trials > 1


@cache
def _tell_once(reason: str) -> None:
    _log.warning(reason)


def logits(model: CemoBAM, inputs: Inputs) -> Float[Tensor, "*r n c"]:
    """Class logits (N, C), in the mode the model is in; those of ``model(...)`` but for rounding.

    Of a stack of R models (R, N, C), each with its own graph.

    Raises:
        InputError: embeddings whose size is not the configuration's.
    """
    model.check_sizes(inputs.audio.valid, inputs.text.valid)
    f_audio, f_text = _projections(model, inputs)
    branches = []
    if model.chgat is not None:
        nodes = _gather(model.chgat, _nodes(f_audio, f_text, inputs), inputs)  # (N, heads * d)
        last = model.chgat.last
        branches.append(_attend(last, nodes, inputs).mean(dim=-2) + last.bias)  # (N, d)
    if model.xcbam is not None:
        branches.append(_cross(model.xcbam, f_audio, f_text, inputs))  # (N, d)
    out: Tensor = model.classifier(torch.cat(branches, dim=-1))
    return out


def normalize(model: CemoBAM, inputs: Inputs) -> None:
    """As much of the pass as the model's batch norms see: for their statistics."""
    f_audio, f_text = _projections(model, inputs)
    if model.chgat is not None:
        _gather(model.chgat, _nodes(f_audio, f_text, inputs), inputs)


def _projections(model: CemoBAM, inputs: Inputs) -> tuple[Float[Tensor, "*r n ta d"], Float[Tensor, "*r n tt d"]]:
    return _project(model.audio_projection, inputs.audio), _project(model.text_projection, inputs.text)


def _project(projection: Projection, steps: Steps) -> Float[Tensor, "*r n t d"]:
    projected: Tensor = projection.layers(steps.valid)  # (valid steps, d)
    if steps.places is not None:
        # By their places: to find them in the mask, a GPU would have to be waited for.
        padded = projected.new_zeros(*projected.shape[:-2], steps.mask.numel(), projected.shape[-1])
        projected = padded.index_copy(-2, steps.places, projected)
    steps_of_each: Tensor = projected.unflatten(-2, steps.mask.shape)
    return steps_of_each


def _nodes(
    audio: Float[Tensor, "*r n ta d"], text: Float[Tensor, "*r n tt d"], inputs: Inputs
) -> Float[Tensor, "*r n width"]:
    """[text ‖ audio], one node an utterance (Eq. 1)."""
    return torch.cat([_pool(text, inputs.text), _pool(audio, inputs.audio)], dim=-1)


def _pool(x: Float[Tensor, "*r n t d"], steps: Steps) -> Float[Tensor, "*r n d"]:
    return x[..., 0, :] if steps.single else masked_mean(x, steps.mask)


def _gather(chgat: CHGAT, nodes: Float[Tensor, "*r n in_dim"], inputs: Inputs) -> Float[Tensor, "*r n width"]:
    """:class:`CHGAT`'s hidden layers."""
    for i, (layer, norm, drop) in enumerate(zip(chgat.hidden, chgat.norms, chgat.dropouts, strict=True)):
        assert isinstance(layer, GraphAttention)
        gathered = drop(leaky_relu(norm(_attend(layer, nodes, inputs).flatten(-2) + layer.bias)))  # (N, heads * d)
        nodes = gathered + nodes if i else gathered
    return nodes


def _attend(
    layer: GraphAttention, nodes: Float[Tensor, "*r n in_dim"], inputs: Inputs
) -> Float[Tensor, "*r n heads d"]:
    h = layer.lin(nodes).unflatten(-1, (layer.heads, -1))
    gathered = attend(
        h.flatten(0, -3), layer.att_src, layer.att_dst, inputs.adjacency(layer.heads), layer.negative_slope
    )
    return gathered.view(h.shape)


def _cross(
    xcbam: XCBAM, audio: Float[Tensor, "*r n ta d"], text: Float[Tensor, "*r n tt d"], inputs: Inputs
) -> Float[Tensor, "*r n d"]:
    """:class:`XCBAM`."""
    a_to_t = _informed(xcbam.audio_to_text, audio, text, inputs.text)
    a_to_t = _gated(xcbam.audio_cbam, a_to_t, inputs.audio)  # (N, T_a, d)
    t_to_a = _informed(xcbam.text_to_audio, text, audio, inputs.audio)
    t_to_a = _gated(xcbam.text_cbam, t_to_a, inputs.text)  # (N, T_t, d)
    streams = torch.cat([a_to_t, t_to_a], dim=-2)  # (N, T_a + T_t, d)
    return fuse(streams, torch.cat([inputs.audio.mask, inputs.text.mask], dim=1), xcbam.fusion)


def _informed(
    module: CrossModalAttention, query: Float[Tensor, "*r n tq d"], key: Float[Tensor, "*r n tk d"], key_steps: Steps
) -> Float[Tensor, "*r n tq d"]:
    """:class:`CrossModalAttention`; over a single key the softmax is 1, whatever is asked."""
    if not key_steps.single:
        informed: Tensor = module(query, key, key_steps.mask)
        return informed
    attention, d = module.attention, query.shape[-1]
    w_value, b_value = attention.in_proj_weight[..., 2 * d :, :], attention.in_proj_bias[..., 2 * d :]
    value = _linear(key, w_value, b_value)  # (N, 1, d)
    if attention.dropout and module.training:
        weight = value.new_ones(*value.shape[:-2], attention.num_heads, query.shape[-2], 1)
        weight = _drop(weight, attention)
        value = value.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3)  # (N, H, 1, d / H)
        value = (weight * value).transpose(-2, -3).flatten(-2)  # (N, T_q, d)
    answer = attention.out_proj(value)  # (N, 1 or T_q, d)
    out: Tensor = module.dropout(module.norm(query + module.linear(answer)))
    return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias) if weight.ndim == 2 else stacked.linear(x, weight, bias)


def _drop(weight: Tensor, attention: nn.MultiheadAttention | stacked.Attention) -> Tensor:
    if isinstance(attention, stacked.Attention):
        return stacked.drop(weight, attention.dropout, attention.generators)
    return dropout(weight, attention.dropout)


def _gated(cbam: CBAM1d, x: Float[Tensor, "*r n t d"], steps: Steps) -> Float[Tensor, "*r n t d"]:
    """:class:`CBAM1d`; over a single step both poolings are that step."""
    if not steps.single:
        gated: Tensor = cbam(x, steps.mask)
        return gated
    pooled = cbam.channel.mlp(x)  # (N, 1, d)
    x = x * (torch.sigmoid(2 * pooled) if cbam.channel.gate == "sigmoid_of_sum" else 2 * torch.sigmoid(pooled))
    kernel = cbam.spatial.conv.weight  # (1, 2, k)
    if cbam.spatial.axis == "channels":
        return x * torch.sigmoid(_convolve(x, kernel.sum(dim=-2, keepdim=True)))
    average, maximum = kernel[..., kernel.shape[-1] // 2].unsqueeze(-1).unbind(-2)  # (1, 1) each
    gate = average.unsqueeze(-1) * x.mean(dim=-1, keepdim=True) + maximum.unsqueeze(-1) * x.amax(dim=-1, keepdim=True)
    return x * torch.sigmoid(gate)  # the gate is (N, 1, 1)


def _convolve(x: Float[Tensor, "*r n 1 d"], kernel: Float[Tensor, "*r 1 1 k"]) -> Float[Tensor, "*r n 1 d"]:
    if kernel.ndim == 3:
        return torch.conv1d(x, kernel, padding=kernel.shape[-1] // 2)
    return stacked.convolve(x, kernel)

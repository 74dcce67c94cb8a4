"""The fast forward pass: the model of :mod:`cemobam_core.model`, with the same weights, arranged to cost less.

:class:`~cemobam_core.model.CemoBAM` called as a module is the reference: plain, module by module, and what the tests
hold this one against. Training and evaluation come here, by :func:`logits`. What differs:

- CH-GAT's gathering is three products with a sparse matrix (:mod:`cemobam_core.sparse_attention`);
- attention over a single key is that key's value, so utterance-level features need no query and no key projection.
  Their weights have a gradient of zero, as in the reference;
- over a single step average and maximum are the step itself, so 1D-CBAM evaluates its MLP once and its convolution's
  middle tap alone;
- what a batch settles once (which steps are valid, the sparse matrix's entries) is :class:`Inputs`, made once.

Dropout draws the same numbers in the same order as the reference.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import dropout, leaky_relu, linear
from torch_geometric.nn import GATConv

from cemobam_core.cbam import CBAM1d
from cemobam_core.cross_modal import CrossModalAttention
from cemobam_core.errors import InputError
from cemobam_core.gat import CHGAT
from cemobam_core.model import XCBAM, CemoBAM, Projection, fuse
from cemobam_core.pooling import masked_mean
from cemobam_core.sparse_attention import Adjacency, attend

_log = logging.getLogger("cemobam_core")


@dataclass(frozen=True, eq=False)
class Steps:
    """One modality of a batch.

    Attributes:
        valid: (valid steps, E), utterance by utterance.
        mask: (N, T), true where a step is valid.
        complete: whether all are.
    """

    valid: Float[Tensor, "v e"]
    mask: Bool[Tensor, "n t"]
    complete: bool

    @classmethod
    def from_features(cls, x: Float[Tensor, "n *t e"], mask: Bool[Tensor, "n t"] | None) -> Steps:
        """From (N, E) or (N, T, E) and its mask, if it has one."""
        if x.ndim == 2:
            x = x.unsqueeze(1)
        if mask is None or bool(mask.all()):
            return cls(x.flatten(0, 1), torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), True)
        return cls(x[mask], mask, False)

    @property
    def single(self) -> bool:
        """Whether every utterance is one step."""
        return self.complete and self.mask.shape[1] == 1


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch as the fast pass takes it, whatever the model; made once.

    Attributes:
        audio: the audio steps.
        text: the text steps.
        edge_index: (2, E), the graph.
    """

    audio: Steps
    text: Steps
    edge_index: Int64[Tensor, "2 e"]
    _adjacency: dict[int, Adjacency] = field(default_factory=dict)

    @classmethod
    def from_features(
        cls,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n *tt et"],
        edge_index: Int64[Tensor, "2 e"],
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
    ) -> Inputs:
        """What :meth:`CemoBAM.forward` takes.

        Raises:
            InputError: an edge to an utterance that is not there.
        """
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < len(audio):
            raise InputError(
                f"edge_index names utterances {int(edge_index.min())} to {int(edge_index.max())}, but there are "
                f"{len(audio)}: make the graph from the same features"
            )
        return cls(Steps.from_features(audio, audio_mask), Steps.from_features(text, text_mask), edge_index)

    def adjacency(self, heads: int) -> Adjacency:
        """The sparse matrix's entries for so many heads."""
        if heads not in self._adjacency:
            self._adjacency[heads] = Adjacency.from_edges(self.edge_index, len(self.audio.mask), heads)
        return self._adjacency[heads]


def applies(model: CemoBAM, device: torch.device) -> bool:
    """Whether :func:`logits` can stand for ``model``; where it cannot, the log says why."""
    if type(model) is not CemoBAM:
        _log.info("%s runs as it is: the fast pass knows CemoBAM alone", type(model).__name__)
        return False
    if device.type != "cpu":
        _log.info("the model runs as torch-geometric has it: the fast pass is for the CPU, this is %s", device)
        return False
    return True


def logits(model: CemoBAM, inputs: Inputs) -> Float[Tensor, "n c"]:
    """Class logits (N, C), in the mode the model is in; those of ``model(...)`` but for rounding.

    Raises:
        InputError: embeddings whose size is not the configuration's.
    """
    model.check_sizes(inputs.audio.valid, inputs.text.valid)
    f_audio = _project(model.audio_projection, inputs.audio)  # (N, T_a, d)
    f_text = _project(model.text_projection, inputs.text)  # (N, T_t, d)
    branches = []
    if model.chgat is not None:
        nodes = torch.cat([_pool(f_text, inputs.text), _pool(f_audio, inputs.audio)], dim=-1)  # (N, 2d), Eq. 1
        branches.append(_gather(model.chgat, nodes, inputs))  # (N, d)
    if model.xcbam is not None:
        branches.append(_cross(model.xcbam, f_audio, f_text, inputs))  # (N, d)
    out: Tensor = model.classifier(torch.cat(branches, dim=-1))
    return out


def _project(projection: Projection, steps: Steps) -> Float[Tensor, "n t d"]:
    projected: Tensor = projection.layers(steps.valid)  # (valid steps, d)
    n, t = steps.mask.shape
    if steps.complete:
        return projected.view(n, t, -1)
    return projected.new_zeros(n, t, projected.shape[-1]).masked_scatter(steps.mask.unsqueeze(-1), projected)


def _pool(x: Float[Tensor, "n t d"], steps: Steps) -> Float[Tensor, "n d"]:
    return x[:, 0] if steps.single else masked_mean(x, steps.mask)


def _gather(chgat: CHGAT, nodes: Float[Tensor, "n in_dim"], inputs: Inputs) -> Float[Tensor, "n d"]:
    """:class:`CHGAT`."""
    for layer, norm, drop in zip(chgat.hidden, chgat.norms, chgat.dropouts, strict=True):
        assert isinstance(layer, GATConv)
        gathered = drop(leaky_relu(norm(_attend(layer, nodes, inputs).flatten(1) + layer.bias)))  # (N, heads * d)
        nodes = gathered + nodes if gathered.shape == nodes.shape else gathered
    averaged: Tensor = _attend(chgat.last, nodes, inputs).mean(dim=1) + chgat.last.bias  # (N, d)
    return averaged


def _attend(layer: GATConv, nodes: Tensor, inputs: Inputs) -> Float[Tensor, "n heads d"]:
    h = linear(nodes, layer.lin.weight).view(len(nodes), layer.heads, -1)
    return attend(h, layer.att_src, layer.att_dst, inputs.adjacency(layer.heads), layer.negative_slope)


def _cross(
    xcbam: XCBAM, audio: Float[Tensor, "n ta d"], text: Float[Tensor, "n tt d"], inputs: Inputs
) -> Float[Tensor, "n d"]:
    """:class:`XCBAM`."""
    a_to_t = _informed(xcbam.audio_to_text, audio, text, inputs.text)
    a_to_t = _gated(xcbam.audio_cbam, a_to_t, inputs.audio)  # (N, T_a, d)
    t_to_a = _informed(xcbam.text_to_audio, text, audio, inputs.audio)
    t_to_a = _gated(xcbam.text_cbam, t_to_a, inputs.text)  # (N, T_t, d)
    streams = torch.cat([a_to_t, t_to_a], dim=1)  # (N, T_a + T_t, d)
    return fuse(streams, torch.cat([inputs.audio.mask, inputs.text.mask], dim=1), xcbam.fusion)


def _informed(
    module: CrossModalAttention, query: Float[Tensor, "n tq d"], key: Float[Tensor, "n tk d"], key_steps: Steps
) -> Float[Tensor, "n tq d"]:
    """:class:`CrossModalAttention`; over a single key the softmax is 1, whatever is asked."""
    if not key_steps.single:
        informed: Tensor = module(query, key, key_steps.mask)
        return informed
    attention = module.attention
    n, t, d = query.shape
    w_value, b_value = attention.in_proj_weight[2 * d :], attention.in_proj_bias[2 * d :]
    value = linear(key, w_value, b_value)  # (N, 1, d)
    if attention.dropout and module.training:
        weight = dropout(value.new_ones(n, attention.num_heads, t, 1), attention.dropout)
        value = (weight * value.view(n, attention.num_heads, 1, -1)).transpose(1, 2).flatten(2)  # (N, T_q, d)
    answer = linear(value, attention.out_proj.weight, attention.out_proj.bias)  # (N, 1 or T_q, d)
    out: Tensor = module.dropout(module.norm(query + module.linear(answer)))
    return out


def _gated(cbam: CBAM1d, x: Float[Tensor, "n t d"], steps: Steps) -> Float[Tensor, "n t d"]:
    """:class:`CBAM1d`; over a single step both poolings are that step."""
    if not steps.single:
        gated: Tensor = cbam(x, steps.mask)
        return gated
    pooled = cbam.channel.mlp(x)  # (N, 1, d)
    x = x * (torch.sigmoid(2 * pooled) if cbam.channel.gate == "sigmoid_of_sum" else 2 * torch.sigmoid(pooled))
    kernel = cbam.spatial.conv.weight[0]  # (2, k)
    if cbam.spatial.axis == "channels":
        half = kernel.shape[1] // 2
        return x * torch.sigmoid(torch.conv1d(x, kernel.sum(dim=0).view(1, 1, -1), padding=half))
    average, maximum = kernel[:, kernel.shape[1] // 2]
    gate = average * x.mean(dim=-1, keepdim=True) + maximum * x.amax(dim=-1, keepdim=True)  # (N, 1, 1)
    return x * torch.sigmoid(gate)

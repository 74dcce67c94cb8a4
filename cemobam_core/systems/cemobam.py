"""CemoBAM: graph attention over the utterances beside cross-modal attention within each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.cbam import CBAM1d, ChannelGate, SpatialAxis
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.graph_attention import CHGAT
from cemobam_core.operators.pooling import masked_max, masked_mean, masked_min
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.search import DROPOUT, GRAPH, TRAINING, OneOf, Space
from cemobam_core.systems.system import NeuralSystem

Fusion = Literal["cls", "min", "max", "mean"]
Modules = Literal["full", "no_xcbam", "no_chgat"]

FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
MODULES: tuple[Modules, ...] = get_args(Modules)


@dataclass(frozen=True, kw_only=True)
class CemoBAM(NeuralSystem):
    """Graph attention over the utterances beside cross-modal attention within each of them.

    "CemoBAM: Advancing Multimodal Emotion Recognition through Heterogeneous Graph Networks and Cross-Modal Attention
    Mechanisms", 2025. The defaults are what the paper's text says.

    Args:
        hidden_dim: d, the size of the projected features.
        heads: H, attention heads in the GAT layers and in the cross-modal transformer.
        gat_layers: GAT layers; the last averages its heads, the others concatenate them.
        dropout: probability used wherever the model has dropout.
        fusion: how the two cross-modal streams become one vector.
        modules: ``full``, or the ablation without xCBAM or without CH-GAT.
        cbam_kernel: kernel of 1D-CBAM's spatial convolution (Eq. 4), odd.
        cbam_reduction: reduction of 1D-CBAM's channel MLP (Eq. 3).
        gat_last: the last GAT layer's heads are ``averaged``, or it has a ``single`` one.
        gat_norm: each hidden GAT layer has its ``own`` batch norm, or all have one ``shared``.
        gat_first_dropout: whether dropout follows the first GAT layer, as it does the other hidden ones.
        stream_output: what makes a stream of an attention's answer: the ``residual`` and LayerNorm, or a
            ``linear_residual_dropout``: Linear, residual and LayerNorm, dropout.
        channel_gate: Eq. 3's gate is the ``sigmoid_of_sum``, or the ``sum_of_sigmoids`` (between 0 and 2).
        spatial_axis: Eq. 4's convolution runs along ``time``, or along the ``channels``.

    Raises:
        InputError: a value out of range.
    """

    search: ClassVar[Space] = {
        **TRAINING,
        **GRAPH,
        "dropout": DROPOUT,
        "hidden_dim": OneOf(128, 256, 512),  # multiples of heads
        "fusion": OneOf(*FUSIONS),
    }

    hidden_dim: int = 512
    heads: int = 4
    gat_layers: int = 3
    dropout: float = 0.3
    fusion: Fusion = "min"
    modules: Modules = "full"
    cbam_kernel: int = 7
    cbam_reduction: int = 16
    gat_last: Literal["averaged", "single"] = "averaged"
    gat_norm: Literal["own", "shared"] = "own"
    gat_first_dropout: bool = True
    stream_output: Literal["residual", "linear_residual_dropout"] = "residual"
    channel_gate: ChannelGate = "sigmoid_of_sum"
    spatial_axis: SpatialAxis = "time"

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.hidden_dim % self.heads:
            raise InputError(f"hidden_dim={self.hidden_dim} must be a multiple of heads={self.heads}")
        if self.dropout >= 1:
            raise InputError(f"dropout={self.dropout} must be less than 1")
        if self.gat_norm == "shared" and self.gat_layers < 2:
            raise InputError("gat_norm='shared' needs hidden layers: gat_layers of at least 2")
        if self.cbam_kernel % 2 == 0:
            raise InputError(f"cbam_kernel={self.cbam_kernel} must be odd, so that a step keeps its place")

    def build(self, sizes: Sizes) -> CemoBAMNetwork:
        """Return the network, its weights drawn from torch's random state."""
        return CemoBAMNetwork(self, sizes)


class CemoBAMNetwork(nn.Module):
    """The whole model: projections, CH-GAT over the graph beside xCBAM within the utterance, classifier.

    With ``modules="no_xcbam"`` or ``"no_chgat"`` the classifier sees the branch that is left, and the other has no
    weights.

    Args:
        system: its choices.
        sizes: of the features.
    """

    def __init__(self, system: CemoBAM, sizes: Sizes) -> None:
        super().__init__()
        self.system, self.sizes = system, sizes
        d = system.hidden_dim
        self.audio_projection = Projection(in_dim=sizes.audio_dim, out_dim=d, dropout=system.dropout)
        self.text_projection = Projection(in_dim=sizes.text_dim, out_dim=d, dropout=system.dropout)
        self.chgat = None if system.modules == "no_chgat" else _chgat(system)
        self.xcbam = None if system.modules == "no_xcbam" else _xcbam(system)
        branches = 2 if system.modules == "full" else 1
        self.classifier = nn.Sequential(
            nn.Linear(branches * d, d),
            nn.LayerNorm(d),
            nn.ReLU(),
            nn.Dropout(system.dropout),
            nn.Linear(d, sizes.num_classes),
        )

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        """Return the class logits of each utterance, (N, C).

        Raises:
            InputError: embeddings whose size is not that of the model's.
        """
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n width"]:
        """Return what the classifier sees: [CH-GAT ‖ fused], (N, 2d); (N, d) where a module is left out."""
        audio, text = inputs.audio, inputs.text
        for name, x, size in (("audio", audio, self.sizes.audio_dim), ("text", text, self.sizes.text_dim)):
            if x.shape[-1] != size:
                raise InputError(f"{name} embeddings have {x.shape[-1]} numbers, the model expects {size}")
        f_audio = self.audio_projection(audio)  # (N, T_a, d)
        f_text = self.text_projection(text)  # (N, T_t, d)
        branches = []
        if self.chgat is not None:
            # Eq. 1: V = [text ‖ audio], one node an utterance
            nodes = torch.cat([masked_mean(f_text, text.mask), masked_mean(f_audio, audio.mask)], dim=-1)
            branches.append(self.chgat(nodes, inputs.edge_index))  # (N, d)
        if self.xcbam is not None:
            branches.append(self.xcbam(f_audio, f_text, audio.mask, text.mask))  # (N, d)
        return torch.cat(branches, dim=-1)


class XCBAM(nn.Module):
    """Cross-modal attention both ways, a 1D-CBAM on each stream, and their fusion.

    Args:
        audio_to_text: the stream whose query is audio.
        text_to_audio: the stream whose query is text.
        audio_cbam: for the first stream.
        text_cbam: for the second.
        fusion: see :func:`fuse`.

    Shapes:
        audio (N, T_a, d), text (N, T_t, d) and their masks → (N, d)
    """

    def __init__(
        self,
        *,
        audio_to_text: CrossModalAttention,
        text_to_audio: CrossModalAttention,
        audio_cbam: CBAM1d,
        text_cbam: CBAM1d,
        fusion: Fusion,
    ) -> None:
        super().__init__()
        self.audio_to_text = audio_to_text
        self.text_to_audio = text_to_audio
        self.audio_cbam = audio_cbam
        self.text_cbam = text_cbam
        self.fusion = fusion

    def forward(
        self,
        audio: Float[Tensor, "*r n ta d"],
        text: Float[Tensor, "*r n tt d"],
        audio_mask: Bool[Tensor, "n ta"],
        text_mask: Bool[Tensor, "n tt"],
    ) -> Float[Tensor, "*r n d"]:
        """Return the fused vector of each utterance."""
        a_to_t = self.audio_cbam(self.audio_to_text(audio, text, text_mask), audio_mask)  # (N, T_a, d)
        t_to_a = self.text_cbam(self.text_to_audio(text, audio, audio_mask), text_mask)  # (N, T_t, d)
        streams = torch.cat([a_to_t, t_to_a], dim=-2)  # (N, T_a + T_t, d)
        return fuse(streams, torch.cat([audio_mask, text_mask], dim=1), self.fusion)


def fuse(streams: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"], fusion: Fusion) -> Float[Tensor, "*r n d"]:
    """Return one vector from the streams laid end to end in time.

    ``cls`` takes the first step; ``min``, ``max`` and ``mean`` work element-wise over the valid steps.
    """
    if fusion == "cls":
        return streams[..., 0, :]
    return {"min": masked_min, "max": masked_max, "mean": masked_mean}[fusion](streams, mask)


def _chgat(system: CemoBAM) -> CHGAT:
    return CHGAT(
        in_dim=2 * system.hidden_dim,
        hidden_dim=system.hidden_dim,
        heads=system.heads,
        layers=system.gat_layers,
        dropout=system.dropout,
        last_heads=1 if system.gat_last == "single" else system.heads,
        shared_norm=system.gat_norm == "shared",
        first_dropout=system.gat_first_dropout,
    )


def _xcbam(system: CemoBAM) -> XCBAM:
    def attention() -> CrossModalAttention:
        return CrossModalAttention(
            dim=system.hidden_dim,
            heads=system.heads,
            dropout=system.dropout,
            linear_and_dropout=system.stream_output == "linear_residual_dropout",
        )

    def cbam() -> CBAM1d:
        return CBAM1d(
            channels=system.hidden_dim,
            reduction=system.cbam_reduction,
            kernel=system.cbam_kernel,
            gate=system.channel_gate,
            axis=system.spatial_axis,
        )

    return XCBAM(
        audio_to_text=attention(), text_to_audio=attention(), audio_cbam=cbam(), text_cbam=cbam(), fusion=system.fusion
    )

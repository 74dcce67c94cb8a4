"""CemoBAM: graph attention over the utterances, combined with cross-modal attention within each utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.cbam import CBAM1d, ChannelGate, SpatialAxis
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.fusion import FUSIONS, Fusion, fuse
from cemobam_core.operators.graph_attention import CHGAT
from cemobam_core.operators.pooling import node_features
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.search import DROPOUT, GRAPH, TRAINING, OneOf, Space
from cemobam_core.systems.system import NeuralSystem

Modules = Literal["full", "no_xcbam", "no_chgat"]

MODULES: tuple[Modules, ...] = get_args(Modules)


@dataclass(frozen=True, kw_only=True)
class CemoBAM(NeuralSystem):
    """Graph attention over the utterances, combined with cross-modal attention within each utterance.

    "CemoBAM: Advancing Multimodal Emotion Recognition through Heterogeneous Graph Networks and Cross-Modal Attention
    Mechanisms", 2025. The defaults follow the text of the paper.

    Args:
        hidden_dim: d, the size of the projected features.
        heads: H, attention heads in the GAT layers and in the cross-modal transformer.
        gat_layers: GAT layers. The last one averages its heads, the others concatenate them.
        dropout: Dropout probability in all parts of the model.
        fusion: How the two cross-modal streams become one vector.
        modules: ``full``, or an ablation: ``no_xcbam`` without xCBAM, ``no_chgat`` without CH-GAT.
        cbam_kernel: Kernel size of 1D-CBAM's spatial convolution (Eq. 4), an odd number.
        cbam_reduction: Reduction of 1D-CBAM's channel MLP (Eq. 3).
        gat_last: ``averaged`` if the last GAT layer averages its heads, ``single`` if it has only one head.
        gat_norm: ``own`` if each hidden GAT layer has its own batch norm, ``shared`` if all share one.
        gat_first_dropout: Whether dropout follows the first GAT layer, as it follows the other hidden ones.
        stream_output: How an attention's output becomes a stream: ``residual`` is the residual and LayerNorm,
            ``linear_residual_dropout`` is Linear, the residual, LayerNorm and dropout.
        channel_gate: ``sigmoid_of_sum`` as in Eq. 3, or ``sum_of_sigmoids`` (between 0 and 2).
        spatial_axis: The axis of Eq. 4's convolution: ``time`` or ``channels``.

    Raises:
        InputError: A value is out of range.
    """

    group: ClassVar[str] = "paper"
    search: ClassVar[Space] = {
        **TRAINING,
        **GRAPH,
        "dropout": DROPOUT,
        "hidden_dim": OneOf(128, 256, 512),  # must be multiples of heads
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
        check_multiple(self, "hidden_dim", "heads")
        check_below_one(self, "dropout")
        if self.gat_norm == "shared" and self.gat_layers < 2:
            raise InputError(f"gat_norm='shared' needs gat_layers of at least 2, not {self.gat_layers}")
        if self.cbam_kernel % 2 == 0:
            raise InputError(f"cbam_kernel={self.cbam_kernel} must be odd, so that every step keeps its position")

    def build(self, sizes: Sizes) -> CemoBAMNetwork:
        """Build the network with weights drawn from torch's random state."""
        return CemoBAMNetwork(self, sizes)


class CemoBAMNetwork(nn.Module):
    """The complete model: projections, CH-GAT over the graph, xCBAM within each utterance, classifier.

    With ``modules="no_xcbam"`` or ``"no_chgat"`` the classifier receives only the remaining branch, and the other
    branch has no weights.

    Args:
        system: System with its configuration.
        sizes: Sizes of the features.
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
            InputError: The size of an embedding differs from that of the model.
        """
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n width"]:
        """Return the input of the classifier: [CH-GAT ‖ fused], (N, 2d), or (N, d) without one of the modules."""
        f_audio, f_text = self._projected(inputs)
        masks = inputs.audio.mask, inputs.text.mask
        branches = []
        if self.chgat is not None:
            branches.append(self.chgat(node_features(f_audio, f_text, *masks), inputs.edge_index))  # (N, d)
        if self.xcbam is not None:
            branches.append(self.xcbam(f_audio, f_text, *masks))  # (N, d)
        return torch.cat(branches, dim=-1)

    def of_utterances(self, inputs: Inputs) -> list[Tensor]:
        """Return all that depends on single utterances: the nodes, (N, 2d), and the fused vectors of xCBAM, (N, d)."""
        f_audio, f_text = self._projected(inputs)
        masks = inputs.audio.mask, inputs.text.mask
        vectors = [] if self.chgat is None else [node_features(f_audio, f_text, *masks)]
        if self.xcbam is not None:
            vectors.append(self.xcbam(f_audio, f_text, *masks))
        return vectors

    def over_graph(self, vectors: list[Tensor], edge_index: Int64[Tensor, "2 e"]) -> Float[Tensor, "n c"]:
        """Return the class logits, (N, C), from the list that ``of_utterances`` returns."""
        if self.chgat is not None:
            nodes, *rest = vectors
            vectors = [self.chgat(nodes, edge_index), *rest]
        logits: Tensor = self.classifier(torch.cat(vectors, dim=-1))
        return logits

    def _projected(self, inputs: Inputs) -> tuple[Float[Tensor, "*r n ta d"], Float[Tensor, "*r n tt d"]]:
        for name, x, size in (
            ("audio", inputs.audio, self.sizes.audio_dim),
            ("text", inputs.text, self.sizes.text_dim),
        ):
            if x.shape[-1] != size:
                raise InputError(f"{name} embeddings have {x.shape[-1]} numbers, but the model needs {size}")
        return self.audio_projection(inputs.audio), self.text_projection(inputs.text)


class XCBAM(nn.Module):
    """Cross-modal attention in both directions, a 1D-CBAM on each stream, and the fusion of the streams.

    Args:
        audio_to_text: The stream whose query is audio.
        text_to_audio: The stream whose query is text.
        audio_cbam: 1D-CBAM of the first stream.
        text_cbam: 1D-CBAM of the second stream.
        fusion: See ``fuse``.

    Shapes:
        audio (N, T_a, d), text (N, T_t, d) and their masks → (N, d).
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

"""CemoBAM: the modules put together."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cemobam_core.config import CemoBAMConfig, Fusion
from cemobam_core.errors import InputError
from cemobam_core.operators.cbam import CBAM1d
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.graph_attention import CHGAT
from cemobam_core.operators.pooling import masked_max, masked_mean, masked_min


class Projection(nn.Module):
    """An encoder's embeddings, projected: Linear, BatchNorm, ReLU, Dropout on every valid step.

    Only valid steps enter, so that neither the batch statistics nor the dropout mask depends on the padding.

    Shapes:
        x (N, T, in_dim), mask (N, T) → (N, T, out_dim), zeros where padded
    """

    def __init__(self, *, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim, out_dim), nn.BatchNorm1d(out_dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "n t in_dim"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t out_dim"]:
        """The projected steps."""
        steps: Tensor = self.layers(x[mask])  # (valid steps, out_dim)
        return steps.new_zeros(*mask.shape, steps.shape[-1]).masked_scatter(mask.unsqueeze(-1), steps)


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
        audio: Float[Tensor, "n ta d"],
        text: Float[Tensor, "n tt d"],
        audio_mask: Bool[Tensor, "n ta"],
        text_mask: Bool[Tensor, "n tt"],
    ) -> Float[Tensor, "n d"]:
        """The fused vector of each utterance."""
        a_to_t = self.audio_cbam(self.audio_to_text(audio, text, text_mask), audio_mask)  # (N, T_a, d)
        t_to_a = self.text_cbam(self.text_to_audio(text, audio, audio_mask), text_mask)  # (N, T_t, d)
        streams = torch.cat([a_to_t, t_to_a], dim=1)  # (N, T_a + T_t, d)
        return fuse(streams, torch.cat([audio_mask, text_mask], dim=1), self.fusion)


def fuse(streams: Float[Tensor, "*r n t d"], mask: Bool[Tensor, "n t"], fusion: Fusion) -> Float[Tensor, "*r n d"]:
    """One vector from the streams laid end to end in time.

    ``cls`` takes the first step; ``min``, ``max`` and ``mean`` work element-wise over the valid steps.
    """
    if fusion == "cls":
        return streams[..., 0, :]
    return {"min": masked_min, "max": masked_max, "mean": masked_mean}[fusion](streams, mask)


class CemoBAM(nn.Module):
    """The whole model: projections, CH-GAT over the graph beside xCBAM within the utterance, classifier.

    With ``modules="no_xcbam"`` or ``"no_chgat"`` the classifier sees the branch that is left, and the other has no
    weights.

    Args:
        config: sizes and choices.
    """

    trials: int | None = None
    """How many models it stands for (:func:`.training.stacks.stack`); None: it is one, without a trial axis."""

    def __init__(self, config: CemoBAMConfig) -> None:
        super().__init__()
        self.config = config
        d = config.hidden_dim
        self.audio_projection = Projection(in_dim=config.audio_dim, out_dim=d, dropout=config.dropout)
        self.text_projection = Projection(in_dim=config.text_dim, out_dim=d, dropout=config.dropout)
        self.chgat = None if config.modules == "no_chgat" else _chgat(config)
        self.xcbam = None if config.modules == "no_xcbam" else _xcbam(config)
        branches = 2 if config.modules == "full" else 1
        self.classifier = nn.Sequential(
            nn.Linear(branches * d, d),
            nn.LayerNorm(d),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, config.num_classes),
        )

    def forward(
        self,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n *tt et"],
        edge_index: Int64[Tensor, "2 e"],
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
    ) -> Float[Tensor, "n c"]:
        """Class logits of each utterance.

        Args:
            audio: (N, E) utterance-level or (N, T_a, E) sequences.
            text: (N, E) or (N, T_t, E).
            edge_index: (2, E) graph among these N utterances, as :meth:`TopKGraph.edge_index` gives it.
            audio_mask: (N, T_a), true on the valid steps, which come first; None: every step is valid.
            text_mask: the same for text.

        Returns:
            (N, C) logits.

        Raises:
            InputError: embeddings whose size is not the configuration's.
        """
        logits: Tensor = self.classifier(self.embedding(audio, text, edge_index, audio_mask, text_mask))
        return logits

    def embedding(
        self,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n *tt et"],
        edge_index: Int64[Tensor, "2 e"],
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
    ) -> Float[Tensor, "n width"]:
        """What the classifier sees of each utterance: [CH-GAT ‖ fused], (N, 2d); (N, d) where a module is left out.

        Takes and raises what :meth:`forward` does.
        """
        self.check_sizes(audio, text)
        audio, audio_mask = _as_sequence(audio, audio_mask)  # (N, T_a, E), (N, T_a)
        text, text_mask = _as_sequence(text, text_mask)
        f_audio = self.audio_projection(audio, audio_mask)  # (N, T_a, d)
        f_text = self.text_projection(text, text_mask)  # (N, T_t, d)
        branches = []
        if self.chgat is not None:
            # Eq. 1: V = [text ‖ audio], one node an utterance
            nodes = torch.cat([masked_mean(f_text, text_mask), masked_mean(f_audio, audio_mask)], dim=-1)
            branches.append(self.chgat(nodes, edge_index))  # (N, d)
        if self.xcbam is not None:
            branches.append(self.xcbam(f_audio, f_text, audio_mask, text_mask))  # (N, d)
        return torch.cat(branches, dim=-1)

    def check_sizes(self, audio: Float[Tensor, "*a ea"], text: Float[Tensor, "*t et"]) -> None:
        """See that embeddings have the configuration's size.

        Raises:
            InputError: they have not.
        """
        for name, x, size in (("audio", audio, self.config.audio_dim), ("text", text, self.config.text_dim)):
            if x.shape[-1] != size:
                raise InputError(f"{name} embeddings have {x.shape[-1]} numbers, the model expects {size}")


def _chgat(config: CemoBAMConfig) -> CHGAT:
    return CHGAT(
        in_dim=2 * config.hidden_dim,
        hidden_dim=config.hidden_dim,
        heads=config.heads,
        layers=config.gat_layers,
        dropout=config.dropout,
        last_heads=1 if config.gat_last == "single" else config.heads,
        shared_norm=config.gat_norm == "shared",
        first_dropout=config.gat_first_dropout,
    )


def _xcbam(config: CemoBAMConfig) -> XCBAM:
    def attention() -> CrossModalAttention:
        return CrossModalAttention(
            dim=config.hidden_dim,
            heads=config.heads,
            dropout=config.dropout,
            linear_and_dropout=config.stream_output == "linear_residual_dropout",
        )

    def cbam() -> CBAM1d:
        return CBAM1d(
            channels=config.hidden_dim,
            reduction=config.cbam_reduction,
            kernel=config.cbam_kernel,
            gate=config.channel_gate,
            axis=config.spatial_axis,
        )

    return XCBAM(
        audio_to_text=attention(), text_to_audio=attention(), audio_cbam=cbam(), text_cbam=cbam(), fusion=config.fusion
    )


def _as_sequence(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Utterance-level features are sequences of one step."""
    if x.ndim == 2:
        x = x.unsqueeze(1)
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return x, mask

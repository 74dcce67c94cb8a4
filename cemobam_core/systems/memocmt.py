"""MemoCMT: cross-modal attention both ways, without the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes, Steps
from cemobam_core.operators.batched import for_each
from cemobam_core.operators.cross_modal import ask
from cemobam_core.operators.fusion import FUSIONS, Fusion, fuse
from cemobam_core.systems.prescribed import ADAM_IN_STEPS
from cemobam_core.systems.search import DROPOUT, TRAINING, WIDTH, OneOf, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class MemoCMT(NeuralSystem):
    r"""Multi-head attention from each modality to the other, both answers fused over time.

    Khan et al., 2025, "MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature fusion",
    Scientific Reports; the authors' code, tpnam0901/MemoCMT, is what is followed.

    .. math:: S_{A \to T} = \mathrm{LayerNorm}(W \, \mathrm{MultiHead}(Q = X_A, K = V = X_T) + b)

    and :math:`S_{T \to A}` likewise, with weights of its own. No residual follows the attention. Both streams, the one
    that audio asks for first, are laid end to end in time and fused into one vector; then Linear, LeakyReLU, Linear.
    Dropout stands after each LayerNorm, on both streams laid end to end, before and after the hidden layer.

    Of the code:

    - it fuses by ``cls`` unless told otherwise; the default here is ``min``, with which the paper has its best figures;
    - its ``cls`` is the first step of the stream that audio asks for, so that the other stream learns nothing;
    - it holds a third attention, with Linear and LayerNorm, that its forward pass does not use: not built here;
    - it attends and fuses over padded steps too, which its batches of one utterance do not have: here they are masked;
    - the epoch of the best validation accuracy is kept. Adam decays no weights.

    The attentions work on the encoders' embeddings. Where the two sizes differ, or the heads do not divide them, a
    Linear brings each modality to ``hidden_dim`` first; the encoders of the source both give 768 numbers.

    Args:
        hidden_dim: size of the streams.
        heads: attention heads.
        classifier_dim: units of the classifier's hidden layer.
        dropout: probability used wherever the model has dropout.
        fusion: how the streams become one vector.

    Raises:
        InputError: a value out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "paper"
    prescribed: ClassVar[Mapping[str, Value]] = {**ADAM_IN_STEPS, "epochs": 100, "weights": "best_epoch"}
    search: ClassVar[Space] = {**TRAINING, "hidden_dim": WIDTH, "dropout": DROPOUT, "fusion": OneOf(*FUSIONS)}

    hidden_dim: int = 768
    heads: int = 8
    classifier_dim: int = 128
    dropout: float = 0.05
    fusion: Fusion = "min"

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_multiple(self, "hidden_dim", "heads")
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        return _MemoCMTNetwork(self, sizes)


class _MemoCMTNetwork(nn.Module):
    def __init__(self, system: MemoCMT, sizes: Sizes) -> None:
        super().__init__()
        d, dim = system.hidden_dim, sizes.audio_dim
        self.same_size = sizes.audio_dim == sizes.text_dim and dim % system.heads == 0
        if not self.same_size:
            dim = d
            self.audio_projection, self.text_projection = nn.Linear(sizes.audio_dim, d), nn.Linear(sizes.text_dim, d)
        self.audio_to_text = _Stream(dim, d, heads=system.heads, dropout=system.dropout)
        self.text_to_audio = _Stream(dim, d, heads=system.heads, dropout=system.dropout)
        self.dropout = nn.Dropout(system.dropout)
        self.fusion: Fusion = system.fusion
        self.classifier = nn.Sequential(
            nn.Dropout(system.dropout),
            nn.Linear(d, system.classifier_dim),
            nn.LeakyReLU(),
            nn.Dropout(system.dropout),
            nn.Linear(system.classifier_dim, sizes.num_classes),
        )

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n d"]:
        audio, text = self._sized(inputs.audio, "audio"), self._sized(inputs.text, "text")
        a_to_t = self.audio_to_text(audio, text, inputs.text.mask)  # (N, T_a, d)
        t_to_a = self.text_to_audio(text, audio, inputs.audio.mask)  # (N, T_t, d)
        streams = self.dropout(torch.cat([a_to_t, t_to_a], dim=-2))  # (N, T_a + T_t, d)
        return fuse(streams, torch.cat([inputs.audio.mask, inputs.text.mask], dim=1), self.fusion)

    def _sized(self, steps: Steps, modality: str) -> Float[Tensor, "*r n t dim"]:
        """Return the steps of a modality, of the size of the attentions."""
        if self.same_size:
            return for_each(steps, self.audio_to_text.linear.weight)
        return steps.laid_out(self.get_submodule(f"{modality}_projection")(steps.valid))


class _Stream(nn.Module):
    """Attention, Linear, LayerNorm, dropout."""

    def __init__(self, dim: int, hidden_dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.linear = nn.Linear(dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Float[Tensor, "*r n tq dim"], key: Float[Tensor, "*r n tk dim"], key_mask: Bool[Tensor, "n tk"]
    ) -> Float[Tensor, "*r n tq d"]:
        answer = self.norm(self.linear(ask(self.attention, query, key, key_mask)))
        stream: Tensor = self.dropout(answer.expand(*answer.shape[:-2], query.shape[-2], -1))
        return stream

"""MemoCMT: cross-modal attention in both directions, without a graph."""

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
    r"""Multi-head attention from each modality to the other, with both outputs fused over time.

    Khan et al., 2025, "MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature fusion",
    Scientific Reports. This system follows the authors' code, tpnam0901/MemoCMT.

    .. math:: S_{A \to T} = \mathrm{LayerNorm}(W \, \mathrm{MultiHead}(Q = X_A, K = V = X_T) + b)

    :math:`S_{T \to A}` is defined in the same way, with its own weights. No residual follows the attention. Both
    streams are concatenated along time, the one with audio as the query first, and fused into one vector. Linear,
    LeakyReLU and Linear follow. Dropout is applied after each LayerNorm, to the concatenated streams, and before and
    after the hidden layer.

    Notes on the code:

    - Its default fusion is ``cls``. The default here is ``min``, which has the best results in the paper.
    - Its ``cls`` is the first step of the stream with audio as the query, so the other stream learns nothing.
    - It contains a third attention, with Linear and LayerNorm, that its forward pass does not use. It is left out here.
    - It also attends to padded steps and fuses them. Its batches of one utterance have none. Here they are masked.
    - It keeps the epoch with the best validation accuracy. Adam has no weight decay.

    The attentions work on the embeddings of the encoders. If the sizes of the two modalities differ, or are not
    multiples of ``heads``, a Linear first brings each modality to ``hidden_dim``. Both encoders of the source give 768
    numbers.

    Args:
        hidden_dim: Size of the streams.
        heads: Number of attention heads.
        classifier_dim: Units of the classifier's hidden layer.
        dropout: Dropout probability in all parts of the model.
        fusion: How the streams become one vector.

    Raises:
        InputError: A value is out of range.
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
        """Build the network."""
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
        """Return the steps of a modality in the size of the attentions."""
        if self.same_size:
            return for_each(steps, self.audio_to_text.linear.weight)
        return steps.laid_out(self.get_submodule(f"{modality}_projection")(steps.valid))


class _Stream(nn.Module):
    """One stream: attention, Linear, LayerNorm and dropout."""

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

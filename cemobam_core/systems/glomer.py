"""GloMER: cross-modal attention both ways and a gated multimodal unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.cross_modal import ask
from cemobam_core.operators.gated_unit import GatedMultimodalUnit
from cemobam_core.operators.pooling import masked_mean
from cemobam_core.systems.search import NETWORK, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class GloMER(NeuralSystem):
    r"""Cross-modal attention with a residual that both modalities share, then a gate between them.

    Nguyen, Phan and Dang, 2025, "GloMER: Towards Robust Multimodal Emotion Recognition via Gated Fusion and Contrastive
    Learning", MEDES, later work of CemoBAM's first author; the public code, nhut-ngnn/GloMER, is what is followed.

    Each modality is projected (Linear, ReLU, LayerNorm, dropout: F) and asks the other one:

    .. math:: G_T = W F_T + b + \mathrm{MultiHead}(Q = F_T, K = V = F_A)

    and :math:`G_A` likewise, with attention weights of its own but the same W and b. No LayerNorm follows. The means
    over the steps are fused by a gated multimodal unit (Arevalo et al., 2017). The classifier is twice Linear, ReLU,
    LayerNorm, dropout, then Linear.

    What is not rebuilt: the code adds three losses to the cross entropy (NT-Xent between projections of the two pooled
    streams, and two on their distance), and trains with AdamW. Here the loss is the cross entropy alone, as for every
    system, and the projection head that serves NT-Xent is left out: it is the paper's network, and not its contrastive
    learning. AdamW's decay of 1e-2 takes a millionth of a weight in a step, so Adam without decay stands for it. The
    code keeps the epoch of the best balanced accuracy on validation (its "WA"); here it is that of the best WA.

    Args:
        hidden_dim: size of the projected features, of the fused vector and of the classifier's first layer.
        heads: attention heads.
        classifier_dim: units of the classifier's second layer.
        dropout: probability used wherever the model has dropout.

    Raises:
        InputError: a value out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "paper"
    prescribed: ClassVar[Mapping[str, Value]] = {
        "epochs": 100,
        "weights": "best_epoch",
        "lr": 1e-4,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "lr_gamma": 0.5,
        "lr_patience": 30,
    }
    search: ClassVar[Space] = NETWORK

    hidden_dim: int = 512
    heads: int = 8
    classifier_dim: int = 128
    dropout: float = 0.2

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_multiple(self, "hidden_dim", "heads")
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the network."""
        return _GloMERNetwork(self, sizes)


class _GloMERNetwork(nn.Module):
    def __init__(self, system: GloMER, sizes: Sizes) -> None:
        super().__init__()
        d, p = system.hidden_dim, system.dropout
        self.audio_projection = _layer(sizes.audio_dim, d, p)
        self.text_projection = _layer(sizes.text_dim, d, p)
        self.audio_attention = nn.MultiheadAttention(d, system.heads, dropout=p, batch_first=True)
        self.text_attention = nn.MultiheadAttention(d, system.heads, dropout=p, batch_first=True)
        self.residual = nn.Linear(d, d)
        self.gate = GatedMultimodalUnit(d)
        self.classifier = nn.Sequential(
            *_layer(d, d, p), *_layer(d, system.classifier_dim, p), nn.Linear(system.classifier_dim, sizes.num_classes)
        )

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n d"]:
        audio = inputs.audio.laid_out(self.audio_projection(inputs.audio.valid))  # (N, T_a, d)
        text = inputs.text.laid_out(self.text_projection(inputs.text.valid))  # (N, T_t, d)
        by_text = self.residual(text) + ask(self.text_attention, text, audio, inputs.audio.mask)  # (N, T_t, d)
        by_audio = self.residual(audio) + ask(self.audio_attention, audio, text, inputs.text.mask)  # (N, T_a, d)
        fused: Tensor = self.gate(masked_mean(by_audio, inputs.audio.mask), masked_mean(by_text, inputs.text.mask))
        return fused


def _layer(in_dim: int, out_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.LayerNorm(out_dim), nn.Dropout(dropout))

"""GloMER: cross-modal attention in both directions and a gated multimodal unit."""

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
    r"""Cross-modal attention with a linear residual that both modalities share, then a gate between them.

    Nguyen, Phan and Dang, 2025, "GloMER: Towards Robust Multimodal Emotion Recognition via Gated Fusion and Contrastive
    Learning", MEDES, later work of CemoBAM's first author. This system follows the public code, nhut-ngnn/GloMER.

    Each modality is projected (Linear, ReLU, LayerNorm, dropout) to F, which is the query of an attention to the other
    modality:

    .. math:: G_T = W F_T + b + \mathrm{MultiHead}(Q = F_T, K = V = F_A)

    :math:`G_A` is defined in the same way, with its own attention weights but the same W and b. No LayerNorm follows. A
    gated multimodal unit (Arevalo et al., 2017) fuses the means over the steps. The classifier is twice Linear, ReLU,
    LayerNorm and dropout, then Linear.

    Differences from the code:

    - The code adds three losses to the cross entropy: NT-Xent between projections of the two pooled streams, and two
      losses of their distance. Here the loss is the cross entropy only, as for every system, and the projection head
      for NT-Xent is left out. This is the paper's network without its contrastive learning.
    - The code trains with AdamW. Its decay of 1e-2 reduces a weight by one millionth per step, so Adam without decay is
      used here.
    - The code keeps the epoch with the best balanced accuracy on validation (its "WA"). Here it is the epoch with the
      best WA.

    Args:
        hidden_dim: Size of the projected features, of the fused vector and of the classifier's first layer.
        heads: Number of attention heads.
        classifier_dim: Units of the classifier's second layer.
        dropout: Dropout probability in all parts of the model.

    Raises:
        InputError: A value is out of range.
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
        """Build the network."""
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

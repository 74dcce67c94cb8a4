"""HemoGAT: graph attention combined with cross-modal attention, without 1D-CBAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.graph_attention import CHGAT
from cemobam_core.operators.pooling import masked_mean, node_features
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.search import GRAPH, NETWORK, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class HemoGAT(NeuralSystem):
    """CemoBAM's predecessor: the same projections, graph and attentions, without 1D-CBAM and stream fusion.

    Nguyen et al., 2025, "HemoGAT: Heterogeneous Multi-Modal Emotion Recognition with Cross-Modal Transformer and Graph
    Attention Network". This system follows the authors' code, nhut-ngnn/HemoGAT. The classifier receives

        [graph attention ‖ stream whose query is audio ‖ stream whose query is text]

    which has 3d numbers. It consists of Linear, LayerNorm, ReLU, dropout and Linear. A stream applies Linear, the
    residual, LayerNorm and dropout to the output of its attention. All hidden graph layers share one batch norm, no
    dropout follows the first one, and the last one has a single head.

    Notes on the code:

    - A node gathers from the utterances that chose it (``gather_from=choosers``), as in the released CemoBAM.
    - The code keeps the model in training mode only in the first epoch, and its batch norm uses running averages. Here
      the profile decides both: ``--profile released`` trains as the code does.
    - The code uses one embedding per utterance. Here, every step of a sequence is projected and attends. Nodes and
      streams are then means over the valid steps.

    Args:
        hidden_dim: d, the size of the projected features.
        heads: Attention heads in the graph layers and in the cross-modal attention.
        gat_layers: Graph attention layers, at least 2.
        dropout: Dropout probability in all parts of the model.

    Raises:
        InputError: A value is out of range.
    """

    group: ClassVar[str] = "paper"
    prescribed: ClassVar[Mapping[str, Value]] = {
        "gather_from": "choosers",
        "epochs": 100,
        "lr": 1e-4,
        "weight_decay": 5e-4,
        "schedule": "plateau",
        "lr_gamma": 0.5,
        "lr_patience": 15,
    }
    search: ClassVar[Space] = {**NETWORK, **GRAPH}

    hidden_dim: int = 512
    heads: int = 4
    gat_layers: int = 3
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_multiple(self, "hidden_dim", "heads")
        check_below_one(self, "dropout")
        if self.gat_layers < 2:
            raise InputError(f"gat_layers={self.gat_layers} must be at least 2: a hidden layer and the last one")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        return _HemoGATNetwork(self, sizes)


class _HemoGATNetwork(nn.Module):
    def __init__(self, system: HemoGAT, sizes: Sizes) -> None:
        super().__init__()
        d, heads, p = system.hidden_dim, system.heads, system.dropout
        self.audio_projection = Projection(in_dim=sizes.audio_dim, out_dim=d, dropout=p)
        self.text_projection = Projection(in_dim=sizes.text_dim, out_dim=d, dropout=p)
        self.chgat = CHGAT(
            in_dim=2 * d,
            hidden_dim=d,
            heads=heads,
            layers=system.gat_layers,
            dropout=p,
            last_heads=1,
            shared_norm=True,
            first_dropout=False,
        )
        self.audio_to_text = CrossModalAttention(dim=d, heads=heads, dropout=p, linear_and_dropout=True)
        self.text_to_audio = CrossModalAttention(dim=d, heads=heads, dropout=p, linear_and_dropout=True)
        self.classifier = nn.Sequential(
            nn.Linear(3 * d, d), nn.LayerNorm(d), nn.ReLU(), nn.Dropout(p), nn.Linear(d, sizes.num_classes)
        )

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n width"]:
        audio, text = self.audio_projection(inputs.audio), self.text_projection(inputs.text)
        masks = inputs.audio.mask, inputs.text.mask
        graph = self.chgat(node_features(audio, text, *masks), inputs.edge_index)  # (N, d)
        return torch.cat([graph, *self._exchanged(audio, text, *masks)], dim=-1)

    def of_utterances(self, inputs: Inputs) -> list[Tensor]:
        audio, text = self.audio_projection(inputs.audio), self.text_projection(inputs.text)
        masks = inputs.audio.mask, inputs.text.mask
        return [node_features(audio, text, *masks), *self._exchanged(audio, text, *masks)]

    def over_graph(self, vectors: list[Tensor], edge_index: Int64[Tensor, "2 e"]) -> Float[Tensor, "n c"]:
        nodes, *rest = vectors
        logits: Tensor = self.classifier(torch.cat([self.chgat(nodes, edge_index), *rest], dim=-1))
        return logits

    def _exchanged(self, audio: Tensor, text: Tensor, audio_mask: Tensor, text_mask: Tensor) -> list[Tensor]:
        """Return what each modality takes from the other, averaged over time: two vectors, (N, d)."""
        t_to_a = self.text_to_audio(text, audio, audio_mask)  # (N, T_t, d)
        a_to_t = self.audio_to_text(audio, text, text_mask)  # (N, T_a, d)
        return [masked_mean(a_to_t, audio_mask), masked_mean(t_to_a, text_mask)]

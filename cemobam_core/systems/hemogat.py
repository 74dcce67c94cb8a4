"""HemoGAT: graph attention beside cross-modal attention, without 1D-CBAM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.graph_attention import CHGAT
from cemobam_core.operators.pooling import masked_mean
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.search import GRAPH, NETWORK, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class HemoGAT(NeuralSystem):
    """CemoBAM's forerunner: the same projections, graph and attentions, no 1D-CBAM, and no fusion of the streams.

    Nguyen et al., 2025, "HemoGAT: Heterogeneous Multi-Modal Emotion Recognition with Cross-Modal Transformer and Graph
    Attention Network"; the authors' code, nhut-ngnn/HemoGAT, is what is followed. The classifier sees

        [graph attention ‖ stream whose query is audio ‖ stream whose query is text]

    that is 3d numbers, and is Linear, LayerNorm, ReLU, dropout, Linear. A stream is Linear, residual, LayerNorm and
    dropout after the attention. All hidden graph layers share one batch norm, no dropout follows the first of them, and
    the last has a single head.

    Of the code:

    - a node gathers from the utterances that chose it (``gather_from=choosers``), as in the released CemoBAM;
    - its model is in training mode in the first epoch alone and its batch norm keeps running averages. Both are those
      of the profile here: ``--profile released`` trains as the code does;
    - its features are one embedding an utterance. Of sequences, every step is projected and attends; nodes and streams
      are then the means over the valid steps.

    Args:
        hidden_dim: d, the size of the projected features.
        heads: attention heads, in the graph layers and in the cross-modal attention.
        gat_layers: graph attention layers, at least 2.
        dropout: probability used wherever the model has dropout.

    Raises:
        InputError: a value out of range.
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
        """Return the network."""
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
        audio_mask, text_mask = inputs.audio.mask, inputs.text.mask
        nodes = torch.cat([masked_mean(text, text_mask), masked_mean(audio, audio_mask)], dim=-1)  # (N, 2d)
        graph = self.chgat(nodes, inputs.edge_index)  # (N, d)
        t_to_a = self.text_to_audio(text, audio, audio_mask)  # (N, T_t, d)
        a_to_t = self.audio_to_text(audio, text, text_mask)  # (N, T_a, d)
        return torch.cat([graph, masked_mean(a_to_t, audio_mask), masked_mean(t_to_a, text_mask)], dim=-1)

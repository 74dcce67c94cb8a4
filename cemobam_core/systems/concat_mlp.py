"""A multilayer perceptron on both embeddings: the baseline that graphs and attention must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.perceptron import hidden_layers
from cemobam_core.systems.search import NETWORK, Space
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class ConcatMLP(NeuralSystem):
    """A multilayer perceptron on both pooled embeddings, concatenated (early fusion).

    Args:
        hidden_dim: Units of a hidden layer.
        layers: Number of hidden layers.
        dropout: Dropout probability after each hidden layer.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "baselines"
    search: ClassVar[Space] = NETWORK

    hidden_dim: int = 512
    layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the perceptron."""
        return _ConcatMLPNetwork(self, sizes)


class _ConcatMLPNetwork(nn.Module):
    def __init__(self, system: ConcatMLP, sizes: Sizes) -> None:
        super().__init__()
        self.hidden = hidden_layers(
            sizes.audio_dim + sizes.text_dim, system.hidden_dim, layers=system.layers, dropout=system.dropout
        )
        self.classifier = nn.Linear(system.hidden_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n hidden"]:
        hidden: Tensor = self.hidden(torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=-1))
        return hidden

"""A multilayer perceptron on both embeddings: what a graph and attention must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class ConcatMLP(NeuralSystem):
    """Both pooled embeddings, concatenated, through hidden layers (early fusion).

    Args:
        hidden_dim: units of a hidden layer.
        layers: hidden layers.
        dropout: probability of dropout after each of them.

    Raises:
        InputError: a value out of range.
    """

    uses_graph: ClassVar[bool] = False

    hidden_dim: int = 512
    layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.dropout >= 1:
            raise InputError(f"dropout={self.dropout} must be less than 1")

    def build(self, sizes: Sizes) -> nn.Module:
        """Return the perceptron."""
        return _ConcatMLPNetwork(self, sizes)


class _ConcatMLPNetwork(nn.Module):
    def __init__(self, system: ConcatMLP, sizes: Sizes) -> None:
        super().__init__()
        dim, layers = sizes.audio_dim + sizes.text_dim, []
        for _ in range(system.layers):
            layers += [
                nn.Linear(dim, system.hidden_dim),
                nn.BatchNorm1d(system.hidden_dim),
                nn.ReLU(),
                nn.Dropout(system.dropout),
            ]
            dim = system.hidden_dim
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear(dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n hidden"]:
        hidden: Tensor = self.hidden(torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=-1))
        return hidden

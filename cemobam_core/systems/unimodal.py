"""Shared base of the systems that use one modality only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.perceptron import hidden_layers
from cemobam_core.systems.search import NETWORK, Space
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class UnimodalMLP(NeuralSystem):
    """A perceptron with one hidden layer on the pooled embedding of one modality.

    Linear, BatchNorm, ReLU, Dropout, then Linear.

    Args:
        hidden_dim: Units of the hidden layer.
        dropout: Dropout probability after the hidden layer.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "baselines"
    search: ClassVar[Space] = NETWORK

    hidden_dim: int = 512
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the perceptron."""
        return _UnimodalNetwork(self, sizes)


class _UnimodalNetwork(nn.Module):
    def __init__(self, system: UnimodalMLP, sizes: Sizes) -> None:
        super().__init__()
        (self.modality,) = system.modalities
        dim = sizes.audio_dim if self.modality == "audio" else sizes.text_dim
        self.hidden = hidden_layers(dim, system.hidden_dim, dropout=system.dropout)
        self.classifier = nn.Linear(system.hidden_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n hidden"]:
        steps = inputs.audio if self.modality == "audio" else inputs.text
        hidden: Tensor = self.hidden(steps.pooled)
        return hidden

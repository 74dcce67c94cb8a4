"""Late fusion: each modality makes a decision, and the decisions are averaged."""

from __future__ import annotations

import math
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
class LateFusion(NeuralSystem):
    r"""Two perceptrons, one per modality, and the mean of their probabilities.

    .. math:: p = \tfrac12 \left(\mathrm{softmax}(f_A(x_A)) + \mathrm{softmax}(f_T(x_T))\right)

    The logits are :math:`\log p`. The networks are those of ``audio_mlp`` and ``text_mlp``. They share no weights.

    In the classical form each network is trained separately. Here both are trained together on the cross entropy of p,
    because the shared training loop has one cross entropy. This maximises the likelihood of p, a mixture with equal
    weights. The gradient of a network is that of its own cross entropy, multiplied for each utterance by the network's
    share of the probability of the correct class. A network therefore learns less where the other network is already
    right.

    Args:
        hidden_dim: Units of the hidden layer of each network.
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
        """Build both networks as one module."""
        return _LateFusionNetwork(self, sizes)


class _LateFusionNetwork(nn.Module):
    def __init__(self, system: LateFusion, sizes: Sizes) -> None:
        super().__init__()
        self.audio = hidden_layers(sizes.audio_dim, system.hidden_dim, dropout=system.dropout)
        self.text = hidden_layers(sizes.text_dim, system.hidden_dim, dropout=system.dropout)
        self.classifier = _MeanOfDecisions(system.hidden_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n width"]:
        return torch.cat([self.audio(inputs.audio.pooled), self.text(inputs.text.pooled)], dim=-1)


class _MeanOfDecisions(nn.Module):
    """The logarithm of the mean probability of two classifiers, each on one half of the input."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.audio = nn.Linear(dim, num_classes)
        self.text = nn.Linear(dim, num_classes)

    def forward(self, both: Float[Tensor, "*r n width"]) -> Float[Tensor, "*r n c"]:
        audio, text = both.chunk(2, dim=-1)
        of_audio, of_text = self.audio(audio).log_softmax(dim=-1), self.text(text).log_softmax(dim=-1)
        return torch.logaddexp(of_audio, of_text) - math.log(2)

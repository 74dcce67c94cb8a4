"""SERVER: both embeddings, projected to the same size and concatenated, through linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.prescribed import ADAM_IN_STEPS
from cemobam_core.systems.search import NETWORK, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class SERVER(NeuralSystem):
    """A linear layer to 128 numbers per modality, concatenation, dropout, and two more linear layers.

    Pham et al., 2023, "SERVER: Multi-modal Speech Emotion Recognition using Transformer-based and Vision-based
    Embeddings". This system follows the authors' code, nhattruongpham/mmser. There are no activations between the
    layers.

    Differences from the code:

    - The audio embedding of the code is VGGish's. It has 128 numbers and is trained with the rest. Here the encoder is
      the study's, its embedding is fixed, and a Linear brings it to the same size as the text's.
    - The code sums over the segments of an audio clip. Here it is the mean over the valid steps.
    - The code measures the weights of the last of its 101 epochs. It steps its schedule before an epoch, not after it.

    Args:
        hidden_dim: Size of each modality before the concatenation.
        classifier_dim: Size after the next layer.
        dropout: Dropout probability of the concatenated modalities.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "paper"
    prescribed: ClassVar[Mapping[str, Value]] = {**ADAM_IN_STEPS, "epochs": 101}
    search: ClassVar[Space] = NETWORK

    hidden_dim: int = 128
    classifier_dim: int = 64
    dropout: float = 0.5

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        return _SERVERNetwork(self, sizes)


class _SERVERNetwork(nn.Module):
    def __init__(self, system: SERVER, sizes: Sizes) -> None:
        super().__init__()
        self.text = nn.Linear(sizes.text_dim, system.hidden_dim)
        self.audio = nn.Linear(sizes.audio_dim, system.hidden_dim)
        self.dropout = nn.Dropout(system.dropout)
        self.hidden = nn.Linear(2 * system.hidden_dim, system.classifier_dim)
        self.classifier = nn.Linear(system.classifier_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n classifier_dim"]:
        both = torch.cat([self.text(inputs.text.pooled), self.audio(inputs.audio.pooled)], dim=-1)
        embedding: Tensor = self.hidden(self.dropout(both))
        return embedding

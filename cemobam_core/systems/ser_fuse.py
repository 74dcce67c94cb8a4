"""SER-Fuse: both embeddings, concatenated, through linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.batched import for_each
from cemobam_core.systems.prescribed import ADAM_IN_STEPS
from cemobam_core.systems.search import NETWORK, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class SERFuse(NeuralSystem):
    """Both pooled embeddings, concatenated: dropout, then three linear layers without activations.

    Pham et al., 2023, "SER-Fuse: An Emotion Recognition Application Utilizing Multi-Modal, Multi-Lingual, and
    Multi-Feature Fusion". This system follows the authors' code, nhattruongpham/SER-Fuse. Without activations between
    the layers, the model is linear in the embeddings: a logistic regression whose weights are a product of matrices.

    Differences from the code: The code keeps an epoch if the training loss and the validation loss are both lower than
    ever before. Here it is the epoch with the best validation WA. The code uses embeddings of ECAPA-TDNN and BERT. Here
    they are those of the study.

    Args:
        hidden_dim: Size after the first layer.
        classifier_dim: Size after the second layer.
        dropout: Dropout probability of the embeddings.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "paper"
    prescribed: ClassVar[Mapping[str, Value]] = {**ADAM_IN_STEPS, "epochs": 200, "weights": "best_epoch"}
    search: ClassVar[Space] = NETWORK

    hidden_dim: int = 256
    classifier_dim: int = 64
    dropout: float = 0.2

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        return _SERFuseNetwork(self, sizes)


class _SERFuseNetwork(nn.Module):
    def __init__(self, system: SERFuse, sizes: Sizes) -> None:
        super().__init__()
        self.dropout = nn.Dropout(system.dropout)
        self.first = nn.Linear(sizes.text_dim + sizes.audio_dim, system.hidden_dim)
        self.second = nn.Linear(system.hidden_dim, system.classifier_dim)
        self.classifier = nn.Linear(system.classifier_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n classifier_dim"]:
        both = torch.cat([inputs.text.pooled, inputs.audio.pooled], dim=-1)
        embedding: Tensor = self.second(self.first(self.dropout(for_each(both, self.first.weight))))
        return embedding

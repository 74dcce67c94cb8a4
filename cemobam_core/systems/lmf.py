"""Low-rank fusion: tensor fusion with a weight tensor of low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.perceptron import UnimodalEncoder
from cemobam_core.systems.prescribed import MERBENCH
from cemobam_core.systems.search import NETWORK, OneOf, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class LMF(NeuralSystem):
    r"""Low-rank multimodal fusion: a linear layer on the outer product of ``tfn``, without computing the product.

    Liu et al., 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", in the form of MERBench's
    toolkit (Lian et al., 2024), here with two modalities. With a weight tensor of rank r,

    .. math:: f = \sum_{i=1}^{r} w_i \, (W_A^{(i)} [1; h_A]) \odot (W_T^{(i)} [1; h_T])

    where h is the output of dropout and three layers (Linear, ReLU) on a pooled embedding, and f has h / 2 numbers. A
    linear layer on f gives the logits. The factor of the 1 is the bias of a layer. The toolkit adds a bias to f. It is
    left out here, because the bias of the next layer makes it redundant.

    The toolkit encodes sequences with an LSTM. Here a sequence is pooled first, as for the other baselines. The toolkit
    keeps the epoch that is best on validation. For each run it draws the learning rate, the size, the rank and the
    dropout from a short list. Here ``--budget`` does that.

    Args:
        hidden_dim: h, the size of an encoded modality, an even number.
        rank: r, the rank of the weight tensor.
        dropout: Dropout probability of the embeddings.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "baselines"
    prescribed: ClassVar[Mapping[str, Value]] = MERBENCH
    search: ClassVar[Space] = {**NETWORK, "rank": OneOf(3, 4, 5, 6)}

    hidden_dim: int = 128
    rank: int = 4
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")
        if self.hidden_dim % 2:
            raise InputError(f"hidden_dim={self.hidden_dim} must be even, because the fused vector has half this size")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        return _LMFNetwork(self, sizes)


class _LMFNetwork(nn.Module):
    def __init__(self, system: LMF, sizes: Sizes) -> None:
        super().__init__()
        h, self.rank = system.hidden_dim, system.rank
        self.audio = UnimodalEncoder(in_dim=sizes.audio_dim, hidden_dim=h, dropout=system.dropout)
        self.text = UnimodalEncoder(in_dim=sizes.text_dim, hidden_dim=h, dropout=system.dropout)
        self.audio_factors = _factors(h, self.rank)
        self.text_factors = _factors(h, self.rank)
        self.sum = nn.Linear(self.rank, 1, bias=False)
        nn.init.normal_(self.sum.weight, std=math.sqrt(2 / (1 + self.rank)))
        self.classifier = nn.Linear(h // 2, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n half_h"]:
        audio = self.audio_factors(self.audio(inputs.audio.pooled))  # (N, h / 2 * rank)
        text = self.text_factors(self.text(inputs.text.pooled))
        products = (audio * text).unflatten(-1, (-1, self.rank))  # (N, h / 2, rank)
        fused: Tensor = self.sum(products).squeeze(-1)
        return fused


def _factors(h: int, rank: int) -> nn.Linear:
    """Build the factors of one modality, initialised as in the toolkit. The factors of the 1 are the bias."""
    made = nn.Linear(h, h // 2 * rank)
    for weight in (made.weight, made.bias):
        # Xavier initialisation of a tensor (rank, h + 1, h / 2): torch treats its last axis as a receptive field.
        nn.init.normal_(weight, std=math.sqrt(2 / (h // 2 * (h + 1 + rank))))
    return made

"""Tensor fusion: every product of one audio feature and one text feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from cemobam_core.fields import check_below_one
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.operators.perceptron import UnimodalEncoder
from cemobam_core.systems.prescribed import MERBENCH
from cemobam_core.systems.search import DROPOUT, TRAINING, OneOf, Space, Value
from cemobam_core.systems.system import NeuralSystem


@dataclass(frozen=True, kw_only=True)
class TFN(NeuralSystem):
    r"""The outer product of both encoded modalities, each with a 1 appended, followed by two hidden layers.

    Zadeh et al., 2017, "Tensor Fusion Network for Multimodal Sentiment Analysis", in the form of MERBench's toolkit
    (Lian et al., 2024), here with two modalities:

    .. math:: Z = [1; h_A] \otimes [1; h_T]

    where h is the output of dropout and three layers (Linear, ReLU) on a pooled embedding. Z has :math:`(h + 1)^2`
    numbers: the products, and each modality by itself. Dropout, Linear, ReLU, Linear, ReLU and Linear follow.

    The toolkit encodes sequences with an LSTM. Here a sequence is pooled first, as for the other baselines. The toolkit
    keeps the epoch that is best on validation. For each run it draws the learning rate, the size and the dropout from a
    short list. Here ``--budget`` does that.

    Args:
        hidden_dim: h, the size of an encoded modality and of the hidden layers.
        dropout: Dropout probability of the embeddings and of the outer product.

    Raises:
        InputError: A value is out of range.
    """

    uses_graph: ClassVar[bool] = False
    group: ClassVar[str] = "baselines"
    prescribed: ClassVar[Mapping[str, Value]] = MERBENCH
    search: ClassVar[Space] = {**TRAINING, "hidden_dim": OneOf(32, 64, 128), "dropout": DROPOUT}

    hidden_dim: int = 128
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the network."""
        return _TFNNetwork(self, sizes)


class _TFNNetwork(nn.Module):
    def __init__(self, system: TFN, sizes: Sizes) -> None:
        super().__init__()
        h, p = system.hidden_dim, system.dropout
        self.audio = UnimodalEncoder(in_dim=sizes.audio_dim, hidden_dim=h, dropout=p)
        self.text = UnimodalEncoder(in_dim=sizes.text_dim, hidden_dim=h, dropout=p)
        self.fused = nn.Sequential(nn.Dropout(p), nn.Linear((h + 1) ** 2, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU())
        self.classifier = nn.Linear(h, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "*r n c"]:
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "*r n h"]:
        audio, text = (
            pad(h, (1, 0), value=1.0) for h in (self.audio(inputs.audio.pooled), self.text(inputs.text.pooled))
        )
        outer = audio.unsqueeze(-1) * text.unsqueeze(-2)  # (N, h + 1, h + 1)
        fused: Tensor = self.fused(outer.flatten(-2))
        return fused

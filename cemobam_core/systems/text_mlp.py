"""A perceptron on the text only: the baseline that shows what the audio adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cemobam_core.systems.unimodal import UnimodalMLP


@dataclass(frozen=True, kw_only=True)
class TextMLP(UnimodalMLP):
    """A perceptron with one hidden layer on the pooled text embedding. The audio is not used.

    Linear, BatchNorm, ReLU, Dropout, then Linear: ``concat_mlp`` on one modality.

    Args:
        hidden_dim: Units of the hidden layer.
        dropout: Dropout probability after the hidden layer.

    Raises:
        InputError: A value is out of range.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)

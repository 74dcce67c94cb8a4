"""A perceptron on the text alone: what the voice must add to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cemobam_core.systems.unimodal import UnimodalMLP


@dataclass(frozen=True, kw_only=True)
class TextMLP(UnimodalMLP):
    """The pooled text embedding through one hidden layer; the audio is not used.

    Linear, BatchNorm, ReLU, Dropout; Linear: ``concat_mlp`` on one modality.

    Args:
        hidden_dim: units of the hidden layer.
        dropout: probability of dropout after it.

    Raises:
        InputError: a value out of range.
    """

    modality: ClassVar[Literal["audio", "text"]] = "text"

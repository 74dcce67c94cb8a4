"""A perceptron on the audio only: the baseline that shows what the text adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cemobam_core.systems.unimodal import UnimodalMLP


@dataclass(frozen=True, kw_only=True)
class AudioMLP(UnimodalMLP):
    """A perceptron with one hidden layer on the pooled audio embedding. The text is not used.

    Linear, BatchNorm, ReLU, Dropout, then Linear: ``concat_mlp`` on one modality.

    Args:
        hidden_dim: Units of the hidden layer.
        dropout: Dropout probability after the hidden layer.

    Raises:
        InputError: A value is out of range.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)

"""Shared base of the graph convolution systems: nodes, layers and classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.fields import check_below_one, check_multiple
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.search import DROPOUT, GRAPH, TRAINING, WIDTH, OneOf, Space
from cemobam_core.systems.system import NeuralSystem

CONVOLUTIONS: Space = {**TRAINING, **GRAPH, "dropout": DROPOUT, "hidden_dim": WIDTH, "layers": OneOf(1, 2, 3)}
"""Search space of graph convolution systems."""


@dataclass(frozen=True, kw_only=True)
class ConvolutionSystem(NeuralSystem):
    """A network of graph convolutions on both pooled embeddings, concatenated.

    Args:
        hidden_dim: Size of a node after a convolution.
        layers: Number of convolutions. Each is followed by batch norm, ReLU and dropout.
        dropout: Dropout probability.

    Raises:
        InputError: A value is out of range.
    """

    group: ClassVar[str] = "graphs"
    search: ClassVar[Space] = CONVOLUTIONS

    hidden_dim: int = 512
    layers: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_below_one(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class AttentionSystem(ConvolutionSystem):
    """A network of graph convolutions with attention whose heads are concatenated.

    Args:
        hidden_dim: Size of a node after a convolution, with all heads concatenated.
        layers: Number of convolutions. Each is followed by batch norm, ReLU and dropout.
        dropout: Dropout probability.
        heads: Number of attention heads.

    Raises:
        InputError: A value is out of range.
    """

    search: ClassVar[Space] = {**CONVOLUTIONS, "heads": OneOf(1, 2, 4, 8)}

    heads: int = 4

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        check_multiple(self, "hidden_dim", "heads")


class ConvolutionNetwork(nn.Module):
    """Graph convolutions, each followed by batch norm, ReLU and dropout, and a linear classifier.

    Args:
        convolution: Function that builds a layer from the sizes of a node before and after it. The layer is called with
            nodes (N, size) and ``edge_index``.
        system: System with its configuration.
        sizes: Sizes of the features.

    Shapes:
        inputs of N utterances → (N, C).
    """

    def __init__(self, convolution: Callable[[int, int], nn.Module], system: ConvolutionSystem, sizes: Sizes) -> None:
        super().__init__()
        dims = [sizes.audio_dim + sizes.text_dim, *[system.hidden_dim] * system.layers]
        self.convolutions = nn.ModuleList(convolution(before, after) for before, after in pairwise(dims))
        self.norms = nn.ModuleList(nn.BatchNorm1d(system.hidden_dim) for _ in range(system.layers))
        self.dropout = nn.Dropout(system.dropout)
        self.classifier = nn.Linear(system.hidden_dim, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """Return the class logits of each utterance, (N, C)."""
        logits: Tensor = self.classifier(self.embedding(inputs))
        return logits

    def embedding(self, inputs: Inputs) -> Float[Tensor, "n hidden"]:
        """Return the input of the classifier, (N, hidden)."""
        nodes = torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=-1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            nodes = self.dropout(norm(convolution(nodes, inputs.edge_index)).relu())
        return nodes

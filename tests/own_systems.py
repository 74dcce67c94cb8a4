"""Systems of a user's own, as the text of the files that define them."""

from __future__ import annotations

GRU = '''\
"""A recurrent network over the steps of each modality."""

from dataclasses import dataclass

import torch
from torch import nn

from cemobam_core import Inputs, NeuralSystem, Sizes


@dataclass(frozen=True)
class GRU(NeuralSystem):
    """The last states of two GRUs, scaled."""

    uses_graph = False

    width: int = 6
    scale: float = 1.0

    def build(self, sizes: Sizes) -> nn.Module:
        return Network(self, sizes)


class Network(nn.Module):
    def __init__(self, system: GRU, sizes: Sizes) -> None:
        super().__init__()
        self.audio = nn.GRU(sizes.audio_dim, system.width, batch_first=True)
        self.text = nn.GRU(sizes.text_dim, system.width, batch_first=True)
        self.register_buffer("scale", torch.tensor(system.scale), persistent=False)
        self.bias = nn.Parameter(torch.zeros(sizes.num_classes))
        self.classifier = nn.Linear(2 * system.width, sizes.num_classes, bias=False)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        states = [gru(x)[1][-1] for gru, x in ((self.audio, inputs.audio), (self.text, inputs.text))]
        return self.classifier(self.scale * torch.cat(states, dim=-1)) + self.bias
'''
"""A neural system with its own parameters, a buffer that is not among its weights, and no graph."""

NEAREST = '''\
"""The nearest neighbours in the training split."""

from dataclasses import dataclass

from sklearn.neighbors import KNeighborsClassifier

from cemobam_core import EstimatorSystem, Sizes


@dataclass(frozen=True)
class Nearest(EstimatorSystem):
    """The classes of the nearest utterances."""

    neighbours: int = 3

    def build(self, sizes: Sizes, seed: int) -> KNeighborsClassifier:
        return KNeighborsClassifier(self.neighbours)
'''
"""A system that scikit-learn fits."""

FILES = {"gru.py:GRU": GRU, "nearest.py:Nearest": NEAREST}
"""Contents of the files, by the name that ``--system`` takes."""

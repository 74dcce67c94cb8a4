"""Label propagation: the baseline that uses the graph without features and without learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import one_hot

from cemobam_core.errors import InputError
from cemobam_core.systems.propagation import PropagationSystem
from cemobam_core.systems.search import GRAPH, Between, OneOf, Space


@dataclass(frozen=True, kw_only=True)
class LabelPropagation(PropagationSystem):
    """Labels of training utterances, propagated along the graph by LabelPropagation of torch-geometric.

    The idea is from Zhu and Ghahramani (2002), in the form of Zhou et al. (2004). Starting from the one-hot known
    labels Y, each step is F ← α D^(-1/2) A D^(-1/2) F + (1 - α) Y, where A is the symmetric graph without self-loops.
    The system is transductive: the evaluation graph is ``joint``. To measure the train split, a fifth of its labels is
    hidden at a time. An utterance that no label reaches gets the class frequencies. Every seed gives the same result.

    Args:
        layers: Number of steps.
        alpha: α, the weight of the neighbours, at most 1.

    Raises:
        InputError: A value is out of range.
    """

    search: ClassVar[Space] = {**GRAPH, "layers": OneOf(1, 2, 3, 5, 10, 20, 50), "alpha": Between(0.1, 0.99)}

    layers: int = 50
    alpha: float = 0.9

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.alpha > 1:
            raise InputError(f"alpha={self.alpha} must be at most 1")

    def propagated(self, edges: Tensor, labels: Tensor, known: Tensor, base: Tensor) -> Tensor:  # noqa: D102
        from torch_geometric.nn import LabelPropagation as Propagate  # noqa: PLC0415  (slow to import)

        made: Tensor = Propagate(self.layers, self.alpha)(one_hot(labels, base.shape[1]).float(), edges, mask=known)
        return made

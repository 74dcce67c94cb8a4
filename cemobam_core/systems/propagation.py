"""Shared base of systems that propagate labels: the symmetric graph, and which labels are known to whom."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.search import Value
from cemobam_core.systems.system import FittedSystem

if TYPE_CHECKING:
    from cemobam_core.graph import GraphConfig

HIDDEN = 5
"""Number of parts of the train split. To measure it, the labels of one part at a time are hidden."""

_MIN_PROBABILITY = 1e-12
"""Lower limit of a probability before its logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class PropagationSystem(FittedSystem):
    """Labels of training utterances, propagated to other utterances along the graph.

    Training labels reach an utterance through the graph, so the graph must contain the training utterances: the
    evaluation graph is ``joint``, and the results are transductive. Labels of validation and test utterances are never
    used, because the fitted function does not receive them. To measure the train split, the labels of a fifth of it
    (rows i, i + 5, …) are hidden at a time, so the graph does not tell an utterance its own label.

    Propagation needs a symmetric graph: two utterances are linked if one of them chose the other. There are no
    self-loops.
    """

    group: ClassVar[str] = "graphs"
    prescribed: ClassVar[dict[str, Value]] = {"evaluation_graph": "joint"}

    @abstractmethod
    def propagated(
        self,
        edges: Int64[Tensor, "2 e"],
        labels: Int64[Tensor, " n"],
        known: Bool[Tensor, " n"],
        base: Float[Tensor, "n c"],
    ) -> Float[Tensor, "n c"]:
        """Return a score of at least 0 for each utterance and class, (N, C). Rows that no label reaches are zero.

        Args:
            edges: (2, E), the symmetric graph without self-loops.
            labels: (N,), labels of the utterances, or 0 if not known.
            known: (N,), whether a label is known.
            base: (N, C), logits of the function that the method ``base`` returned.
        """

    def base(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit a base classifier that labels utterances before the propagation. By default its logits are zeros.

        Args:
            inputs: Inputs of the training utterances.
            labels: (N,), labels of the training utterances.
            sizes: Sizes of the features.
            seed: Seed of all random numbers.
        """
        return lambda inputs: inputs.audio.new_zeros(len(inputs), sizes.num_classes)

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Return a function that propagates the training labels in the graph of the inputs that it receives."""
        return Propagation(self, inputs, labels, sizes.num_classes, self.base(inputs, labels, sizes, seed))

    def check_graph(self, graph: GraphConfig) -> None:
        """Check that validation and test are labelled in a graph that contains the training utterances.

        Raises:
            InputError: It does not contain them, or cannot be made symmetric.
        """
        if graph.evaluation_graph != "joint":
            raise InputError(
                f"evaluation_graph={graph.evaluation_graph}: {type(self).__name__} propagates training labels along "
                "edges in both directions, so all utterances must be ranked together; give evaluation_graph=joint"
            )


@dataclass(frozen=True, eq=False)
class Propagation:
    """A fitted ``PropagationSystem``.

    Attributes:
        system: System with its configuration.
        train: Inputs of the training utterances.
        labels: (N_train,), labels of the training utterances.
        num_classes: C.
        base: Function that returns the logits of the base classifier.
    """

    system: PropagationSystem
    train: Inputs
    labels: Int64[Tensor, " n_train"]
    num_classes: int
    base: Callable[[Inputs], Tensor]

    def __call__(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """Return the logits of N utterances that start with the training utterances.

        Raises:
            InputError: The inputs do not start with the training utterances.
        """
        device, inputs = inputs.audio.device, inputs.to("cpu")
        n_train, n = len(self.labels), len(inputs)
        if not self._begins_with_train(inputs):
            raise InputError(
                f"{type(self.system).__name__} labels utterances in a graph that starts with the {n_train} training "
                "utterances; give evaluation_graph=joint"
            )
        edges, base = symmetric(inputs.edge_index, n), self.base(inputs)
        labels = torch.zeros(n, dtype=torch.int64)
        labels[:n_train] = self.labels.cpu()
        known = torch.arange(n) < n_train
        if n > n_train:
            scores = self.system.propagated(edges, labels, known, base)
        else:
            scores = torch.zeros(n, self.num_classes)
            for part in range(min(HIDDEN, n)):
                hidden = torch.arange(n) % HIDDEN == part
                scores[hidden] = self.system.propagated(edges, labels * ~hidden, ~hidden, base)[hidden]
        frequencies = torch.bincount(self.labels.cpu(), minlength=self.num_classes) / n_train
        total = scores.sum(dim=1, keepdim=True)
        probabilities = torch.where(total > _MIN_PROBABILITY, scores / total.clamp(min=_MIN_PROBABILITY), frequencies)
        return probabilities.clamp(min=_MIN_PROBABILITY).log().to(device)

    def _begins_with_train(self, inputs: Inputs) -> bool:
        n_train = len(self.labels)  # the tolerance is needed because longer padding may change the last bits of a mean
        return len(inputs) >= n_train and all(
            torch.allclose(theirs.pooled[:n_train], ours.pooled.cpu(), rtol=1e-4, atol=1e-5)
            for theirs, ours in ((inputs.audio, self.train.audio), (inputs.text, self.train.text))
        )


def symmetric(edge_index: Int64[Tensor, "2 e"], n: int) -> Int64[Tensor, "2 s"]:
    """Return the edges of a graph in both directions, without duplicates and self-loops.

    Args:
        edge_index: (2, E), edges of any graph.
        n: Number of nodes.
    """
    from torch_geometric.utils import remove_self_loops, to_undirected  # noqa: PLC0415  (slow to import)

    made: Tensor = to_undirected(remove_self_loops(edge_index)[0], num_nodes=n)
    return made

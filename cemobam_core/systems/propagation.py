"""What systems that propagate labels share: the symmetric graph, and who may know whose label."""

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
"""Parts of the train split whose labels are hidden in turn to measure it."""

_LEAST = 1e-12
"""The smallest probability whose logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class PropagationSystem(FittedSystem):
    """Labels of training utterances, propagated to others along the graph.

    An utterance knows training labels through the graph, so training utterances must be in it: the evaluation graph is
    ``joint``, and the figures are transductive. Labels of validation and test utterances are never used: the fitted
    function is given none. To measure the train split, the labels of a fifth of it are hidden at a time (rows i, i + 5,
    …): the graph does not tell an utterance its own label.

    The graph is made symmetric, as the propagation asks: two utterances are linked if one chose the other. It has no
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
        """Return a score of at least 0 for each utterance and class, zeros where the graph tells nothing.

        Args:
            edges: the symmetric graph, without self-loops.
            labels: of N utterances; 0 where they are not known.
            known: whose labels are.
            base: the logits of what :meth:`base` returned.
        """

    def base(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit what labels utterances before anything is propagated; here nothing, whose logits are zeros.

        Args:
            inputs: of the training utterances.
            labels: (N,), theirs.
            sizes: of the features.
            seed: for whatever is random.
        """
        return lambda inputs: inputs.audio.new_zeros(len(inputs), sizes.num_classes)

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Return a function that propagates the labels of these utterances in the graph of the inputs it is given."""
        return Propagation(self, inputs, labels, sizes.num_classes, self.base(inputs, labels, sizes, seed))

    def check_graph(self, graph: GraphConfig) -> None:
        """Check that the training utterances are in the graph that validation and test are labelled in.

        Raises:
            InputError: they are not, or not so that the graph can be made symmetric.
        """
        if graph.evaluation_graph != "joint":
            raise InputError(
                f"evaluation_graph={graph.evaluation_graph}: {type(self).__name__} propagates the labels of training "
                "utterances both ways along the edges, so these must be ranked together; give evaluation_graph=joint"
            )


@dataclass(frozen=True, eq=False)
class Propagation:
    """A fitted :class:`PropagationSystem`.

    Attributes:
        system: with its choices.
        train: the training utterances.
        labels: (N_train,), theirs.
        num_classes: C.
        base: gives the logits of what is fitted before.
    """

    system: PropagationSystem
    train: Inputs
    labels: Int64[Tensor, " n_train"]
    num_classes: int
    base: Callable[[Inputs], Tensor]

    def __call__(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """Return logits of N utterances, of which the first are the training utterances.

        Raises:
            InputError: they are not.
        """
        device, inputs = inputs.audio.device, inputs.to("cpu")
        n_train, n = len(self.labels), len(inputs)
        if not self._begins_with_train(inputs):
            raise InputError(
                f"{type(self.system).__name__} labels utterances in a graph that begins with the {n_train} training "
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
        probabilities = torch.where(total > _LEAST, scores / total.clamp(min=_LEAST), frequencies)
        return probabilities.clamp(min=_LEAST).log().to(device)

    def _begins_with_train(self, inputs: Inputs) -> bool:
        n_train = len(self.labels)  # padding to the longest may change the last bit of a mean
        return len(inputs) >= n_train and all(
            torch.allclose(theirs.pooled[:n_train], ours.pooled.cpu(), rtol=1e-4, atol=1e-5)
            for theirs, ours in ((inputs.audio, self.train.audio), (inputs.text, self.train.text))
        )


def symmetric(edge_index: Int64[Tensor, "2 e"], n: int) -> Int64[Tensor, "2 s"]:
    """Return the edges of a graph both ways, each once, without self-loops.

    Args:
        edge_index: any edges.
        n: how many nodes there are.
    """
    from torch_geometric.utils import remove_self_loops, to_undirected  # noqa: PLC0415  (slow to import)

    made: Tensor = to_undirected(remove_self_loops(edge_index)[0], num_nodes=n)
    return made

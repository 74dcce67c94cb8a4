"""Correct and Smooth: propagate the errors and the predictions of a classifier along the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.logistic import Logistic
from cemobam_core.systems.propagation import PropagationSystem
from cemobam_core.systems.search import GRAPH, Between, OneOf, Space


@dataclass(frozen=True, kw_only=True)
class CorrectAndSmooth(PropagationSystem):
    """Logistic regression, corrected and smoothed along the graph (Huang et al., 2021), from torch-geometric.

    The first step (correct) propagates the errors of the logistic regression on training utterances along the graph and
    corrects the predictions of their neighbours. The second step (smooth) propagates the predictions themselves, with
    the known labels in place of the predictions of training utterances. Both propagate like ``label_propagation``, on
    the symmetric graph without self-loops.

    The system is transductive: the evaluation graph is ``joint``. To measure the train split, the system hides a fifth
    of its labels from the graph at a time, but the logistic regression has seen all of them. Every seed gives the same
    result.

    Args:
        c: Inverse strength of the L2 penalty of the logistic regression.
        correct_layers: Number of propagation steps of the errors.
        correct_alpha: Weight of the neighbours in each step of the errors, at most 1.
        smooth_layers: Number of propagation steps of the predictions.
        smooth_alpha: Weight of the neighbours in each step of the predictions, at most 1.
        autoscale: Whether to scale the propagated errors to the mean size of the known ones. If false, they are
            multiplied by ``scale``, and the known errors are kept fixed in each step.
        scale: See ``autoscale``.

    Raises:
        InputError: A value is out of range.
    """

    search: ClassVar[Space] = {
        **GRAPH,
        "c": Between(1e-5, 10.0, log=True),
        "correct_alpha": Between(0.1, 0.99),
        "smooth_alpha": Between(0.1, 0.99),
        "smooth_layers": OneOf(1, 2, 3, 5, 10, 20, 50),
        "autoscale": OneOf(True, False),
    }

    c: float = 1.0
    correct_layers: int = 50
    correct_alpha: float = 0.8
    smooth_layers: int = 50
    smooth_alpha: float = 0.8
    autoscale: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        Logistic(c=self.c)  # raises an error if c is out of range
        for name in ("correct_alpha", "smooth_alpha"):
            if getattr(self, name) > 1:
                raise InputError(f"{name}={getattr(self, name)} must be at most 1")

    def base(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit the logistic regression."""
        return Logistic(c=self.c).fit(inputs, labels, sizes, seed)

    def propagated(self, edges: Tensor, labels: Tensor, known: Tensor, base: Tensor) -> Tensor:  # noqa: D102
        from torch_geometric.nn import CorrectAndSmooth as Post  # noqa: PLC0415  (slow to import)

        post = Post(
            self.correct_layers,
            self.correct_alpha,
            self.smooth_layers,
            self.smooth_alpha,
            autoscale=self.autoscale,
            scale=self.scale,
        )
        made: Tensor = post(base.softmax(dim=1), labels[known], known, edges)
        return made

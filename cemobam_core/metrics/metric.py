"""The interface of a metric. This module does not import torch, because tables need only names and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Counts of utterances per class, taken from a confusion matrix of C classes, in float64.

    Attributes:
        right: (C,), utterances of the class that are predicted correctly.
        support: (C,), utterances of the class.
        chosen: (C,), utterances that are predicted as the class.
    """

    right: Tensor
    support: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, confusion: Tensor) -> Counts:
        """Return the counts of a (C, C) matrix. The row is the label, the column is the prediction."""
        matrix = confusion.double()
        return cls(right=matrix.diagonal(), support=matrix.sum(dim=1), chosen=matrix.sum(dim=0))

    @property
    def f1(self) -> Tensor:
        """The F1 of each class, (C,): 2 TP / (2 TP + FP + FN), or 0 if the class is neither a label nor predicted."""
        return 2 * self.right / (self.support + self.chosen).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of labelling quality between 0 and 1. Higher is better.

    Attributes:
        label: Name in tables and figures.
        about: Short description.
        place: Position among the metrics, from the left.
        of: Function that computes the metric from counts.
    """

    label: str
    about: str
    place: int
    of: Callable[[Counts], Tensor]

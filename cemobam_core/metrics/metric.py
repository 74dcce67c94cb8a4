"""What a metric is. It does not import torch: names and labels are needed where nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """What a confusion matrix says of each of C classes, in float64.

    Attributes:
        right: (C,), utterances of the class that were taken for it.
        support: (C,), utterances of the class.
        chosen: (C,), utterances that were taken for it.
    """

    right: Tensor
    support: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, confusion: Tensor) -> Counts:
        """Return the counts of a (C, C) matrix: row the label, column the prediction."""
        matrix = confusion.double()
        return cls(right=matrix.diagonal(), support=matrix.sum(dim=1), chosen=matrix.sum(dim=0))

    @property
    def f1(self) -> Tensor:
        """(C,), the F1 of each class: 2 TP / (2 TP + FP + FN), 0 where the class is neither there nor chosen."""
        return 2 * self.right / (self.support + self.chosen).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A share of 0 to 1 that says how well utterances are labelled; more is better.

    Attributes:
        label: as tables and figures show it.
        about: what it is, in words.
        place: where it stands among the others, from the left.
        of: computes it.
    """

    label: str
    about: str
    place: int
    of: Callable[[Counts], Tensor]

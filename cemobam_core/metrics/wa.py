"""Weighted accuracy: plain accuracy, in which each class is weighted by its number of utterances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cemobam_core.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from torch import Tensor


def weighted_accuracy(counts: Counts) -> Tensor:
    """Return the share of utterances that are labelled correctly."""
    return counts.right.sum() / counts.support.sum()


METRIC = Metric(label="WA", about="accuracy", place=1, of=weighted_accuracy)

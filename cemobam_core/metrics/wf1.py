"""Weighted F1: the mean F1 over classes, weighted by the number of utterances of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cemobam_core.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from torch import Tensor


def weighted_f1(counts: Counts) -> Tensor:
    """Return the mean F1 over classes, weighted by support."""
    return (counts.f1 * counts.support).sum() / counts.support.sum()


METRIC = Metric(label="w-F1", about="F1 weighted by support", place=3, of=weighted_f1)

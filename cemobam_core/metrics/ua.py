"""Unweighted accuracy: the mean recall over classes (Schuller et al., 2009)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cemobam_core.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from torch import Tensor


def unweighted_accuracy(counts: Counts) -> Tensor:
    """Return the mean recall over the classes that have an utterance."""
    present = counts.support > 0
    return (counts.right[present] / counts.support[present]).mean()


METRIC = Metric(label="UA", about="mean recall over classes", place=2, of=unweighted_accuracy)

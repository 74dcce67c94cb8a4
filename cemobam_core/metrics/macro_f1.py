"""Macro F1: the mean F1 over classes, as the authors' released code and EmoBox report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cemobam_core.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from torch import Tensor


def macro_f1(counts: Counts) -> Tensor:
    """Return the mean F1 over the classes that occur as a label or as a prediction, as scikit-learn does."""
    present = counts.support + counts.chosen > 0
    return counts.f1[present].mean()


METRIC = Metric(label="macro F1", about="F1, mean over classes", place=4, of=macro_f1)

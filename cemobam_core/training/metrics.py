"""The measurements on one split: the loss, and every metric of the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cemobam_core.metrics import METRICS
from cemobam_core.metrics.metric import Counts
from cemobam_core.operators.precision import at_least_fp32

LABELS_IN_A_BYTE = 255
"""Largest number of classes for which the index of a class fits into one byte."""


@dataclass(frozen=True)
class Metrics:
    """The measurements on one split. Every metric of ``METRICS`` is also an attribute, for example ``metrics.wa``.

    Attributes:
        loss: Mean cross entropy, in nats.
        scores: Metrics by name, as in ``METRICS``.
        confusion: C rows of C numbers of utterances. The row is the label, the column is the prediction.
        predicted: Index of the predicted class of each utterance, one byte each. Empty if there are more than
            ``LABELS_IN_A_BYTE`` classes.
        logits: (N, C), the logits from which everything else was computed.
    """

    loss: float
    scores: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]
    predicted: bytes = field(default=b"", repr=False)
    logits: Tensor | None = field(default=None, repr=False, compare=False)

    def __getattr__(self, name: str) -> float:
        """Return a metric by its name.

        Raises:
            AttributeError: There is no metric of this name.
        """
        scores = self.__dict__.get("scores", {})
        if name not in scores:
            raise AttributeError(f"no metric is called {name!r}; choose from {', '.join(scores)}")
        score: float = scores[name]
        return score


def confusion_matrix(
    labels: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], num_classes: int
) -> Int64[Tensor, "c c"]:
    """Return the (C, C) numbers of utterances. The row is the label, the column is the prediction."""
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metrics_from_logits(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Metrics:
    """Compute all metrics of one split from its (N, C) logits and (N,) labels."""
    predicted = logits.argmax(dim=1)
    confusion = confusion_matrix(labels, predicted, logits.shape[1])
    counts = Counts.of(confusion)
    return Metrics(
        loss=torch.nn.functional.cross_entropy(at_least_fp32(logits), labels).item(),
        scores={name: metric.of(counts).item() for name, metric in METRICS.items()},
        confusion=tuple(map(tuple, confusion.tolist())),
        predicted=predicted.byte().cpu().numpy().tobytes() if logits.shape[1] <= LABELS_IN_A_BYTE else b"",
        logits=logits,
    )

"""What is measured on one split: the loss, and every metric of the confusion matrix."""

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
"""Classes at most whose index is kept in a byte."""


@dataclass(frozen=True)
class Metrics:
    """What is measured on one split. Every metric of :data:`METRICS` is an attribute too: ``metrics.wa``.

    Attributes:
        loss: mean cross entropy, in nats.
        scores: by name, as in :data:`METRICS`.
        confusion: C rows of C counts of utterances: row the label, column the prediction.
        predicted: the index of the predicted class of each utterance, a byte each; empty with more than
            :data:`LABELS_IN_A_BYTE` classes.
        logits: (N, C), of which all this was measured.
    """

    loss: float
    scores: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]
    predicted: bytes = field(default=b"", repr=False)
    logits: Tensor | None = field(default=None, repr=False, compare=False)

    def __getattr__(self, name: str) -> float:
        """Return a metric by its name.

        Raises:
            AttributeError: there is no such metric.
        """
        scores = self.__dict__.get("scores", {})
        if name not in scores:
            raise AttributeError(f"no metric is called {name!r}; there are {', '.join(scores)}")
        score: float = scores[name]
        return score


def confusion_matrix(
    labels: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], num_classes: int
) -> Int64[Tensor, "c c"]:
    """Return counts of utterances: row the label, column the prediction."""
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metrics_from_logits(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Metrics:
    """Return all metrics of one split."""
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

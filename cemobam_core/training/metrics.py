"""WA, UA and w-F1, as the field defines them, from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """What is measured on one split.

    Attributes:
        loss: mean cross entropy, in nats.
        wa: weighted accuracy: the share of utterances that are right.
        ua: unweighted accuracy: the mean over classes of each class's recall (Schuller et al., 2009).
        wf1: F1 of each class, averaged with the class's number of utterances as weight.
        confusion: C rows of C counts of utterances: row the label, column the prediction.
    """

    loss: float
    wa: float
    ua: float
    wf1: float
    confusion: tuple[tuple[int, ...], ...]


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """What a bfloat16 product gave in float32, in which sums and losses are taken; anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def confusion_matrix(
    labels: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], num_classes: int
) -> Int64[Tensor, "c c"]:
    """Counts of utterances: row the label, column the prediction."""
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def metrics_from_logits(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Metrics:
    """All metrics of one split.

    Classes without an utterance do not count in UA; w-F1 weighs them with zero anyway.
    """
    counts = confusion_matrix(labels, logits.argmax(dim=1), logits.shape[1])
    confusion = counts.double()
    right, support, chosen = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    present = support > 0
    f1 = 2 * right / (support + chosen).clamp(min=1)
    return Metrics(
        loss=torch.nn.functional.cross_entropy(at_least_fp32(logits), labels).item(),
        wa=(right.sum() / support.sum()).item(),
        ua=(right[present] / support[present]).mean().item(),
        wf1=((f1 * support).sum() / support.sum()).item(),
        confusion=tuple(map(tuple, counts.tolist())),
    )

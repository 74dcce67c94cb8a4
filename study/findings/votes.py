"""The vote of a configuration's seeds: the scores of their ensemble, and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from study.findings.errors import FEWEST_UTTERANCES, predictions_of
from study.findings.luck import vote
from study.findings.results import AboutBlock, Results
from study.findings.statistics import LEVEL
from study.ledger.outcomes import Metric

VOTERS = 3
"""Smallest number of seeds that vote. Two seeds that disagree have no majority."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The labels that most seeds of a configuration predict, as one labelling.

    Attributes:
        seeds: Number of seeds that vote.
        scores: Metrics of the vote.
        means: Mean metrics of the single seeds.
        low: Lower end of the 95% interval, over other utterances, of the vote's gain in WA.
        high: Upper end of that interval.
    """

    seeds: int
    scores: Mapping[Metric, float]
    means: Mapping[Metric, float]
    low: float
    high: float

    @property
    def gains(self) -> dict[Metric, float]:
        """The metrics of the vote minus the means of its seeds."""
        return {name: score - self.means[name] for name, score in self.scores.items()}


def vote_of(results: Results, block: AboutBlock) -> Vote | None:
    """Return the vote of the seeds of a block's reference.

    Args:
        results: Results of the study.
        block: Block of the study.

    Returns:
        The vote, or `None` if fewer than :data:`VOTERS` complete seeds have predictions.
    """
    kept = results.kept
    predicted = predictions_of(results, block.rows[block.reference], block.seeds)
    if kept is None or predicted is None or len(predicted) < VOTERS:
        return None
    labels, folds = (kept.utterances[name].to_numpy() for name in ("label", "fold"))
    num_classes = int(max(labels.max(), predicted.max())) + 1
    voted = vote(predicted, num_classes)
    every = [scores(one, labels, folds, num_classes) for one in predicted]
    gain = (voted == labels) - (predicted == labels).mean(axis=0)
    half = np.nan
    if len(gain) >= FEWEST_UTTERANCES:
        half = float(stats.t.ppf(1 - LEVEL / 2, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
    return Vote(
        seeds=len(predicted),
        scores=scores(voted, labels, folds, num_classes),
        means={name: float(np.mean([one[name] for one in every])) for name in every[0]},
        low=float(gain.mean()) - half,
        high=float(gain.mean()) + half,
    )


def scores(
    predicted: npt.NDArray[Any], labels: npt.NDArray[Any], folds: npt.NDArray[Any], num_classes: int
) -> dict[Metric, float]:
    """Return every metric of a labelling, as the mean over folds.

    Args:
        predicted: (U,), predicted classes.
        labels: (U,), true classes.
        folds: (U,), the fold that tests each utterance.
        num_classes: C, the number of classes.
    """
    import torch  # noqa: PLC0415  (slow to import)

    from cemobam_core.metrics import METRICS  # noqa: PLC0415
    from cemobam_core.metrics.metric import Counts  # noqa: PLC0415

    cells = labels.astype(np.int64) * num_classes + predicted
    confusions = [np.bincount(cells[folds == fold], minlength=num_classes**2) for fold in np.unique(folds)]
    counts = [Counts.of(torch.from_numpy(one.reshape(num_classes, num_classes))) for one in confusions]
    return {name: float(np.mean([metric.of(one).item() for one in counts])) for name, metric in METRICS.items()}

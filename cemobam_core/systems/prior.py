"""The class frequencies: the baseline that uses neither audio nor text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cemobam_core.inputs import Sizes
from cemobam_core.systems.system import EstimatorSystem


@dataclass(frozen=True, kw_only=True)
class Prior(EstimatorSystem):
    """The class frequencies of the training labels for every utterance (scikit-learn's ``DummyClassifier``).

    It predicts the most frequent class. Its loss is the entropy of the labels, and a useful system must have a lower
    loss. It has no settings, and every seed gives the same result.
    """

    group: ClassVar[str] = "baselines"

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Build the estimator."""
        from sklearn.dummy import DummyClassifier  # noqa: PLC0415

        return DummyClassifier(strategy="prior")

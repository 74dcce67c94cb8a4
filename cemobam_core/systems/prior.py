"""The frequencies of the classes: what a system gets right without listening or reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cemobam_core.inputs import Sizes
from cemobam_core.systems.system import EstimatorSystem


@dataclass(frozen=True, kw_only=True)
class Prior(EstimatorSystem):
    """Every utterance has the frequencies of the training labels (scikit-learn's ``DummyClassifier``).

    Its prediction is the most frequent class, and its loss the entropy of the labels, which a system must get below. It
    has no settings, and every seed gives the same.
    """

    group: ClassVar[str] = "baselines"

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Return the estimator."""
        from sklearn.dummy import DummyClassifier  # noqa: PLC0415

        return DummyClassifier(strategy="prior")

"""Logistic regression on both embeddings: the simplest baseline that a model must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.search import Between, Space
from cemobam_core.systems.system import EstimatorSystem

if TYPE_CHECKING:
    from torch import Tensor

    from cemobam_core.training.estimators import FittedEstimator


@dataclass(frozen=True, kw_only=True)
class Logistic(EstimatorSystem):
    """Logistic regression on both pooled embeddings, standardised and concatenated.

    It is multinomial, with an L2 penalty. It finds the minimum of scikit-learn's ``LogisticRegression`` in fewer steps
    (see ``cemobam_core.training.linear``). The problem is convex, so every seed finds the same weights, and the results
    do not vary between seeds.

    Args:
        c: Inverse strength of the L2 penalty (``C`` in scikit-learn).
        max_iter: Largest number of L-BFGS steps.

    Raises:
        InputError: A value is out of range.
    """

    version: ClassVar[int] = 2
    group: ClassVar[str] = "baselines"
    search: ClassVar[Space] = {"c": Between(1e-5, 10.0, log=True)}

    c: float = 1.0
    max_iter: int = 1000

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.c <= 0:
            raise InputError(f"c={self.c} must be above 0")

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Build the scikit-learn estimator that will hold the weights."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        return LogisticRegression(C=self.c, max_iter=self.max_iter, random_state=seed)

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> FittedEstimator:
        """Fit the weights. The estimator holds weights for the original embeddings, which are not standardised."""
        from cemobam_core.training import linear  # noqa: PLC0415
        from cemobam_core.training.estimators import FittedEstimator  # noqa: PLC0415

        x, estimator = torch.from_numpy(self.matrix(inputs)), self.build(sizes, seed)
        classes, known = labels.cpu().unique(return_inverse=True)
        # For two classes scikit-learn holds one row of weights: the difference, on which the penalty acts.
        c = self.c / 2 if len(classes) == 2 else self.c
        weights, bias, steps = linear.fit(x, known, len(classes), loss="cross_entropy", c=c, max_iter=self.max_iter)
        if len(classes) == 2:
            weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
        estimator.classes_ = classes.numpy()
        estimator.coef_, estimator.intercept_ = weights.numpy(), bias.numpy()
        estimator.n_iter_, estimator.n_features_in_ = np.array([steps]), x.shape[1]
        return FittedEstimator(self, estimator, sizes.num_classes)

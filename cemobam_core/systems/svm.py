"""A linear support vector machine on both embeddings."""

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
    import numpy.typing as npt
    from torch import Tensor

    from cemobam_core.training.estimators import FittedEstimator


@dataclass(frozen=True, kw_only=True)
class SVM(EstimatorSystem):
    """A linear support vector machine (Cortes and Vapnik, 1995) on both pooled embeddings, standardised, concatenated.

    There is one machine per class against all other classes, with the squared hinge loss. It solves the problem of
    scikit-learn's ``LinearSVC``, except for the penalty on the bias, in a hundredth of the time (see
    ``cemobam_core.training.linear``). A machine gives decision values instead of probabilities. The probabilities here
    are the softmax of the decision values. The predicted class has the largest value, as usual, but the loss means
    little. Every seed gives the same result.

    Args:
        c: Inverse strength of the L2 penalty (``C`` in scikit-learn).
        max_iter: Largest number of L-BFGS steps.

    Raises:
        InputError: A value is out of range.
    """

    group: ClassVar[str] = "baselines"
    search: ClassVar[Space] = {"c": Between(1e-6, 0.1, log=True)}

    c: float = 0.01
    max_iter: int = 1000

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.c <= 0:
            raise InputError(f"c={self.c} must be above 0")

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Build the scikit-learn estimator that will hold the weights."""
        from sklearn.svm import LinearSVC  # noqa: PLC0415

        return LinearSVC(C=self.c, max_iter=self.max_iter, random_state=seed)

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> FittedEstimator:
        """Fit the weights. The estimator holds weights for the original embeddings, which are not standardised."""
        from cemobam_core.training import linear  # noqa: PLC0415
        from cemobam_core.training.estimators import FittedEstimator  # noqa: PLC0415

        x, estimator = torch.from_numpy(self.matrix(inputs)), self.build(sizes, seed)
        classes, known = labels.cpu().unique(return_inverse=True)
        weights, bias, steps = linear.fit(
            x, known, len(classes), loss="squared_hinge", c=self.c, max_iter=self.max_iter
        )
        estimator.classes_ = classes.numpy()
        estimator.coef_, estimator.intercept_ = weights.numpy(), bias.numpy()
        estimator.n_iter_, estimator.n_features_in_ = steps, x.shape[1]
        return FittedEstimator(self, estimator, sizes.num_classes)

    def probabilities(self, estimator: Any, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the softmax of the decision values."""
        from scipy.special import softmax  # noqa: PLC0415

        return np.asarray(softmax(matrix @ estimator.coef_.T + estimator.intercept_, axis=1))

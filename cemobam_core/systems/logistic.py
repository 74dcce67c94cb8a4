"""Logistic regression on both embeddings: the least that a model must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.inputs import Sizes
from cemobam_core.systems.system import EstimatorSystem


@dataclass(frozen=True, kw_only=True)
class Logistic(EstimatorSystem):
    """Logistic regression on both pooled embeddings, standardised and concatenated (scikit-learn's).

    It is convex: every seed finds the same weights, so its figures do not vary over seeds.

    Args:
        c: the inverse strength of the L2 penalty (scikit-learn's ``C``).
        max_iter: steps of L-BFGS at most.

    Raises:
        InputError: a value out of range.
    """

    c: float = 1.0
    max_iter: int = 1000

    def __post_init__(self) -> None:  # noqa: D105
        super().__post_init__()
        if self.c <= 0:
            raise InputError(f"c={self.c} must be above 0")

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Return the pipeline."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        return make_pipeline(StandardScaler(), LogisticRegression(C=self.c, max_iter=self.max_iter, random_state=seed))

"""Nearest neighbours by both embeddings: the baseline that uses neighbours without learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.search import OneOf, Space
from cemobam_core.systems.system import EstimatorSystem

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class KNN(EstimatorSystem):
    """The labels of the nearest training utterances (Cover and Hart, 1967) by both pooled embeddings.

    The embeddings are standardised on train and concatenated, and scikit-learn finds the neighbours. The probability of
    a class is its share of the neighbours. An utterance of the train split is its own nearest neighbour, so the results
    on train are too good. Every seed gives the same result.

    Args:
        neighbours: k, the number of neighbours. If there are fewer training utterances, all are used.
        metric: Distance measure: ``cosine`` or ``euclidean``.
        weights: Weights of the neighbours: ``uniform``, or by the inverse of their ``distance``.

    Raises:
        InputError: A value is out of range.
    """

    group: ClassVar[str] = "baselines"
    search: ClassVar[Space] = {
        "neighbours": OneOf(1, 3, 5, 10, 15, 25, 50, 100),
        "metric": OneOf("cosine", "euclidean"),
        "weights": OneOf("uniform", "distance"),
    }

    neighbours: int = 15
    metric: Literal["cosine", "euclidean"] = "cosine"
    weights: Literal["uniform", "distance"] = "uniform"

    def build(self, sizes: Sizes, seed: int) -> Any:
        """Build the scikit-learn pipeline."""
        from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        knn = KNeighborsClassifier(self.neighbours, metric=self.metric, weights=self.weights, algorithm="brute")
        return make_pipeline(StandardScaler(), knn)

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit the pipeline."""
        return super(KNN, replace(self, neighbours=min(self.neighbours, len(labels)))).fit(inputs, labels, sizes, seed)

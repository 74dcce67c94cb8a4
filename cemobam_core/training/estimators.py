"""Systems that are fitted by scikit-learn, in one call instead of a training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.systems.system import EstimatorSystem

_MIN_PROBABILITY = 1e-12
"""Lower limit of a probability before its logarithm is taken."""


@dataclass(frozen=True, eq=False)
class FittedEstimator:
    """A fitted estimator, which is called like a trained module.

    Attributes:
        system: System that built the estimator.
        estimator: The scikit-learn estimator.
        num_classes: C.
    """

    system: EstimatorSystem
    estimator: Any
    num_classes: int

    @classmethod
    def fit(cls, system: EstimatorSystem, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> FittedEstimator:
        """Fit the estimator of a system.

        Args:
            system: System with its configuration.
            inputs: Inputs of N utterances.
            labels: (N,), labels of the utterances.
            sizes: Sizes of the features.
            seed: Seed of the estimator's random state.
        """
        estimator = system.build(sizes, seed)
        estimator.fit(system.matrix(inputs), labels.cpu().numpy())
        return cls(system, estimator, sizes.num_classes)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """Return the logarithm of each class's probability, (N, C). A softmax of it returns the probabilities.

        Raises:
            InputError: The estimator does not return a probability for every class that it has seen.
        """
        probabilities = np.asarray(self.system.probabilities(self.estimator, self.system.matrix(inputs)))
        classes = np.asarray(getattr(self.estimator, "classes_", ()), dtype=int)
        wanted = (len(inputs), len(classes))
        if probabilities.shape != wanted or not np.isfinite(probabilities).all():
            raise InputError(
                f"{type(self.system).__name__}: predict_proba returned {probabilities.shape}, or a value that is not "
                f"finite; it must return {wanted}: a probability for each utterance and each class in classes_"
            )
        logits = np.full((len(inputs), self.num_classes), np.log(_MIN_PROBABILITY))
        logits[:, classes] = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
        return torch.from_numpy(logits).float().to(inputs.audio.device)

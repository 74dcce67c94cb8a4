"""Systems that scikit-learn fits: one call instead of a loop."""

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

_LEAST = 1e-12
"""The smallest probability whose logarithm is taken."""


@dataclass(frozen=True, eq=False)
class FittedEstimator:
    """A fitted estimator, called as a trained module is.

    Attributes:
        system: what made it.
        estimator: scikit-learn's.
        num_classes: C.
    """

    system: EstimatorSystem
    estimator: Any
    num_classes: int

    @classmethod
    def fit(cls, system: EstimatorSystem, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> FittedEstimator:
        """Fit a system's estimator.

        Args:
            system: with its choices.
            inputs: of N utterances.
            labels: (N,), theirs.
            sizes: of the features.
            seed: for its random state.
        """
        estimator = system.build(sizes, seed)
        estimator.fit(system.matrix(inputs), labels.cpu().numpy())
        return cls(system, estimator, sizes.num_classes)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """Return the logarithm of each class's probability, (N, C); a softmax gives the probabilities back.

        Raises:
            InputError: an estimator that does not give a probability for every class that it has seen.
        """
        probabilities = np.asarray(self.system.probabilities(self.estimator, self.system.matrix(inputs)))
        classes = np.asarray(getattr(self.estimator, "classes_", ()), dtype=int)
        wanted = (len(inputs), len(classes))
        if probabilities.shape != wanted or not np.isfinite(probabilities).all():
            raise InputError(
                f"{type(self.system).__name__}: predict_proba gave {probabilities.shape}, or a value that is no "
                f"number; it must give {wanted}: a probability for each utterance and each of the estimator's classes_"
            )
        logits = np.full((len(inputs), self.num_classes), np.log(_LEAST))
        logits[:, classes] = np.log(np.maximum(probabilities, _LEAST))
        return torch.from_numpy(logits).float().to(inputs.audio.device)

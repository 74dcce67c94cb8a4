"""Linear classifiers with an L2 penalty, fitted in the principal axes of the training utterances.

On embeddings the problem is ill-conditioned: plain L-BFGS takes hundreds of passes over the data. In the principal axes
the second derivatives at the origin are a diagonal. Scaled by it, L-BFGS takes ten to thirty passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cemobam_core.errors import InputError

TOLERANCE = 1e-5
"""What a Newton step would still take off the objective, as a share of it, at which it stops.

The step is that with the second derivatives at the origin, so this is an estimate. On features like those of IEMOCAP at
most one of 551 utterances has another label than at the minimum, and probabilities differ by 0.001 in the mean.
"""

_MEMORY = 400_000_000
"""Bytes of axes that a process keeps for its next trials; the last ones are kept in any case."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Features, standardised and turned into their principal axes.

    Attributes:
        x: (N, E), as they were given.
        mean: (E,), of each feature.
        scale: (E,), the standard deviation of each; 1 where a feature is constant.
        rotation: (E, E), a column an axis.
        variances: (E,), along the axes.
        turned: (N, E), the standardised features along the axes.
    """

    x: Float[Tensor, "n e"]
    mean: Float[Tensor, " e"]
    scale: Float[Tensor, " e"]
    rotation: Float[Tensor, "e e"]
    variances: Float[Tensor, " e"]
    turned: Float[Tensor, "n e"]

    @classmethod
    def of(cls, x: Float[Tensor, "n e"]) -> Axes:
        """Return the axes of features. Those of the last features are kept: the trials of a study share them."""
        with _LOCK:
            for axes in _KEPT:
                if axes.x.dtype == x.dtype and np.array_equal(axes.x.numpy(), x.numpy()):
                    return axes
            made = cls._made(x)
            _KEPT.insert(0, made)
            while len(_KEPT) > 1 and sum(axes._bytes for axes in _KEPT) > _MEMORY:
                _KEPT.pop()
            return made

    @classmethod
    def _made(cls, x: Tensor) -> Axes:
        mean = x.mean(dim=0)
        standard = x - mean
        scale = standard.square().mean(dim=0).sqrt()
        scale[scale <= 10 * torch.finfo(x.dtype).eps * mean.abs()] = 1.0  # constant, but for rounding
        standard /= scale
        variances, rotation = torch.linalg.eigh(standard.T @ standard / len(x))
        return cls(x.clone(), mean, scale, rotation, variances.clamp(min=0), standard @ rotation)

    @property
    def _bytes(self) -> int:
        return sum(one.nbytes for one in (self.x, self.turned, self.rotation))


_KEPT: list[Axes] = []
_LOCK = Lock()


@dataclass(frozen=True)
class Loss:
    """A loss of the scores that a linear classifier gives each class.

    Attributes:
        of: returns the sum over utterances and its derivatives, (C, N), given the scores (C, N) and the labels as ones
            and zeros (C, N).
        curvature: its second derivative by the score of a class at the origin, for a number of classes.
    """

    of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    curvature: Callable[[int], float]


def _cross_entropy(scores: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    log_p = scores.log_softmax(dim=0)
    return -(log_p * wanted).sum(), log_p.exp() - wanted


def _squared_hinge(scores: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    sign = 2 * wanted - 1
    missing = (1 - sign * scores).clamp(min=0)
    return missing.square().sum(), -2 * sign * missing


LOSSES = {
    # On scores that sum to zero over the classes, as those of the minimum do.
    "cross_entropy": Loss(_cross_entropy, lambda num_classes: 1 / num_classes),
    "squared_hinge": Loss(_squared_hinge, lambda _: 2.0),
}


def fit(
    x: Float[Tensor, "n e"],
    labels: Int64[Tensor, " n"],
    num_classes: int,
    *,
    loss: Literal["cross_entropy", "squared_hinge"],
    c: float,
    max_iter: int,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "c e"], Float[Tensor, " c"], int]:
    """Minimise loss / N + ‖W‖² / (2 c N) over the weights W of the standardised features and a bias.

    With the loss ``cross_entropy`` that is multinomial logistic regression. With ``squared_hinge`` it is, for each
    class, a support vector machine of this class against the others.

    Args:
        x: features, not standardised.
        labels: of the utterances, 0 to C - 1.
        num_classes: C.
        loss: summed over utterances.
        c: the inverse strength of the penalty.
        max_iter: steps of L-BFGS at most.
        tolerance: what a Newton step would still take off the objective, as a share of it, at which it stops.

    Returns:
        Weights and bias for features as they are given, not standardised, and the steps that were taken.

    Raises:
        InputError: features that are no finite numbers, or labels of one class alone.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  (slow to import)

    if not torch.isfinite(x.sum()):
        raise InputError("the features hold NaN or infinity; a linear classifier needs finite numbers")
    if num_classes < 2:
        raise InputError("all training utterances have the same label; a linear classifier needs two classes")
    axes, penalty, criterion = Axes.of(x), 1 / (c * len(x)), LOSSES[loss]
    unit = (axes.variances * criterion.curvature(num_classes) + penalty).rsqrt()
    wanted = torch.nn.functional.one_hot(labels, num_classes).T.to(x.dtype).contiguous()  # (C, N)
    left, step = np.inf, 1.0

    def weights_of(flat: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        both = torch.from_numpy(step * flat).to(x.dtype).view(num_classes, -1)
        return both[:, :-1] * unit, both[:, -1:]

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        nonlocal left
        weights, bias = weights_of(flat)
        total, error = criterion.of(torch.addmm(bias, weights, axes.turned.T), wanted)  # of scores (C, N)
        error = error / len(x)
        slope, of_bias = error @ axes.turned + penalty * weights, error.sum(dim=1, keepdim=True)
        gradient = torch.cat([slope * unit, of_bias], dim=1).double().flatten()
        value = (total / len(x) + penalty / 2 * weights.square().sum()).item()
        left = (gradient @ gradient).item() / 2 / value
        return value, (step * gradient).numpy()

    def stop(_: npt.NDArray[np.float64]) -> None:
        if left <= tolerance:
            raise StopIteration

    start = np.zeros(num_classes * (len(unit) + 1))
    # SciPy's first step has length 1. In these units that is Newton's step from the origin.
    step = max(float(np.linalg.norm(objective(start)[1])), 1e-12)
    options = {"maxiter": max_iter, "ftol": 0.0, "gtol": 0.0}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
    weights, bias = weights_of(found.x)
    weights = weights @ axes.rotation.T / axes.scale
    return weights, bias.squeeze(1) - weights @ axes.mean, int(found.nit)

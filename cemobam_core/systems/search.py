"""Search spaces: the values of a setting that tuning may try (``--budget``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cemobam_core.errors import InputError

Value = int | float | bool | str
"""What a setting may be."""


@dataclass(frozen=True)
class Between:
    """Real numbers between two ends, both included.

    Args:
        low: the smallest.
        high: the largest.
        log: whether every decade is as likely as any other; if not, every number is.

    Raises:
        InputError: ends that are not finite or not in order; ``log`` with an end that is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:  # noqa: D105
        ends = f"Between({self.low}, {self.high})"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"{ends}: give two finite numbers, the smaller one first")
        if self.log and self.low <= 0:
            raise InputError(f"{ends}: with log=True both ends must be above 0")


@dataclass(frozen=True, init=False)
class OneOf:
    """One of some values: numbers in ascending order, or names, or True and False.

    Args:
        values: at least two, all different.

    Raises:
        InputError: fewer than two values, or one twice.
    """

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        object.__setattr__(self, "values", values)
        if len(set(values)) < max(2, len(values)):
            raise InputError(f"OneOf{values!r}: give at least two values, each once")


Space = Mapping[str, Between | OneOf]
"""By the name of a setting of the system, its training or its graph, the values that are tried."""

LEARNING_RATE = Between(1e-5, 1e-2, log=True)
"""What neural systems search, unless they say otherwise: full-batch steps are few, so large rates are among them."""

WEIGHT_DECAY = Between(1e-6, 1e-2, log=True)
DROPOUT = Between(0.0, 0.6)
WIDTH = OneOf(64, 128, 256, 512)
NEIGHBOURS = OneOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
"""K, as in the paper's grid."""

TRAINING: Space = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
GRAPH: Space = {"k_audio": NEIGHBOURS, "k_text": NEIGHBOURS}

NETWORK: Space = {**TRAINING, "hidden_dim": WIDTH, "dropout": DROPOUT}
"""What a network with one width and one dropout searches."""

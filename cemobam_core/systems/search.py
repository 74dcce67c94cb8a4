"""Search spaces: the values of each setting that tuning may try (``--budget``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cemobam_core.errors import InputError

Value = int | float | bool | str
"""Type of a setting's value."""


@dataclass(frozen=True)
class Between:
    """Real numbers between two limits, both included.

    Args:
        low: Lower limit.
        high: Upper limit.
        log: Whether to search on a logarithmic scale, on which every decade is equally likely.

    Raises:
        InputError: The limits are not finite or not in order, or ``log`` is set and a limit is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:  # noqa: D105
        ends = f"Between({self.low}, {self.high})"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"{ends}: give two finite numbers, the smaller one first")
        if self.log and self.low <= 0:
            raise InputError(f"{ends}: with log=True both limits must be above 0")


@dataclass(frozen=True, init=False)
class OneOf:
    """One of several values: numbers in ascending order, names, or True and False.

    Args:
        values: At least two values, all different.

    Raises:
        InputError: There are fewer than two values, or a value is repeated.
    """

    values: tuple[Value, ...]

    def __init__(self, *values: Value) -> None:
        object.__setattr__(self, "values", values)
        if len(set(values)) < max(2, len(values)):
            raise InputError(f"OneOf{values!r}: give at least two values, each once")


Space = Mapping[str, Between | OneOf]
"""Values to try, by the name of a setting of the system, its training or its graph."""

LEARNING_RATE = Between(1e-5, 1e-2, log=True)
"""Default learning rates to search. Full-batch steps are few, so large rates are included."""

WEIGHT_DECAY = Between(1e-6, 1e-2, log=True)
DROPOUT = Between(0.0, 0.6)
WIDTH = OneOf(64, 128, 256, 512)
NEIGHBOURS = OneOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
"""K as in the paper's grid."""

TRAINING: Space = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
GRAPH: Space = {"k_audio": NEIGHBOURS, "k_text": NEIGHBOURS}

NETWORK: Space = {**TRAINING, "hidden_dim": WIDTH, "dropout": DROPOUT}
"""Search space of a network with one width and one dropout."""

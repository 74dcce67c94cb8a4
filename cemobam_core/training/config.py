"""How a system is trained: every number of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cemobam_core.fields import check_fields

Precision = Literal["fp32", "tf32", "bf16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

METHOD_VERSION = 3
"""Part of every trial's signature: raised whenever a change of the shared code changes trials' numbers."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is trained; the defaults are the profile ``paper``.

    Full batch: one step of Adam on the cross entropy of all training utterances is one epoch.

    Args:
        epochs: steps in all.
        weights: which are measured in the end: those after the ``last_epoch``, or those of the ``best_epoch`` by
            validation WA, of equals that with the lower loss, then the earlier one. For the latter validation is
            measured after every epoch.
        lr: Adam's initial learning rate.
        weight_decay: Adam's L2 penalty.
        schedule: the rate is multiplied by ``lr_gamma`` in ``step``s, every ``lr_step`` epochs, or at a ``plateau``,
            when the validation loss has not fallen for ``lr_patience`` epochs.
        lr_step: see ``schedule``.
        lr_gamma: see ``schedule``.
        lr_patience: see ``schedule``.
        train_mode: the model is in training mode (dropout, batch statistics) in ``every_epoch``, or in the
            ``first_epoch`` alone: from the second on it learns in evaluation mode.
        batch_norm: what evaluation normalises with: statistics ``settled`` on the train split under the weights as
            they are, or the ``running`` averages that training left.
        precision: ``fp32``; ``tf32``, matrix products in TF32 (CUDA alone); ``bf16``, autocast to bfloat16.

    Raises:
        InputError: a value out of range.
    """

    epochs: int = 100
    weights: Literal["last_epoch", "best_epoch"] = "last_epoch"
    lr: float = 1e-4
    weight_decay: float = 5e-4
    schedule: Literal["step", "plateau"] = "step"
    lr_step: int = 30
    lr_gamma: float = 0.1
    lr_patience: int = 15
    train_mode: Literal["every_epoch", "first_epoch"] = "every_epoch"
    batch_norm: Literal["settled", "running"] = "settled"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)

"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cemobam_core.errors import InputError
from cemobam_core.fields import check_fields

Precision = Literal["fp32", "tf32", "bf16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

METHOD_VERSION = 3
"""Version of the shared training code, part of every trial's signature.

Increase it with every change of the shared code that changes the numbers of trials.
"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of how a model is trained. The defaults are those of the profile ``paper``.

    Training is full batch by default: one epoch is one step of Adam on the cross entropy of all training utterances.

    Args:
        epochs: Number of passes over the training utterances.
        batch: Number of utterances in a mini-batch, so that training needs the memory of so many. 0 for the full batch.
            A graph is cut into mini-batches along its clusters, and edges between mini-batches are left out.
        step_after: When Adam takes a step in mini-batch training: after every ``batch``, or after every ``epoch``, with
            the gradient of the whole train split. The latter needs the neighbours of the neighbours (and so on) of a
            mini-batch too, and is exact if no batch norm and no dropout is in training mode.
        weights: Which weights are measured at the end: those of the ``last_epoch``, or those of the ``best_epoch`` by
            validation WA. Among epochs with equal WA, the one with the lowest loss is best, then the earliest. With
            ``best_epoch``, validation is measured after every epoch.
        lr: Initial learning rate of Adam.
        weight_decay: L2 penalty of Adam.
        schedule: When the learning rate is multiplied by ``lr_gamma``. ``step``: every ``lr_step`` epochs.
            ``plateau``: when the validation loss has not fallen for ``lr_patience`` epochs.
        lr_step: See ``schedule``.
        lr_gamma: See ``schedule``.
        lr_patience: See ``schedule``.
        train_mode: When the model is in training mode (dropout, batch statistics): in ``every_epoch``, or in the
            ``first_epoch`` only. In the second case it learns in evaluation mode from the second epoch on.
        batch_norm: Statistics that evaluation normalises with: ``settled`` computes them on the train split under the
            current weights, ``running`` uses the running averages of training.
        precision: ``fp32``; ``tf32`` for matrix products in TF32 (CUDA only); ``bf16`` for autocast to bfloat16.

    Raises:
        InputError: A value is out of range.
    """

    epochs: int = 100
    batch: int = 0
    step_after: Literal["batch", "epoch"] = "batch"
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
        if self.batch == 1:
            raise InputError("batch=1: a batch norm needs at least two utterances; give batch=2 or more")

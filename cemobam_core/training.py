"""Training and evaluating one model (DESIGN: full batch, Adam, StepLR, metrics after the last epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cemobam_core import fast
from cemobam_core.config import CemoBAMConfig, Precision, TrainingConfig
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet
from cemobam_core.memory import keep_freed_memory
from cemobam_core.metrics import Metrics, at_least_fp32, metrics_from_logits
from cemobam_core.model import CemoBAM

CURVE_POINTS = 10
"""How often a training looks at the validation split; more would cost time and say little more."""


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One split, ready for the model: features, labels and the graph among its utterances."""

    audio: Tensor
    text: Tensor
    labels: Tensor
    edge_index: Tensor
    audio_mask: Tensor | None = None
    text_mask: Tensor | None = None

    @classmethod
    def from_features(cls, features: FeatureSet, edge_index: Tensor) -> Batch:
        """The batch of a feature set with its (2, E) graph."""
        return cls(
            features.audio,
            features.text,
            features.labels,
            edge_index,
            features.audio_mask,
            features.text_mask,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; tensors that are there already are not copied."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: t.to(device) for name, t in tensors.items() if t is not None})

    def logits(self, model: CemoBAM) -> Tensor:
        """What the model says of every utterance, (N, C): by the fast pass where it applies, else by the model."""
        if fast.applies(model, self.audio.device):
            return fast.logits(model, self._inputs)
        logits: Tensor = model(self.audio, self.text, self.edge_index, self.audio_mask, self.text_mask)
        return logits

    @cached_property
    def _inputs(self) -> fast.Inputs:
        return fast.Inputs.from_features(self.audio, self.text, self.edge_index, self.audio_mask, self.text_mask)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What one training gives.

    Attributes:
        model: after the last epoch, in evaluation mode.
        metrics: by split, after the last epoch.
        curve: validation WA by epoch, at ten epochs evenly over the training.
    """

    model: CemoBAM
    metrics: dict[str, Metrics]
    curve: dict[int, float]


def train(
    config: CemoBAMConfig,
    batches: Mapping[str, Batch],
    *,
    training: TrainingConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TrainingResult:
    """Train one model on the train split, full batch, and measure it on every split.

    The seed fixes the initial weights and the dropout, and the caller's own random state is left as it was: on one
    CPU, with the same number of threads, the same arguments give the same numbers bit for bit.

    Args:
        config: the model.
        batches: ``train``, ``val`` and any others to measure, each with its own graph.
        training: how to train; None: as the profile ``paper`` does.
        seed: initialises weights and dropout.
        device: where to compute.

    Raises:
        InputError: a precision that the device does not have.
        TrainingDiverged: the loss became NaN or infinite.
    """
    training = training or TrainingConfig()
    device = torch.device(device)
    keep_freed_memory()
    curve_at = {math.ceil(training.epochs * i / CURVE_POINTS) for i in range(1, CURVE_POINTS + 1)}
    with _seeded(seed, device), _matmul_precision(training.precision, device):
        model = CemoBAM(config).to(device)
        placed = {name: batch.to(device) for name, batch in batches.items()}
        optimizer = torch.optim.Adam(model.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True)
        decay = _schedule(optimizer, training)
        curve = {}
        for epoch in range(1, training.epochs + 1):
            model.train(epoch == 1 or training.train_mode == "every_epoch")
            loss = train_epoch(model, placed["train"], optimizer, training.precision)
            if training.schedule == "plateau" or epoch in curve_at:
                if not math.isfinite(loss.item()):
                    raise TrainingDiverged(f"the training loss is {loss.item()} at epoch {epoch}")
                if training.batch_norm == "settled":
                    settle_batch_norm(model, placed["train"], training.precision)
                measured = evaluate(model, placed["val"], precision=training.precision)
                if epoch in curve_at:
                    curve[epoch] = measured.wa
            decay(measured.loss if training.schedule == "plateau" else math.nan)
        metrics = {name: evaluate(model, batch, precision=training.precision) for name, batch in placed.items()}
    for name, measured in metrics.items():
        if not math.isfinite(measured.loss):
            raise TrainingDiverged(f"the {name} loss is {measured.loss} after epoch {training.epochs}")
    return TrainingResult(model, metrics, curve)


def train_epoch(
    model: CemoBAM, batch: Batch, optimizer: torch.optim.Optimizer, precision: Precision = "fp32"
) -> Tensor:
    """One epoch, which is one full-batch step in the mode the model is in.

    Gives the loss before the step, still on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    with _autocast(precision, batch.labels.device):
        logits = batch.logits(model)
    loss = cross_entropy(at_least_fp32(logits), batch.labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Callable[[float], None]:
    """What to call after each epoch, with the validation loss."""
    schedulers = torch.optim.lr_scheduler
    if training.schedule == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimizer, factor=training.lr_gamma, patience=training.lr_patience)
        return plateau.step
    steps = schedulers.StepLR(optimizer, training.lr_step, training.lr_gamma)
    return lambda _: steps.step()


@torch.no_grad()
def settle_batch_norm(model: CemoBAM, batch: Batch, precision: Precision = "fp32") -> None:
    """Set the statistics of every batch norm to those of ``batch`` under the weights as they are now.

    A full-batch epoch is one update of the running statistics, so with PyTorch's momentum of 0.1 they lag some ten
    epochs behind the weights, and an evaluation would measure a model that never was. The batch is all of the train
    split, so its statistics can be had exactly, with one forward pass (Wu and Johnson, 2021, "Rethinking 'Batch' in
    BatchNorm", section 3; here without dropout, as the evaluation that follows is). Leaves the model in evaluation
    mode and draws no random numbers.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, here over the one pass
        norm.train()
    with _autocast(precision, batch.labels.device):
        batch.logits(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def evaluate(model: CemoBAM, batch: Batch, *, precision: Precision = "fp32") -> Metrics:
    """Measure a model on one split, in evaluation mode, which the model keeps."""
    model.eval()
    with _autocast(precision, batch.labels.device):
        logits = batch.logits(model)
    return metrics_from_logits(logits, batch.labels)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    if precision == "tf32" and device.type != "cuda":
        raise InputError("precision tf32 is a mode of CUDA devices; on this device use fp32 or bf16")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

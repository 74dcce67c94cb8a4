"""Training and evaluating one model (DESIGN: full batch, Adam, StepLR, metrics after the last epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cemobam_core import fast
from cemobam_core.config import CemoBAMConfig, Precision, TrainingConfig
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet
from cemobam_core.systems.cemobam import CemoBAM
from cemobam_core.training.cuda_graphs import replayed
from cemobam_core.training.memory import keep_freed_memory
from cemobam_core.training.metrics import Metrics, at_least_fp32, metrics_from_logits
from cemobam_core.training.stacks import stack, unstack

CURVE_POINTS = 10
"""How often a training looks at the validation split; more would cost time and say little more."""

_SAMPLE = 64
"""Utterances whose pass :func:`bytes_of_training` measures."""

_PEAK = 1.5
"""What a training holds at its peak, by what its forward pass keeps: gradients and temporaries come on top."""


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One split, ready for the model: features, labels and the graph among its utterances.

    Of several trials it has the graphs of all as one, trial r's utterance i being node r · N + i.
    """

    audio: Tensor
    text: Tensor
    labels: Tensor
    edge_index: Tensor
    audio_mask: Tensor | None = None
    text_mask: Tensor | None = None
    trials: int = 1

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

    @classmethod
    def together(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of several trials', which have the same utterances and each its own graph."""
        first = batches[0]
        edges = [batch.edge_index + trial * len(first.labels) for trial, batch in enumerate(batches)]
        return replace(first, edge_index=torch.cat(edges, dim=1), trials=len(batches))

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; tensors that are there already are not copied."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        placed: dict[str, Any] = {name: x.to(device) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **placed)

    def logits(self, model: CemoBAM) -> Tensor:
        """What the model says of every utterance, (N, C): by the fast pass where it applies, else by the model.

        A stack of R models gives (R, N, C).
        """
        if fast.applies(model, self.audio.device):
            return fast.logits(model, self._inputs)
        logits: Tensor = model(self.audio, self.text, self.edge_index, self.audio_mask, self.text_mask)
        return logits

    def normalize(self, model: CemoBAM) -> None:
        """Show the model's batch norms what they see of every utterance."""
        if fast.applies(model, self.audio.device):
            fast.normalize(model, self._inputs)
        else:
            self.logits(model)

    @cached_property
    def _inputs(self) -> fast.Inputs:
        return fast.Inputs.from_features(
            self.audio, self.text, self.edge_index, self.audio_mask, self.text_mask, trials=self.trials
        )


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
    (result,) = train_together(config, [batches], training=training, seeds=[seed], device=device)
    if isinstance(result, TrainingDiverged):
        raise result
    return result


def train_together(
    config: CemoBAMConfig,
    batches: Sequence[Mapping[str, Batch]],
    *,
    training: TrainingConfig | None = None,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[TrainingResult | TrainingDiverged]:
    """Train several models of one configuration on the same utterances, as one stack of models (:func:`stack`).

    Each has its own graph, and its own seed for its weights and its dropout: what a trial computes does not depend on
    its companions, but for the order in which a batched product adds. On the CPU one model alone is no stack, and its
    numbers are those of :func:`train` to the bit.

    Args:
        config: the models.
        batches: of each trial, as for :func:`train`.
        training: how to train; learning rates that depend on a trial's own loss are for one trial alone.
        seeds: of each trial.
        device: where to compute.

    Returns:
        For each trial its result, or that it diverged.

    Raises:
        InputError: a precision that the device does not have.
    """
    training, device = training or TrainingConfig(), torch.device(device)
    if training.schedule == "plateau" and len(seeds) > 1:
        raise ValueError("with the schedule plateau each trial has a learning rate of its own")
    if not fast.stacks(device, len(seeds)):
        results = []
        for seed, alone in zip(seeds, batches, strict=True):
            with _seeded(seed, device):
                results += _trained(CemoBAM(config).to(device), alone, training, device)
        return results
    models, generators = [], []
    for seed in seeds:
        with _seeded(seed, device):
            models.append(CemoBAM(config))
            generator = torch.Generator(device)
            if device.type == "cpu":  # goes on where the weights ended, as a trial alone does
                generator.set_state(torch.get_rng_state())
            else:
                generator.manual_seed(seed)
            generators.append(generator)
    model = stack(models, generators).to(device)
    del models
    together = {name: Batch.together([trial[name] for trial in batches]) for name in batches[0]}
    return _trained(model, together, training, device, generators)


def _trained(
    model: CemoBAM,
    batches: Mapping[str, Batch],
    training: TrainingConfig,
    device: torch.device,
    generators: Sequence[torch.Generator] = (),
) -> list[TrainingResult | TrainingDiverged]:
    """Train a model, or a stack, and measure it; one result a trial."""
    keep_freed_memory()
    trials = range(model.trials or 1)
    diverged: dict[int, TrainingDiverged] = {}
    curves: list[dict[int, float]] = [{} for _ in trials]
    curve_at = {math.ceil(training.epochs * i / CURVE_POINTS) for i in range(1, CURVE_POINTS + 1)}
    with _matmul_precision(training.precision, device), _current(device):
        placed = {name: batch.to(device) for name, batch in batches.items()}
        # A learning rate that a recorded epoch reads is a tensor.
        lr = torch.tensor(training.lr, device=device) if device.type == "cuda" else training.lr
        optimizer = torch.optim.Adam(
            model.parameters(), lr=lr, weight_decay=training.weight_decay, fused=True, capturable=device.type == "cuda"
        )
        decay = _schedule(optimizer, training)
        step = replayed(lambda: train_epoch(model, placed["train"], optimizer, training.precision), device, generators)
        measured: dict[str, list[Metrics]] = {}
        for epoch in range(1, training.epochs + 1):
            _set_mode(model, epoch == 1 or training.train_mode == "every_epoch")
            loss = step()
            if training.schedule == "plateau" or epoch in curve_at:
                for trial, value in enumerate(loss.view(-1).tolist()):
                    if not math.isfinite(value):
                        diverged.setdefault(trial, TrainingDiverged(f"the training loss is {value} at epoch {epoch}"))
                if len(diverged) == len(trials):
                    return [diverged[trial] for trial in trials]
                if training.batch_norm == "settled":
                    settle_batch_norm(model, placed["train"], training.precision)
                measured = {"val": measure(model, placed["val"], precision=training.precision)}
                if epoch in curve_at:
                    for curve, metrics in zip(curves, measured["val"], strict=True):
                        curve[epoch] = metrics.wa
            decay(measured["val"][0].loss if training.schedule == "plateau" else math.nan)
        # The last epoch is a point of the curve: validation was measured there.
        measured |= {
            name: measure(model, batch, precision=training.precision)
            for name, batch in placed.items()
            if name not in measured
        }
    results: list[TrainingResult | TrainingDiverged] = []
    for trial, curve in enumerate(curves):
        metrics_of = {name: measured[name][trial] for name in placed}
        broken = next((name for name, metrics in metrics_of.items() if not math.isfinite(metrics.loss)), None)
        if trial in diverged:
            results.append(diverged[trial])
        elif broken:
            loss_of = metrics_of[broken].loss
            results.append(TrainingDiverged(f"the {broken} loss is {loss_of} after epoch {training.epochs}"))
        else:
            alone = model if model.trials is None else unstack(model, trial)
            results.append(TrainingResult(alone, metrics_of, curve))
    return results


def bytes_of_training(config: CemoBAMConfig, batch: Batch) -> int:
    """The memory that one trial of a stack takes while it trains, roughly, in bytes.

    What the forward pass keeps for the backward pass is measured on some utterances, on the CPU; it grows with their
    number. Weights come with a gradient and two moments.

    Args:
        config: the model.
        batch: the train split.
    """
    n, few = len(batch.labels), min(_SAMPLE, len(batch.labels))
    neighbours = max(1, round(batch.edge_index.shape[1] / n))
    target = torch.arange(few).repeat_interleave(neighbours)
    source = (target + torch.arange(neighbours).repeat(few)) % few
    sample = Batch(
        batch.audio[:few].cpu(),
        batch.text[:few].cpu(),
        batch.labels[:few].cpu(),
        torch.stack([source, target]),
        None if batch.audio_mask is None else batch.audio_mask[:few].cpu(),
        None if batch.text_mask is None else batch.text_mask[:few].cpu(),
    )
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with _seeded(0, torch.device("cpu")):
        model = stack([CemoBAM(config)], [torch.Generator()]).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            sample.logits(model)
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    passed = sum(size for pointer, size in kept.items() if pointer not in weights)
    return round(_PEAK * passed * n / few) + 4 * sum(weights.values())


def train_epoch(
    model: CemoBAM, batch: Batch, optimizer: torch.optim.Optimizer, precision: Precision = "fp32"
) -> Tensor:
    """One epoch, which is one full-batch step in the mode the model is in.

    Gives the loss before the step, still on the device; of a stack each trial's, (R,).
    """
    optimizer.zero_grad(set_to_none=True)
    with _autocast(precision, batch.labels.device):
        logits = at_least_fp32(batch.logits(model))
    if logits.ndim == 2:
        loss = cross_entropy(logits, batch.labels)
    else:
        labels = batch.labels.repeat(len(logits))
        loss = cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(len(logits), -1).mean(dim=1)
    loss.sum().backward()
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
    _set_mode(model, False)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, here over the one pass
        norm.train()
    with _autocast(precision, batch.labels.device):
        batch.normalize(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def evaluate(model: CemoBAM, batch: Batch, *, precision: Precision = "fp32") -> Metrics:
    """Measure a model on one split, in evaluation mode, which the model keeps."""
    model.eval()  # whatever a caller did to parts of it
    (measured,) = measure(model, batch, precision=precision)
    return measured


@torch.no_grad()
def measure(model: CemoBAM, batch: Batch, *, precision: Precision = "fp32") -> list[Metrics]:
    """:func:`evaluate` for each trial of a stack; of a model that is none, one."""
    _set_mode(model, False)
    with _autocast(precision, batch.labels.device):
        logits = batch.logits(model)
    return [metrics_from_logits(one, batch.labels) for one in (logits if logits.ndim == 3 else [logits])]


def _set_mode(model: CemoBAM, training: bool) -> None:
    """As ``model.train(training)``, which asks every module and costs as much as a layer, where that is needed."""
    if model.training != training:
        model.train(training)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _current(device: torch.device) -> AbstractContextManager[None]:
    """Within it kernels and graphs of one's own go where the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


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

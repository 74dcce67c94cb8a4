"""Training and evaluation of a system: Adam, a learning-rate schedule, and metrics at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.operators.sparse_attention import HAS_TRITON
from cemobam_core.systems.system import FittedSystem, NeuralSystem, System
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import Precision, TrainingConfig
from cemobam_core.training.cuda_graphs import Recorded
from cemobam_core.training.metrics import Metrics
from cemobam_core.training.parts import Parts
from cemobam_core.training.stacks import Stack, why_alone
from cemobam_core.training.step import Classifier, measure, set_mode, settle_batch_norm, train_epoch, train_in_parts

_log = logging.getLogger("cemobam_core")

CURVE_POINTS = 10
"""Number of epochs at which validation is measured. More would cost time and add little information."""

_STACK_SAMPLE = 16
"""Number of utterances on which ``stackable`` tests a system."""


class TrainingDiverged(ArithmeticError):
    """The training loss is no longer a finite number."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of one training.

    Attributes:
        model: Trained model in evaluation mode, with the weights of the last or the best epoch. Call it with ``Inputs``
            to get (N, C) logits.
        metrics: Metrics of the model by split.
        curve: Validation WA by epoch, at ten epochs that are evenly spaced over the training.
        parameters: Number of parameters learnt by gradient descent. ``None`` if the system is not trained by gradient
            descent.
    """

    model: Classifier
    metrics: dict[str, Metrics]
    curve: dict[int, float]
    parameters: int | None = None


def train(
    system: System,
    batches: Mapping[str, Batch],
    *,
    training: TrainingConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TrainingResult:
    """Train one system on the train split and measure it on every split.

    The seed sets the initial weights and dropout. The random state of the caller does not change. On one CPU, with the
    same number of threads, the same arguments give bit-identical results.

    Args:
        system: System to train, with its configuration.
        batches: Batches by split: ``train``, ``val`` and any other splits to measure, each with its own graph. All but
            ``train`` may have training utterances as their context.
        training: Settings of training for a neural system. ``None`` for those of the profile ``paper``.
        seed: Seed of the initial weights and of dropout.
        device: Device to compute on.

    Raises:
        InputError: The device does not support the precision, or the module does not return (N, C) logits.
        TrainingDiverged: The loss became NaN or infinite.
    """
    (result,) = train_together(system, [batches], training=training, seeds=[seed], device=device)
    if isinstance(result, TrainingDiverged):
        raise result
    return result


def train_together(
    system: System,
    batches: Sequence[Mapping[str, Batch]],
    *,
    training: TrainingConfig | None = None,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[TrainingResult | TrainingDiverged]:
    """Train several models of one system on the same utterances, as one ``Stack`` if possible.

    In mini-batches, the models are trained one after another, because each graph has mini-batches of its own.

    Each model has its own graph and its own seed. The numbers of a trial do not depend on the trials that are trained
    with it, except for the order of additions in a batched product. A single model on the CPU is not stacked, and its
    numbers equal those of ``train`` bit for bit.

    Args:
        system: System to train, with its configuration.
        batches: Batches of each trial, as for ``train``.
        training: Settings of training. The schedule ``plateau`` depends on a trial's own loss, so it allows one trial
            only.
        seeds: Seed of each trial.
        device: Device to compute on.

    Returns:
        The result of each trial, or ``TrainingDiverged`` if its loss became NaN or infinite.

    Raises:
        InputError: As for ``train``.
    """
    if isinstance(system, FittedSystem):
        return [_fit(system, own, seed) for seed, own in zip(seeds, batches, strict=True)]
    assert isinstance(system, NeuralSystem)
    training, device = training or TrainingConfig(), torch.device(device)
    if training.schedule == "plateau" and len(seeds) > 1:
        raise ValueError("schedule plateau: each trial has its own learning rate; train one trial at a time")
    sizes = batches[0]["train"].sizes
    together = (device.type == "cuda" or len(seeds) > 1) and not training.batch
    if not together or not stackable(system, batches[0].values()):
        results = []
        for seed, own in zip(seeds, batches, strict=True):
            with _seeded(seed, device):
                results += _train(system.build(sizes).to(device), own, training, device)
        return results
    built: dict[int, tuple[nn.Module, Tensor]] = {}  # by seed: trials of one seed start with the same weights
    for seed in dict.fromkeys(seeds):
        with _seeded(seed, device):
            built[seed] = system.build(sizes), torch.get_rng_state()
    generators = []
    for seed in seeds:
        generator = torch.Generator(device)
        if device.type == "cpu":  # continue after the draws of the weights, as a single trial does
            generator.set_state(built[seed][1])
        else:
            generator.manual_seed(seed)
        generators.append(generator)
    model = Stack([built[seed][0] for seed in seeds], generators).to(device)
    template = built[seeds[0]][0].to(device)
    del built
    joined = {name: Batch.together([trial[name] for trial in batches]) for name in batches[0]}
    return _train(model, joined, training, device, generators=generators, template=template)


_STACKABLE: dict[tuple[object, ...], bool] = {}
"""Cached results of ``stackable``, by system, sizes and kind of steps: a test takes a second."""


def stackable(system: NeuralSystem, batches: Iterable[Batch]) -> bool:
    """Return whether models of a system can be trained as one stack. If not, log the reason once.

    Args:
        system: System with its configuration.
        batches: Batches of all splits, because a model may treat padded steps, or a single step, differently.
    """
    return all(_stackable(system, batch) for batch in batches)


def _stackable(system: NeuralSystem, batch: Batch) -> bool:
    steps = (batch.inputs.audio, batch.inputs.text)
    key = (system, batch.sizes, *((one.padded, one.shape[1] == 1) for one in steps))
    if key not in _STACKABLE:
        why = why_alone(lambda: system.build(batch.sizes), batch.few(_STACK_SAMPLE).inputs)
        if why:
            _warn_once(f"{type(system).__name__} is trained one model at a time, not as a stack: {why}")
        _STACKABLE[key] = not why
    return _STACKABLE[key]


@cache
def _warn_once(reason: str) -> None:
    _log.warning(reason)


def _fit(system: FittedSystem, batches: Mapping[str, Batch], seed: int) -> TrainingResult:
    """Fit a system that is not trained by gradient descent, and measure it."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  (a dependency of scikit-learn)

    train_batch = batches["train"]
    with threadpool_limits(torch.get_num_threads()):  # limits NumPy's threads too, because workers share a machine
        model = system.fit(train_batch.inputs, train_batch.labels, train_batch.sizes, seed)
        return TrainingResult(model, {name: measure(model, batch)[0] for name, batch in batches.items()}, {})


class _Progress:
    """The progress of R trials during training.

    Attributes:
        measured: Latest metrics of every trial by split.
        curves: Validation WA by epoch, for each trial.
        diverged: Errors of the trials whose loss is no longer finite, by trial.
    """

    def __init__(self, trials: int) -> None:
        self.measured: dict[str, list[Metrics]] = {}
        self.curves: list[dict[int, float]] = [{} for _ in range(trials)]
        self.diverged: dict[int, TrainingDiverged] = {}

    def is_over(self, losses: Tensor, epoch: int) -> bool:
        """Record which trials have diverged at an epoch, and return whether all have."""
        for trial, loss in enumerate(losses.view(-1).tolist()):
            if not math.isfinite(loss):
                self.diverged.setdefault(trial, TrainingDiverged(f"the training loss is {loss} at epoch {epoch}"))
        return len(self.diverged) == len(self.curves)

    def outcome(self, trial: int, epochs: int) -> dict[str, Metrics] | TrainingDiverged:
        """Return the metrics of a trial by split, or ``TrainingDiverged``."""
        if trial in self.diverged:
            return self.diverged[trial]
        metrics = {name: of_trials[trial] for name, of_trials in self.measured.items()}
        for name, of_split in metrics.items():
            if not math.isfinite(of_split.loss):
                return TrainingDiverged(f"the {name} loss is {of_split.loss} after epoch {epochs}")
        return metrics


def _train(
    model: nn.Module,
    batches: Mapping[str, Batch],
    training: TrainingConfig,
    device: torch.device,
    *,
    generators: Sequence[torch.Generator] = (),
    template: nn.Module | None = None,
) -> list[TrainingResult | TrainingDiverged]:
    """Train and measure a model or a stack, and return one result per trial.

    Args:
        model: Model or stack, already on ``device``.
        batches: Batches by split.
        training: Settings of training.
        device: Device of the model.
        generators: Generators of a stack's trials.
        template: For a stack, a model of the same configuration.
    """
    with _matmul_precision(training.precision, device), _current(device):
        # Mini-batches are moved one by one.
        placed = batches if training.batch else {name: batch.to(device) for name, batch in batches.items()}
        progress = _run(model, placed, training, device, generators)
    results: list[TrainingResult | TrainingDiverged] = []
    parameters = sum(weight.numel() for weight in model.parameters()) // len(progress.curves)
    for trial, curve in enumerate(progress.curves):
        outcome = progress.outcome(trial, training.epochs)
        if isinstance(outcome, TrainingDiverged):
            results.append(outcome)
            continue
        own = model
        if isinstance(model, Stack):
            assert template
            own = model.unstack(trial, template)
        results.append(TrainingResult(own, {name: outcome[name] for name in batches}, curve, parameters))
    return results


def _run(
    model: nn.Module,
    batches: Mapping[str, Batch],
    training: TrainingConfig,
    device: torch.device,
    generators: Sequence[torch.Generator],
) -> _Progress:
    """Run all epochs, or stop early if every trial has diverged."""
    progress = _Progress(model.trials if isinstance(model, Stack) else 1)
    # A recorded epoch reads the learning rate from a tensor.
    lr = torch.tensor(training.lr, device=device) if device.type == "cuda" else training.lr
    optimizer = torch.optim.Adam(
        model.parameters(), lr=lr, weight_decay=training.weight_decay, fused=True, capturable=device.type == "cuda"
    )
    decay = _schedule(optimizer, training)
    train = Parts(batches["train"], training.batch) if training.batch else batches["train"]
    step = _step(model, train, optimizer, training, generators)
    measured = partial(measure, model, precision=training.precision, at_once=training.batch)
    best = _Best(model) if training.weights == "best_epoch" else None
    curve_at = {math.ceil(training.epochs * i / CURVE_POINTS) for i in range(1, CURVE_POINTS + 1)}
    for epoch in range(1, training.epochs + 1):
        set_mode(model, epoch == 1 or training.train_mode == "every_epoch")
        losses = step()
        if training.schedule == "plateau" or best or epoch in curve_at:
            if progress.is_over(losses, epoch):
                return progress
            if training.batch_norm == "settled":
                settle_batch_norm(model, train, training.precision)
            progress.measured["val"] = measured(batches["val"])
            if best:
                best.update(progress.measured["val"])
            if epoch in curve_at:
                for curve, metrics in zip(progress.curves, progress.measured["val"], strict=True):
                    curve[epoch] = metrics.wa
        decay(progress.measured["val"][0].loss if training.schedule == "plateau" else math.nan)
    if best:
        best.restore()
        progress.measured.clear()
    # Validation was already measured after the last epoch, which is a point of the curve.
    for name, batch in batches.items():
        if name not in progress.measured:
            progress.measured[name] = measured(batch)
    return progress


def _step(
    model: nn.Module,
    train: Batch | Parts,
    optimizer: torch.optim.Optimizer,
    training: TrainingConfig,
    generators: Sequence[torch.Generator],
) -> Callable[[], Tensor]:
    """Return a function that trains for one epoch and returns the loss of each trial."""
    if isinstance(train, Parts):
        accumulate = training.step_after == "epoch"
        return partial(train_in_parts, model, train, optimizer, training.precision, accumulate=accumulate)
    step = partial(train_epoch, model, train, optimizer, training.precision)
    device = train.labels.device
    if device.type == "cuda" and isinstance(model, Stack) and HAS_TRITON:
        return Recorded(step, device, generators)
    return step


class _Best:
    """The weights and statistics of the best epoch so far, for each trial of a model or a stack.

    Args:
        model: Model in training. Its state is copied at the best epochs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._score: dict[int, tuple[float, float]] = {}
        self._state = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, measured: Sequence[Metrics]) -> None:
        """Copy the state of the trials that have reached a new best on validation."""
        scores = {trial: (metrics.wa, -metrics.loss) for trial, metrics in enumerate(measured)}
        better = [t for t, new in scores.items() if math.isfinite(new[1]) and new > self._score.get(t, (-1.0, 0.0))]
        if not better:
            return
        self._score |= {trial: scores[trial] for trial in better}
        for name, value in self._model.state_dict().items():
            if not isinstance(self._model, Stack) or not value.ndim:
                self._state[name].copy_(value)
            else:
                self._state[name][better] = value[better]

    @torch.no_grad()
    def restore(self) -> None:
        """Load the copied state into the model. A trial that was never measured keeps its current state."""
        if self._score:
            for name, value in self._model.state_dict().items():
                if not isinstance(self._model, Stack) or not value.ndim:
                    value.copy_(self._state[name])
                else:
                    kept = list(self._score)
                    value[kept] = self._state[name][kept]


def _schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Callable[[float], None]:
    """Return a function that takes the validation loss after each epoch and sets the next learning rate."""
    schedulers = torch.optim.lr_scheduler
    if training.schedule == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimizer, factor=training.lr_gamma, patience=training.lr_patience)
        return plateau.step
    steps = schedulers.StepLR(optimizer, training.lr_step, training.lr_gamma)
    return lambda _: steps.step()


def evaluate(model: Classifier, batch: Batch, *, precision: Precision = "fp32") -> Metrics:
    """Measure a model on one split. The model is set to evaluation mode and stays in it."""
    if isinstance(model, nn.Module):
        model.eval()  # the caller may have changed the mode of some submodules
    (measured,) = measure(model, batch, precision=precision)
    return measured


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _current(device: torch.device) -> AbstractContextManager[None]:
    """Make ``device`` the current CUDA device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    if precision == "tf32" and device.type != "cuda":
        raise InputError("precision tf32 needs a CUDA device; on this device use fp32 or bf16")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

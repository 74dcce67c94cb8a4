"""Train and evaluate a system: full batch, Adam, a schedule, metrics in the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs
from cemobam_core.operators.precision import at_least_fp32
from cemobam_core.operators.sparse_attention import HAS_TRITON
from cemobam_core.systems.system import FittedSystem, NeuralSystem, System
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import Precision, TrainingConfig
from cemobam_core.training.cuda_graphs import Recorded
from cemobam_core.training.metrics import Metrics, metrics_from_logits
from cemobam_core.training.stacks import Stack, why_alone

Classifier = Callable[[Inputs], Tensor]
"""What a training gives: called with the inputs of N utterances it gives their (N, C) logits."""

_log = logging.getLogger("cemobam_core")

CURVE_POINTS = 10
"""How often a training looks at the validation split; more would cost time and say little more."""

_SAMPLE = 64
"""Utterances whose forward pass :func:`bytes_of_training` measures."""

_TRIED = 16
"""Utterances on which :func:`stackable` tries a system."""

_PEAK = 1.5
"""What a training holds at its peak, by what its forward pass keeps: gradients and temporaries come on top."""


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What one training gives.

    Attributes:
        model: with the weights of the last or the best epoch, in evaluation mode: called with :class:`Inputs` it gives
            (N, C) logits.
        metrics: by split, of that model.
        curve: validation WA by epoch, at ten epochs evenly over the training.
        parameters: how many numbers were learnt by gradient descent; None: the system is fitted in another way.
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

    The seed fixes the initial weights and the dropout, and the caller's own random state is left as it was: on one
    CPU, with the same number of threads, the same arguments give the same numbers bit for bit.

    Args:
        system: with its choices.
        batches: ``train``, ``val`` and any others to measure, each with its own graph; they may have training
            utterances as their context, but ``train`` has none.
        training: how a neural system is trained; None: as the profile ``paper`` does.
        seed: initialises weights and dropout.
        device: where to compute.

    Raises:
        InputError: a precision that the device does not have, a system whose module does not give (N, C) logits.
        TrainingDiverged: the loss became NaN or infinite.
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
    """Train several models of one system on the same utterances, as one :class:`Stack` where that can be.

    Each has its own graph, and its own seed for its weights and its dropout: what a trial computes does not depend on
    its companions, but for the order in which a batched product adds. On the CPU one model alone is no stack, and its
    numbers are those of :func:`train` to the bit.

    Args:
        system: with its choices.
        batches: of each trial, as for :func:`train`.
        training: how to train; learning rates that depend on a trial's own loss are for one trial alone.
        seeds: of each trial.
        device: where to compute.

    Returns:
        For each trial its result, or that it diverged.

    Raises:
        InputError: as :func:`train`.
    """
    if isinstance(system, FittedSystem):
        return [_fitted(system, alone, seed) for seed, alone in zip(seeds, batches, strict=True)]
    assert isinstance(system, NeuralSystem)
    training, device = training or TrainingConfig(), torch.device(device)
    if training.schedule == "plateau" and len(seeds) > 1:
        raise ValueError("with the schedule plateau each trial has a learning rate of its own")
    sizes = batches[0]["train"].sizes
    if not (device.type == "cuda" or len(seeds) > 1) or not stackable(system, batches[0].values()):
        results = []
        for seed, alone in zip(seeds, batches, strict=True):
            with _seeded(seed, device):
                results += _trained(system.build(sizes).to(device), alone, training, device)
        return results
    models, generators = [], []
    for seed in seeds:
        with _seeded(seed, device):
            models.append(system.build(sizes))
            generator = torch.Generator(device)
            if device.type == "cpu":  # goes on where the weights ended, as a trial alone does
                generator.set_state(torch.get_rng_state())
            else:
                generator.manual_seed(seed)
            generators.append(generator)
    model = Stack(models, generators).to(device)
    del models
    together = {name: Batch.together([trial[name] for trial in batches]) for name in batches[0]}
    return _trained(model, together, training, device, generators=generators, template=lambda: system.build(sizes))


_STACKABLE: dict[tuple[object, ...], bool] = {}
"""By system, sizes and what the steps are like: a trial takes a second, and is not repeated."""


def stackable(system: NeuralSystem, batches: Iterable[Batch]) -> bool:
    """Return whether models of a system can be trained as one stack. If they cannot, the log says why, once.

    Args:
        system: with its choices.
        batches: of all splits: a model may treat padded steps, or a single one, in another way.
    """
    return all(_stackable(system, batch) for batch in batches)


def _stackable(system: NeuralSystem, batch: Batch) -> bool:
    steps = (batch.inputs.audio, batch.inputs.text)
    key = (system, batch.sizes, *((one.padded, one.shape[1] == 1) for one in steps))
    if key not in _STACKABLE:
        why = why_alone(lambda: system.build(batch.sizes), batch.few(_TRIED).inputs)
        if why:
            _tell_once(f"{type(system).__name__} is trained one model at a time, not as a stack: {why}")
        _STACKABLE[key] = not why
    return _STACKABLE[key]


@cache
def _tell_once(reason: str) -> None:
    _log.warning(reason)


def _fitted(system: FittedSystem, batches: Mapping[str, Batch], seed: int) -> TrainingResult:
    """Fit a system and measure it."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  (scikit-learn brings it)

    train_batch = batches["train"]
    with threadpool_limits(torch.get_num_threads()):  # NumPy's threads too: workers share a machine
        model = system.fit(train_batch.inputs, train_batch.labels, train_batch.sizes, seed)
        return TrainingResult(model, {name: measure(model, batch)[0] for name, batch in batches.items()}, {})


class _Course:
    """What is seen of R trials while they train.

    Attributes:
        measured: by split, each trial's metrics as they were last measured.
        curves: of each trial, validation WA by epoch.
        diverged: by trial, for those whose loss is no longer finite.
    """

    def __init__(self, trials: int) -> None:
        self.measured: dict[str, list[Metrics]] = {}
        self.curves: list[dict[int, float]] = [{} for _ in range(trials)]
        self.diverged: dict[int, TrainingDiverged] = {}

    def is_over(self, losses: Tensor, epoch: int) -> bool:
        """Note who has diverged by the losses of an epoch, and return whether all have."""
        for trial, loss in enumerate(losses.view(-1).tolist()):
            if not math.isfinite(loss):
                self.diverged.setdefault(trial, TrainingDiverged(f"the training loss is {loss} at epoch {epoch}"))
        return len(self.diverged) == len(self.curves)

    def outcome(self, trial: int, epochs: int) -> dict[str, Metrics] | TrainingDiverged:
        """Return a trial's metrics by split, or that it diverged."""
        if trial in self.diverged:
            return self.diverged[trial]
        metrics = {name: of_trials[trial] for name, of_trials in self.measured.items()}
        for name, of_split in metrics.items():
            if not math.isfinite(of_split.loss):
                return TrainingDiverged(f"the {name} loss is {of_split.loss} after epoch {epochs}")
        return metrics


def _trained(
    model: nn.Module,
    batches: Mapping[str, Batch],
    training: TrainingConfig,
    device: torch.device,
    *,
    generators: Sequence[torch.Generator] = (),
    template: Callable[[], nn.Module] | None = None,
) -> list[TrainingResult | TrainingDiverged]:
    """Train a model, or a stack, and measure it; return one result a trial.

    Args:
        model: where it is to be trained.
        batches: by split.
        training: how.
        device: where the model is.
        generators: of a stack, those of its trials.
        template: of a stack, returns a model of the same configuration.
    """
    with _matmul_precision(training.precision, device), _current(device):
        course = _run(model, {name: batch.to(device) for name, batch in batches.items()}, training, device, generators)
    results: list[TrainingResult | TrainingDiverged] = []
    parameters = sum(weight.numel() for weight in model.parameters()) // len(course.curves)
    for trial, curve in enumerate(course.curves):
        outcome = course.outcome(trial, training.epochs)
        if isinstance(outcome, TrainingDiverged):
            results.append(outcome)
            continue
        alone = model
        if isinstance(model, Stack):
            assert template
            with torch.random.fork_rng(devices=[]):
                alone = model.unstack(trial, template())
        results.append(TrainingResult(alone, {name: outcome[name] for name in batches}, curve, parameters))
    return results


def _run(
    model: nn.Module,
    batches: Mapping[str, Batch],
    training: TrainingConfig,
    device: torch.device,
    generators: Sequence[torch.Generator],
) -> _Course:
    """Run the epochs, until the last or until all trials have diverged."""
    course = _Course(model.trials if isinstance(model, Stack) else 1)
    # A learning rate that a recorded epoch reads is a tensor.
    lr = torch.tensor(training.lr, device=device) if device.type == "cuda" else training.lr
    optimizer = torch.optim.Adam(
        model.parameters(), lr=lr, weight_decay=training.weight_decay, fused=True, capturable=device.type == "cuda"
    )
    decay = _schedule(optimizer, training)
    step: Callable[[], Tensor] = partial(train_epoch, model, batches["train"], optimizer, training.precision)
    if device.type == "cuda" and isinstance(model, Stack) and HAS_TRITON:
        step = Recorded(step, device, generators)
    best = _Best(model) if training.weights == "best_epoch" else None
    curve_at = {math.ceil(training.epochs * i / CURVE_POINTS) for i in range(1, CURVE_POINTS + 1)}
    for epoch in range(1, training.epochs + 1):
        _set_mode(model, epoch == 1 or training.train_mode == "every_epoch")
        losses = step()
        if training.schedule == "plateau" or best or epoch in curve_at:
            if course.is_over(losses, epoch):
                return course
            if training.batch_norm == "settled":
                settle_batch_norm(model, batches["train"], training.precision)
            course.measured["val"] = measure(model, batches["val"], precision=training.precision)
            if best:
                best.note(course.measured["val"])
            if epoch in curve_at:
                for curve, metrics in zip(course.curves, course.measured["val"], strict=True):
                    curve[epoch] = metrics.wa
        decay(course.measured["val"][0].loss if training.schedule == "plateau" else math.nan)
    if best:
        best.restore()
        course.measured.clear()
    # The last epoch is a point of the curve: validation was measured there.
    for name, batch in batches.items():
        if name not in course.measured:
            course.measured[name] = measure(model, batch, precision=training.precision)
    return course


class _Best:
    """The weights and statistics of the best epoch so far, of each trial of a model or a stack.

    Args:
        model: that is trained; its state is copied at the best epochs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._score: dict[int, tuple[float, float]] = {}
        self._state = {name: value.clone() for name, value in model.state_dict().items()}

    def note(self, measured: Sequence[Metrics]) -> None:
        """Keep the state of the trials that are better than ever on validation."""
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
        """Give the model the kept state; a trial that was never measured keeps what it has."""
        if self._score:
            for name, value in self._model.state_dict().items():
                if not isinstance(self._model, Stack) or not value.ndim:
                    value.copy_(self._state[name])
                else:
                    kept = list(self._score)
                    value[kept] = self._state[name][kept]


def bytes_of_training(system: NeuralSystem, batch: Batch) -> int:
    """Return the memory that one trial of a stack takes while it trains, roughly, in bytes.

    What the forward pass keeps for the backward pass is measured on some utterances, on the CPU; it grows with their
    number. Weights come with a gradient and two moments.

    Args:
        system: with its choices.
        batch: the train split.
    """
    sample, kept = batch.few(_SAMPLE), dict[int, int]()

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with _seeded(0, torch.device("cpu")):
        model = system.build(batch.sizes).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            model(sample.inputs)
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    passed = sum(size for pointer, size in kept.items() if pointer not in weights)
    return round(_PEAK * passed * len(batch.labels) / len(sample.labels)) + 4 * sum(weights.values())


def train_epoch(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, precision: Precision = "fp32"
) -> Tensor:
    """Train for one epoch, which is one full-batch step in the mode that the model is in.

    Returns:
        The loss before the step, still on the device; of a stack each trial's, (R,).
    """
    optimizer.zero_grad(set_to_none=True)
    with _autocast(precision, batch.labels.device):
        logits = at_least_fp32(_checked(model(batch.inputs), batch, model))
    if logits.ndim == 2:
        loss = cross_entropy(logits, batch.labels)
    else:
        labels = batch.labels.repeat(len(logits))
        loss = cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(len(logits), -1).mean(dim=1)
    loss.sum().backward()
    optimizer.step()
    return loss.detach()


def _checked(logits: object, batch: Batch, model: Classifier) -> Tensor:
    """Return the logits that a module gave, of the utterances to be measured.

    Raises:
        InputError: they are not one for every utterance and class.
    """
    wanted = (len(batch.inputs), batch.num_classes)
    if (
        isinstance(logits, Tensor)
        and logits.shape[-2:] == wanted
        and logits.ndim == (3 if isinstance(model, Stack) else 2)
    ):
        return batch.measured(logits)
    given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    raise InputError(
        f"{type(model).__name__}: forward gave {given}; it must give logits {wanted}, one for each utterance and class"
    )


def _schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig) -> Callable[[float], None]:
    """Return a function to call after each epoch with the validation loss; it sets the next learning rate."""
    schedulers = torch.optim.lr_scheduler
    if training.schedule == "plateau":
        plateau = schedulers.ReduceLROnPlateau(optimizer, factor=training.lr_gamma, patience=training.lr_patience)
        return plateau.step
    steps = schedulers.StepLR(optimizer, training.lr_step, training.lr_gamma)
    return lambda _: steps.step()


@torch.no_grad()
def settle_batch_norm(model: nn.Module, batch: Batch, precision: Precision = "fp32") -> None:
    """Set the statistics of every batch norm to those of ``batch`` under the weights as they are now.

    A full-batch epoch is one update of the running statistics, so with PyTorch's momentum of 0.1 they lag some ten
    epochs behind the weights, and an evaluation would measure a model that never was. The batch is all of the train
    split, so its statistics can be had exactly, with one forward pass (Wu and Johnson, 2021, "Rethinking 'Batch' in
    BatchNorm", section 3; here without dropout, as the evaluation that follows is). Leaves the model in evaluation
    mode and draws no random numbers.
    """
    _set_mode(model, False)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, here over the one pass
        norm.train()
    try:
        with _autocast(precision, batch.labels.device):
            _pass_norms(model, batch.inputs, norms)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


class _Passed(Exception):
    """The last batch norm of a forward pass has seen its input."""


_NORM_CALLS: WeakKeyDictionary[nn.Module, dict[tuple[torch.Size, ...], int]] = WeakKeyDictionary()
"""By model and shapes of its inputs, how often a forward pass calls its batch norms."""


def _pass_norms(model: nn.Module, inputs: Inputs, norms: Sequence[nn.Module]) -> None:
    """Run the forward pass up to the last call of a batch norm; the first time all of it, to count the calls."""
    known, shapes = _NORM_CALLS.setdefault(model, {}), (inputs.audio.shape, inputs.text.shape)
    calls, last = 0, known.get(shapes)

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            raise _Passed

    hooks = [norm.register_forward_hook(count) for norm in norms]
    try:
        model(inputs)
        known[shapes] = calls
    except _Passed:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def evaluate(model: Classifier, batch: Batch, *, precision: Precision = "fp32") -> Metrics:
    """Measure a model on one split, in evaluation mode, which the model keeps."""
    if isinstance(model, nn.Module):
        model.eval()  # whatever a caller did to parts of it
    (measured,) = measure(model, batch, precision=precision)
    return measured


@torch.no_grad()
def measure(model: Classifier, batch: Batch, *, precision: Precision = "fp32") -> list[Metrics]:
    """Measure each trial of a stack on one split; of a model that is no stack, return a list of one."""
    if isinstance(model, nn.Module):
        _set_mode(model, False)
    with _autocast(precision, batch.labels.device):
        logits = _checked(model(batch.inputs), batch, model)
    return [metrics_from_logits(one, batch.labels) for one in (logits if logits.ndim == 3 else [logits])]


def _set_mode(model: nn.Module, training: bool) -> None:
    """Call ``model.train(training)`` if the mode changes: it visits every module and costs as much as a layer."""
    if model.training != training:
        model.train(training)


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
        raise InputError("precision tf32 is a mode of CUDA devices; on this device use fp32 or bf16")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

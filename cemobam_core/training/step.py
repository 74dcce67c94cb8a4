"""What an epoch and an evaluation do with a model or a stack, on a whole split or in parts of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs
from cemobam_core.operators.precision import at_least_fp32
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import Precision
from cemobam_core.training.memory import returning_large_blocks
from cemobam_core.training.metrics import Metrics, metrics_from_logits
from cemobam_core.training.parts import Parts
from cemobam_core.training.stacks import Stack

Classifier = Callable[[Inputs], Tensor]
"""A trained model: a function from the inputs of N utterances to their (N, C) logits."""


def train_epoch(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, precision: Precision = "fp32"
) -> Tensor:
    """Train for one epoch: one full-batch step in the current mode of the model.

    Returns:
        The loss before the step, on the device. Its shape is (R,) for a stack of R trials.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = _loss(model, batch, precision)
    loss.sum().backward()
    optimizer.step()
    return loss.detach()


def train_in_parts(
    model: nn.Module,
    parts: Parts,
    optimizer: torch.optim.Optimizer,
    precision: Precision = "fp32",
    *,
    accumulate: bool = False,
) -> Tensor:
    """Train a single model for one epoch in mini-batches, in its current mode.

    Args:
        model: Model on any device. Every mini-batch is moved there.
        parts: The train split in mini-batches.
        optimizer: Optimizer of the model.
        precision: Precision of the products.
        accumulate: Whether to take one step at the end of the epoch, with the gradient of the whole split. The gradient
            is exact if no batch norm or dropout is in training mode. If not, take a step after each mini-batch.

    Returns:
        The mean loss over the utterances, on the device of the model.
    """
    device = _device_of(model)
    if accumulate:
        losses = []
        optimizer.zero_grad(set_to_none=True)
        for part in parts.surrounded(model):
            loss = _loss(model, part.to(device), precision) * (len(part.labels) / len(parts.labels))
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        return torch.stack(losses).sum()
    counted = [
        (train_epoch(model, part.to(device), optimizer, precision), len(part.labels)) for part in parts.shuffled()
    ]
    return torch.stack([loss * count for loss, count in counted]).sum() / sum(count for _, count in counted)


def _loss(model: nn.Module, batch: Batch, precision: Precision) -> Tensor:
    """Return the mean cross entropy. Its shape is (R,) for a stack of R trials."""
    with _autocast(precision, batch.labels.device):
        logits = at_least_fp32(_checked(model(batch.inputs), batch, model))
    if logits.ndim == 2:
        return cross_entropy(logits, batch.labels)
    labels = batch.labels.repeat(len(logits))
    return cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(len(logits), -1).mean(dim=1)


def _checked(logits: object, batch: Batch, model: Classifier) -> Tensor:
    """Return the logits of the utterances to measure.

    Raises:
        InputError: The module did not return one logit for every utterance and class.
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
        f"{type(model).__name__}: forward returned {given}; return logits {wanted}, one for each utterance and class"
    )


@torch.no_grad()
def settle_batch_norm(model: nn.Module, train: Batch | Parts, precision: Precision = "fp32") -> None:
    """Set the statistics of every batch norm to those of the train split under the current weights.

    A full-batch epoch updates the running statistics once. With PyTorch's momentum of 0.1 they therefore lag about ten
    epochs behind the weights, and an evaluation would measure a model that never existed. One forward pass of the whole
    split gives the exact statistics. In mini-batches, the statistics are the mean over those of all mini-batches (Wu
    and Johnson, 2021, "Rethinking 'Batch' in BatchNorm", section 3; here without dropout, like the evaluation that
    follows). The model is left in evaluation mode, and no random numbers are drawn.

    Args:
        model: Model or stack.
        train: The train split, on the device of the model, or in mini-batches.
        precision: Precision of the products.
    """
    set_mode(model, False)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all passes
        norm.train()
    device = _device_of(model)
    try:
        with _autocast(precision, device):
            if isinstance(train, Batch):
                _pass_norms(model, train.inputs, norms)
            else:
                for part in train.fixed():
                    model(part.to(device).inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


class _Passed(Exception):
    """The last batch norm of a forward pass has received its input."""


_NORM_CALLS: WeakKeyDictionary[nn.Module, dict[tuple[torch.Size, ...], int]] = WeakKeyDictionary()
"""Number of batch norm calls in a forward pass, by model and shapes of the inputs."""


def _pass_norms(model: nn.Module, inputs: Inputs, norms: Sequence[nn.Module]) -> None:
    """Run the forward pass up to the last batch norm call. The first pass runs completely, to count the calls."""
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


@torch.no_grad()
def measure(model: Classifier, batch: Batch, *, precision: Precision = "fp32", at_once: int = 0) -> list[Metrics]:
    """Measure each trial of a stack on one split. For a single model, return a list of one.

    Args:
        model: Trained model or stack.
        batch: The split.
        precision: Precision of the products.
        at_once: Number of utterances that are computed at once, as :func:`logits_of` does. 0 for all of them.
    """
    if isinstance(model, nn.Module):
        set_mode(model, False)
    compute = model
    if at_once and isinstance(model, nn.Module):
        compute = partial(logits_of, model, at_once=at_once)
        batch = replace(batch, labels=batch.labels.to(_device_of(model)))
    with _autocast(precision, batch.labels.device), returning_large_blocks() if at_once else nullcontext():
        logits = _checked(compute(batch.inputs), batch, model)
    return [metrics_from_logits(one, batch.labels) for one in (logits if logits.ndim == 3 else [logits])]


class InTwoSteps(Protocol):
    """A module over the graph whose first step computes each utterance by itself.

    ``forward(inputs)`` must equal ``over_graph(of_utterances(inputs), inputs.edge_index)`` in evaluation mode.
    """

    def of_utterances(self, inputs: Inputs) -> list[Tensor]:
        """Return vectors of the utterances, each (N, width), which depend on single utterances."""

    def over_graph(self, vectors: list[Tensor], edge_index: Tensor) -> Tensor:
        """Return the logits, (N, C)."""


def logits_of(model: nn.Module, inputs: Inputs, at_once: int) -> Tensor:
    """Return the logits of a model in evaluation mode, (N, C), in less memory: the same numbers, up to rounding.

    Without a graph, some utterances are computed at once. The first of the two steps of :class:`InTwoSteps` is computed
    likewise. All else needs the whole graph and is computed at once.

    Args:
        model: A single model in evaluation mode, on any device. The inputs are moved there.
        inputs: Inputs of N utterances.
        at_once: Number of utterances that are computed at once.
    """
    device = _device_of(model)
    if not inputs.edge_index.numel():
        (logits,) = _in_parts(lambda one: [model(one)], inputs, at_once, device)
        return logits
    if not hasattr(model, "of_utterances"):
        whole: Tensor = model(inputs.to(device))
        return whole
    two_steps = cast("InTwoSteps", model)
    vectors = _in_parts(two_steps.of_utterances, inputs, at_once, device)
    return two_steps.over_graph(vectors, inputs.edge_index.to(device))


def _in_parts(
    run: Callable[[Inputs], list[Tensor]], inputs: Inputs, at_once: int, device: torch.device
) -> list[Tensor]:
    """Return the tensors, (N, ...) each, that ``run`` returns for some utterances at a time."""
    whole: list[Tensor] = []
    for rows in torch.arange(len(inputs)).split(at_once):
        made = run(inputs.part(rows).to(device))
        whole = whole or [one.new_empty(len(inputs), *one.shape[1:]) for one in made]
        for into, one in zip(whole, made, strict=True):
            into[rows[0] : rows[0] + len(rows)] = one
    return whole


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def set_mode(model: nn.Module, training: bool) -> None:
    """Call ``model.train(training)`` if the mode changes. The call visits every module and costs as much as a layer."""
    if model.training != training:
        model.train(training)


def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")

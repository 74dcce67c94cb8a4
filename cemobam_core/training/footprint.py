"""The memory that a training needs, estimated from the peaks of small samples."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cemobam_core.inputs import Inputs
from cemobam_core.systems.system import NeuralSystem
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import TrainingConfig
from cemobam_core.training.step import logits_of

_SAMPLES = (32, 64)
"""Numbers of utterances in the two samples of each pass."""

_FACTOR = 1.5
"""Peak memory of a process relative to its tensors: gradients of activations, temporaries and gaps between blocks of
memory are added."""

_AT_ONCE = 16
"""Number of utterances that a sample in parts computes at once."""


def bytes_of_training(
    system: NeuralSystem, sample: Batch, training: TrainingConfig, *, train: int, largest: int
) -> int:
    """Estimate the peak memory in bytes of one trial, beside its features.

    The tensors that a training step keeps for its backward pass, and the peak of an evaluation, are measured on the CPU
    for two small numbers of utterances. What grows between the two grows with every utterance; the rest does not. Each
    weight also has a gradient and two moments.

    Args:
        system: System with its configuration.
        sample: Utterances of the study, at least 64 if there are so many, with a graph of its mean degree.
        training: Settings of training. In mini-batches, a step needs the memory of one mini-batch only.
        train: Number of utterances of the train split.
        largest: Number of utterances of the largest split, with its context.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = system.build(sample.sizes)
        whole = not training.batch or training.step_after == "epoch"  # all may be neighbours of a mini-batch
        step = _for(train if whole else min(training.batch, train), sample, model, _kept)
        at_once = _AT_ONCE if training.batch else largest
        evaluation = _for(largest, sample, model, partial(_peak, at_once=at_once))
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return round(_FACTOR * max(step, evaluation)) + 4 * weights


def _for(n: int, batch: Batch, model: nn.Module, measured: Callable[[nn.Module, Inputs], int]) -> float:
    """Return the bytes for ``n`` utterances, on the line through those of two samples."""
    samples = [batch.few(n) for n in _SAMPLES]
    few, more = (measured(model, sample.inputs) for sample in samples)
    each = (more - few) / max(1, len(samples[1].labels) - len(samples[0].labels))
    return more + each * (n - len(samples[1].labels))


def _kept(model: nn.Module, inputs: Inputs) -> int:
    """Return the size in bytes of the tensors, other than weights, that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = model.train()(inputs)  # while it lives, so do the tensors, and no address is used twice
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    del logits
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@torch.no_grad()
def _peak(model: nn.Module, inputs: Inputs, *, at_once: int) -> int:
    """Return the most bytes of tensors that exist at the same time during an evaluation, of those that it makes."""
    with _Tracked() as tracked:
        logits_of(model.eval(), inputs, at_once)
        most: int = tracked.peak
    return most


class _Tracked(TorchDispatchMode):
    """Follows the memory of the tensors that are made while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return that torch need not load its compiler, which takes seconds, to keep it away from this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if id(storage) not in given:  # it is not a view
                size = storage.nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, size)
        return out

    def _freed(self, size: int) -> None:
        self.now -= size


def _storages(values: object) -> list[torch.UntypedStorage]:
    """Return the storage of each tensor. A sparse tensor has none of its own."""
    return [x.untyped_storage() for x in tree_leaves(values) if isinstance(x, Tensor) and x.layout == torch.strided]

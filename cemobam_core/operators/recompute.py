"""Activation recomputation: the backward pass computes a segment of a network again instead of keeping its activations.

Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost". The numbers stay the same, to the bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_ON: ContextVar[bool] = ContextVar("_ON", default=False)


@contextmanager
def recomputing(on: bool) -> Iterator[None]:
    """Recompute the segments of all networks that are trained in this block, if ``on``."""
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


def segment(network: nn.Module, run: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Return ``run(*arguments)``, a segment of ``network`` whose activations may be recomputed.

    Args:
        network: Module that holds the weights and the batch norms of the segment.
        run: The segment.
        arguments: Its arguments.
    """
    if not (_ON.get() and torch.is_grad_enabled()):
        return run(*arguments)
    out: Tensor = checkpoint(
        run, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), _without_updates(network))
    )
    return out


@contextmanager
def _without_updates(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all batch norms, which the first pass has updated already."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked

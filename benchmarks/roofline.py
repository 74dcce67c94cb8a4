"""A roofline model of training on a GPU: seconds from counted operations and bytes, without a GPU.

The step of a whole stack is traced on fake tensors, which have shapes but no memory, with the branches for a GPU. Each
operation takes the longest of three times (Williams, Waterman and Patterson, 2009, "Roofline"):

- the floating-point operations of matrix products at ``PRODUCT_SHARE`` of the peak;
- the bytes of all inputs and outputs at ``MEMORY_SHARE`` of the bandwidth. Views cost nothing and nothing is fused. Our
  sparse products read one row per edge, as if no row were ever found in the cache;
- the time to start a kernel.

The peaks are those of NVIDIA's data sheets, for dense matrices ("NVIDIA A100 Tensor Core GPU", 80 GB SXM; "NVIDIA H100
Tensor Core GPU", SXM; "NVIDIA H200 Tensor Core GPU", SXM), taken from the collection at
https://glennklockwood.com/garden/processors/A100 and /h100. The sheets of the last two print the double,
for sparse matrices. The H200's bandwidth is 4.8 TB/s; its other peaks are the H100's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MethodType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cemobam_core.inputs import Inputs, Sizes, Steps
from cemobam_core.operators.sparse_attention import Adjacency
from cemobam_core.systems.system import NeuralSystem
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import Precision
from cemobam_core.training.loop import CURVE_POINTS
from cemobam_core.training.stacks import Stack
from cemobam_core.training.step import settle_batch_norm, train_epoch

PRODUCT_SHARE = 0.61
"""Share of the peak that matrix products reach: 300.8 of 494.7 TFLOP/s in TF32, measured on an H200. It is assumed for
every device and precision."""

MEMORY_SHARE = 0.85
"""Share of the bandwidth that simple kernels reach. This is an assumption. For an A100, Calculon assumes 0.9 for 100 MB
and 0.75 for 10 MB (https://github.com/calculon-ai/calculon, ``systems/a100_80g.json``)."""

KERNEL = 2e-6
"""Seconds that the smallest kernel of a CUDA graph takes. This is an assumption."""

LAUNCH = 27e-6
"""Seconds that the host takes for a kernel that is not recorded: 13.87 ms for the 503 kernels of an epoch of one trial,
measured beside the H200."""


@dataclass(frozen=True)
class Device:
    """A GPU's peaks, from its data sheet: FLOP/s of dense products by precision, and bytes per second."""

    name: str
    products: Mapping[str, float]
    bandwidth: float


DEVICES = (
    Device("A100 SXM 80 GB", {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 2.039e12),
    Device("H100 SXM", {"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12}, 3.35e12),
    Device("H200 SXM", {"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12}, 4.8e12),
)


@dataclass(frozen=True)
class Operation:
    """One kernel.

    Attributes:
        name: Name of the operation.
        flops: Floating-point operations, if it is a matrix product.
        reduced: Whether the product is in bfloat16.
        bytes: Bytes that it reads and writes.
    """

    name: str
    flops: float
    reduced: bool
    bytes: float


@dataclass(frozen=True)
class Cost:
    """Seconds of some operations, by the part that takes longest in each: its products, its memory or its start."""

    products: float = 0.0
    memory: float = 0.0
    start: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all operations."""
        return self.products + self.memory + self.start

    def __add__(self, other: Cost) -> Cost:
        """Return the seconds of both."""
        return Cost(self.products + other.products, self.memory + other.memory, self.start + other.start)

    def __mul__(self, times: float) -> Cost:
        """Return the seconds of several repetitions."""
        return Cost(self.products * times, self.memory * times, self.start * times)


def seconds(operations: Iterable[Operation], device: Device, precision: Precision, *, recorded: bool) -> Cost:
    """Return what operations take on a device, in a CUDA graph or launched one by one."""
    products = memory = start = 0.0
    least = KERNEL if recorded else LAUNCH
    for one in operations:
        peak = device.products["bf16" if one.reduced else "tf32" if precision == "tf32" else "fp32"]
        computes, moves = one.flops / (peak * PRODUCT_SHARE), one.bytes / (device.bandwidth * MEMORY_SHARE)
        if least > max(computes, moves):
            start += least
        elif computes > moves:
            products += computes
        else:
            memory += moves
    return Cost(products, memory, start)


_WITHOUT_KERNEL = {
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "lift_fresh",
    "_unsafe_view",
}
_WRITE_ONLY = {"bernoulli_", "copy_", "zero_", "fill_", "zeros", "zeros_like", "new_zeros", "ones_like", "new_ones"}


class Trace(TorchDispatchMode):
    """Records the kernels of all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name == "_fused_adam_":  # has no fake form; reads four tensors per weight and writes three
            size = _size(args)
            self.operations.append(Operation(name, 0.0, False, size * 7 / 4))
            return None
        out = func(*args, **kwargs)
        views = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if func.namespace == "prim" or name in _WITHOUT_KERNEL or views:
            return out
        count = flop_registry.get(func.overloadpacket)
        flops = float(count(*args, **kwargs, out_val=out)) if count else 0.0
        read = _size((args, kwargs))
        if name in {"index_select", "gather"}:  # reads at most the rows that it returns
            read = min(_size(args[0]), _size(out)) + _size(args[1:])
        if name in _WRITE_ONLY:
            read = _size(args[1:])
        reduced = bool(flops) and tree_leaves(out)[0].dtype == torch.bfloat16
        self.operations.append(Operation(name, flops, reduced, read + _size(out)))
        return out

    def launch(self, kernel: Any, grid: Any, offsets: Tensor, columns: Tensor, *rest: Any, width: int) -> None:
        """Record one of our kernels, which reads one row of ``d`` numbers per entry of the matrix."""
        name, (first, second, out, d) = kernel.fn.__name__.strip("_"), rest
        rows = len(columns) * d * second.element_size()
        self.operations.append(Operation(name, 0.0, False, rows + _size((offsets, columns, first, out))))


def _size(tensors: Any) -> float:
    """Return the bytes of some tensors. An element that is repeated by a stride of 0 counts once."""
    total = 0.0
    for x in tree_leaves(tensors):
        if isinstance(x, Tensor):
            total += x.element_size() * prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return total


def _steps(n: int, width: int) -> Any:
    """Return fake embeddings of ``n`` utterances. A fake tensor cannot be a :class:`Steps`, but can behave like one."""
    x: Any = torch.empty(n, 1, width)
    x.mask, x.padded, x.pooled, x.valid = torch.ones(n, 1, dtype=torch.bool), False, x[:, 0], x[:, 0]
    x.laid_out = MethodType(Steps.laid_out, x)
    return x


def _batch(n: int, sizes: Sizes, edges: int) -> Batch:
    inputs = Inputs(_steps(n, sizes.audio_dim), _steps(n, sizes.text_dim), torch.empty(2, edges, dtype=torch.int64))
    return Batch(inputs, torch.empty(n, dtype=torch.int64), sizes.num_classes)


@contextmanager
def _pretending(trace: Trace) -> Iterator[None]:
    """Make fake tensors take the branches for a GPU. Graphs have the right sizes and no contents."""

    def adjacency(edge_index: Tensor, n: int, heads: int) -> Adjacency:
        entries = edge_index.shape[1] * heads
        sizes = (n * heads + 1, entries, entries, n * heads + 1, entries, entries)
        return Adjacency(*(torch.empty(size, dtype=torch.int64) for size in sizes))

    with ExitStack() as stack:
        stack.enter_context(patch.object(Tensor, "is_cuda", True, create=True))
        stack.enter_context(patch("cemobam_core.operators.kernels._launch", trace.launch))
        stack.enter_context(patch("cemobam_core.operators.graph_attention.adjacency_of", adjacency))
        yield


@dataclass(frozen=True)
class Passes:
    """The kernels of a stack in one training epoch, in settling batch norm, and in evaluating each split."""

    epoch: list[Operation]
    settle: list[Operation]
    evaluate: dict[str, list[Operation]]

    def training(self, epochs: int, device: Device, precision: Precision) -> Cost:
        """Return what training and measuring a stack takes, with the settings of the profile ``paper``."""
        cost = seconds(self.epoch, device, precision, recorded=True) * epochs
        cost += seconds(self.settle, device, precision, recorded=False) * CURVE_POINTS
        for split, operations in self.evaluate.items():
            times = CURVE_POINTS if split == "val" else 1
            cost += seconds(operations, device, precision, recorded=False) * times
        return cost


def trace_stack(
    system: NeuralSystem,
    sizes: Sizes,
    trials: int,
    splits: Mapping[str, tuple[int, int]],
    precision: Precision,
) -> Passes:
    """Trace a stack of one system.

    Args:
        system: System with its configuration.
        sizes: Sizes of the features.
        trials: Number of trials in the stack.
        splits: Number of utterances of each split, and of edges in the graphs of all trials.
        precision: Precision of training.
    """
    with torch.device("meta"):
        stack = Stack([system.build(sizes)] * trials, [torch.Generator("cpu") for _ in range(trials)]).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        trace = Trace()
        stack.to_empty(device="cpu")
        batches = {name: _batch(n, sizes, edges) for name, (n, edges) in splits.items()}
        optimizer = torch.optim.Adam(stack.parameters(), weight_decay=5e-4, fused=True)
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

        def traced(step: Callable[[], object]) -> list[Operation]:
            trace.operations = []
            with trace:
                step()
            return trace.operations

        with _pretending(trace):
            for _ in range(2):  # the first pass of each kind prepares something for all later ones
                epoch = traced(partial(train_epoch, stack, batches["train"], optimizer, precision))
            for _ in range(2):
                settle = traced(partial(settle_batch_norm, stack, batches["train"], precision))
            evaluate = {}
            with torch.no_grad(), autocast:
                for name, batch in batches.items():
                    evaluate[name] = traced(partial(stack, batch.inputs))
    return Passes(epoch, settle, evaluate)

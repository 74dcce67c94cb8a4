"""A recorded training step must not wait for the GPU. This is traced on a machine that has none.

A CUDA graph cannot record an operation that waits for the device: one whose result Python or the size of a tensor
depends on, or a copy between host and device. Here the second epoch of a stack runs on torch's device ``meta``, which
has shapes but no numbers, so such an operation has nothing to return. Tensors claim to be CUDA tensors, so the branches
for a GPU are the ones that run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from importlib import import_module
from typing import Any

import pytest
import torch
from batches import READINGS, graphs_of, system_of
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cemobam_core import Batch, Inputs, Sizes
from cemobam_core.operators import sparse_attention
from cemobam_core.operators.sparse_attention import HAS_TRITON, Adjacency
from cemobam_core.systems import names, system_class
from cemobam_core.systems.system import NeuralSystem
from cemobam_core.training import step
from cemobam_core.training.loop import stackable
from cemobam_core.training.stacks import Stack
from cemobam_core.training.step import train_epoch

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="epochs are recorded with Triton alone")

TRIALS = 2

WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "_linalg_check_errors"),  # a number for Python
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"),  # a size from numbers
    *("bincount", "repeat_interleave"),
}
COPIES = {"_to_copy", "copy_", "copy"}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
WITHOUT_META = {"_fused_adam_"}
"""Operations that return nothing and that torch has not implemented for ``meta``."""


class Waits(AssertionError):
    """An operation waits for the device."""


class RefusesNumbers(TorchFunctionMode):
    """Raise an error where Python's numbers become a tensor on the device: a copy that torch does not dispatch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor} and out.device.type == "meta":
            raise Waits(f"{func.__name__} copies numbers from the host")
        return out


class RefusesToWait(TorchDispatchMode):
    """Raise an error at each operation that waits for the device, and record the names of all others."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        self.seen.add(name)
        if name in WITHOUT_META:
            return None
        by_numbers = name in INDEXING and any(x is not None and x.dtype in {torch.bool, torch.uint8} for x in args[1])
        if name in WAITING or by_numbers:
            raise Waits(f"{func} waits for the device")
        if name in COPIES:
            devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            devices |= {torch.device(kwargs["device"]).type} if kwargs.get("device") else set()
            if len(devices) > 1:
                raise Waits(f"{func} copies between {' and '.join(sorted(devices))}")
        return func(*args, **kwargs)


def on_meta(batch: Batch) -> Batch:
    """Return a batch without numbers, with all that the first epoch has computed and kept."""
    moved = batch.to("meta")
    for name in ("audio", "text"):
        steps, kept = (vars(getattr(one.inputs, name)) for one in (moved, batch))
        steps |= {key: value.to("meta") for key, value in kept.items() if isinstance(value, Tensor) and key != "mask"}
    edges = moved.inputs.edge_index
    sparse_attention._CACHE[edges] = {
        (n, heads, edges._version): replace(
            made, **{f.name: getattr(made, f.name).to("meta") for f in fields(Adjacency)}
        )
        for (n, heads, _), made in sparse_attention._CACHE.get(batch.inputs.edge_index, {}).items()
    }
    return moved


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Make every tensor claim to be a CUDA tensor, and let Adam and the kernels take tensors without numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "is_cuda", True, raising=False)
        patch.setattr("cemobam_core.operators.kernels._launch", lambda *_, **__: None)
        patch.setattr(step, "_autocast", lambda *_: nullcontext())
        optimizers = import_module("torch.optim.optimizer"), import_module("torch.optim.adam")
        for module, name in itertools.product(optimizers, ("capturable", "fused_kernels")):
            patch.setattr(module, f"_get_{name}_supported_devices", lambda *_, **__: ["meta"], raising=False)
        yield


def traced(build: Callable[[Sizes], nn.Module], batches: list[Batch], *, mode: bool = True) -> set[str]:
    """Train a stack for one epoch on the CPU, trace a second one, and return the names of its operations.

    Raises:
        Waits: An operation of the second epoch would wait for the device.
    """
    batch = Batch.together(batches)
    stack = Stack([build(batch.sizes) for _ in batches], [torch.Generator() for _ in batches]).train()
    train_epoch(stack, batch, torch.optim.Adam(stack.parameters()))
    stack.zero_grad()
    with as_on_a_gpu():
        stack = stack.to("meta").train(mode)
        later = on_meta(batch)
        optimizer = torch.optim.Adam(stack.parameters(), weight_decay=1e-4, fused=True, capturable=True)
        optimizer.param_groups[0]["lr"] = torch.empty((), device="meta")
        with RefusesNumbers(), RefusesToWait() as trace:
            for _ in range(2):  # the first step makes the optimizer's state
                loss = train_epoch(stack, later, optimizer)
        assert loss.shape == (len(batches),)
        assert loss.device.type == "meta"
        assert all(weight.grad is not None for weight in stack.parameters())
    return trace.seen


STEPS = [(0, 0), (5, 7)]


@pytest.mark.parametrize("steps", STEPS, ids=["utterances", "sequences"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("reading", sorted(READINGS))
def test_a_recorded_step_of_cemobam_does_not_wait(reading: str, mode: bool, steps: tuple[int, int]) -> None:
    batches = graphs_of(12, steps, 0, torch.float32, TRIALS, gather_from=READINGS[reading].gather_from)
    seen = traced(system_of(reading).build, batches, mode=mode)
    assert {"_fused_adam_", "baddbmm_", "segment_reduce"} <= seen  # the scores in one pass are of a GPU alone
    assert ("native_dropout_backward" in seen) == mode  # so are masks of bytes


@pytest.mark.parametrize("steps", STEPS, ids=["utterances", "sequences"])
@pytest.mark.parametrize("name", [name for name in names() if issubclass(system_class(name), NeuralSystem)])
def test_a_recorded_step_of_a_system_does_not_wait(name: str, steps: tuple[int, int]) -> None:
    system = system_class(name)()
    assert isinstance(system, NeuralSystem)
    batches = graphs_of(12, steps, 0, torch.float32, TRIALS)
    if not stackable(system, batches[:1]):
        pytest.skip("only stacks are recorded")
    assert "_fused_adam_" in traced(system.build, batches)


class Faulty(nn.Module):
    """A model with an operation between its layers."""

    def __init__(self, sizes: Sizes, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fault = fault
        self.first, self.last = nn.Linear(sizes.audio_dim, 4), nn.Linear(4, sizes.num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        x: Tensor = self.first(inputs.audio.pooled)
        out: Tensor = self.last(self.fault(x))
        return out


def with_holes(x: Tensor) -> Tensor:
    out = x.clone()
    out[x > 0] = 0.0
    return out


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a number": lambda x: x / x.abs().sum().item(),
    "a condition": lambda x: x if (x > 0).any() else -x,
    "a comparison": lambda x: -x if torch.equal(x, x * 2) else x,
    "a list": lambda x: x * len(x.sum(0).tolist()),
    "a boolean index": lambda x: x + x[x > 0].sum(),
    "an assignment by a boolean index": with_holes,
    "positions": lambda x: x + x.detach().nonzero().sum(),
    "different values": lambda x: x + x.detach().unique().sum(),
    "a copy to the host": lambda x: x + x.detach().cpu().to(x.device),
    "a copy from the host": lambda x: x * torch.ones(4).to(x.device),
    "Python's numbers": lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_waits_is_found(fault: str) -> None:
    batches = graphs_of(12, (0, 0), 0, torch.float32, TRIALS)
    assert traced(lambda sizes: Faulty(sizes, lambda x: x), batches)  # without the fault
    with pytest.raises(Waits):
        traced(lambda sizes: Faulty(sizes, FAULTS[fault]), batches)

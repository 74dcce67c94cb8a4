"""Training on a GPU: recorded epochs, stacks and precisions. Without a GPU, every test here is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from batches import READINGS, any_batch, graphs_of, system_of

from cemobam_core import Batch, TrainingConfig
from cemobam_core.systems import names, system_class
from cemobam_core.systems.system import NeuralSystem
from cemobam_core.training import loop
from cemobam_core.training.config import PRECISIONS, Precision
from cemobam_core.training.loop import TrainingResult, train_together
from cemobam_core.training.stacks import Stack
from cemobam_core.training.step import train_epoch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GPU = torch.device("cuda")
TRIALS = 3

# Adam turns the rounding noise in the gradient of a bias before a batch norm into steps. With the running statistics of
# the reading "released", these steps are seen in the logits.
ROUNDING = {"paper": 1e-3, "released": 5e-2}


@contextmanager
def refusing_to_wait() -> Iterator[None]:
    """Raise an error at each operation that waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def splits(reading: str, n: int = 24) -> list[dict[str, Batch]]:
    """Return the splits of several trials, each with graphs of its own."""
    gather_from = READINGS[reading].gather_from
    made = [graphs_of(n, (0, 0), seed, torch.float32, TRIALS, gather_from=gather_from) for seed in range(3)]
    return [dict(zip(("train", "val", "test"), trial, strict=True)) for trial in zip(*made, strict=True)]


def trained(
    reading: str, *, device: torch.device, precision: Precision = "fp32", **changes: object
) -> list[torch.Tensor]:
    """Return the test logits of several trials, trained as a stack."""
    training = replace(READINGS[reading].training, schedule="step", epochs=12, precision=precision, lr=1e-3)
    results = train_together(
        system_of(reading, **changes), splits(reading), training=training, seeds=range(TRIALS), device=device
    )
    logits = []
    for result in results:
        assert isinstance(result, TrainingResult)
        assert result.metrics["test"].logits is not None
        logits.append(result.metrics["test"].logits.cpu())
    return logits


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_an_epoch_never_waits_for_the_device_after_the_first(reading: str) -> None:
    batch = Batch.together([trial["train"] for trial in splits(reading)]).to(GPU)
    models = [system_of(reading).build(batch.sizes) for _ in range(TRIALS)]
    stack = Stack(models, [torch.Generator(GPU).manual_seed(i) for i in range(TRIALS)]).to(GPU).train()
    optimizer = torch.optim.Adam(stack.parameters(), lr=torch.tensor(1e-3, device=GPU), fused=True, capturable=True)
    train_epoch(stack, batch, optimizer)
    with refusing_to_wait():
        train_epoch(stack, batch, optimizer)
        optimizer.param_groups[0]["lr"].mul_(0.1)


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_recorded_epochs_learn_the_same_as_launched_ones(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = []
    original = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(1), original(self))[1])
    recorded = trained(reading, device=GPU)
    assert len(replays) == 12 - 3  # all but the first three epochs
    monkeypatch.setattr(loop, "Recorded", lambda step, *_: step)
    launched = trained(reading, device=GPU)
    assert len(replays) == 12 - 3
    torch.testing.assert_close(recorded, launched, rtol=0, atol=ROUNDING[reading])


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_a_gpu_learns_the_same_as_a_cpu(reading: str) -> None:
    # The devices draw different dropout masks, so there is no dropout here.
    ours, theirs = (trained(reading, device=torch.device(name), dropout=0.0) for name in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=max(0.02, 2 * ROUNDING[reading]))


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_a_trial_does_not_depend_on_its_companions(reading: str) -> None:
    together = trained(reading, device=GPU)
    training = replace(READINGS[reading].training, schedule="step", epochs=12, lr=1e-3)
    for seed, (own, expected) in enumerate(zip(splits(reading), together, strict=True)):
        (alone,) = train_together(system_of(reading), [own], training=training, seeds=[seed], device=GPU)
        assert isinstance(alone, TrainingResult)
        assert alone.metrics["test"].logits is not None
        torch.testing.assert_close(alone.metrics["test"].logits.cpu(), expected, rtol=0, atol=ROUNDING[reading])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns(precision: Precision) -> None:
    exact, rounded = (trained("paper", device=GPU, precision=p, dropout=0.0) for p in ("fp32", precision))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert torch.isfinite(ours).all()
        assert (ours - theirs).abs().max() < 0.5 * theirs.abs().max()


@pytest.mark.parametrize("name", [name for name in names() if issubclass(system_class(name), NeuralSystem)])
def test_every_neural_system_trains(name: str) -> None:
    batches = {split: any_batch(24, (0, 0), seed) for seed, split in enumerate(("train", "val", "test"))}
    training = TrainingConfig(epochs=6)
    for result in train_together(system_class(name)(), [batches] * 2, training=training, seeds=[0, 1], device=GPU):
        assert isinstance(result, TrainingResult)
        assert result.metrics["test"].loss > 0


def test_sequences_train() -> None:
    batches = {split: any_batch(24, (5, 7), seed) for seed, split in enumerate(("train", "val", "test"))}
    training = TrainingConfig(epochs=6)
    for result in train_together(system_of("paper"), [batches] * 2, training=training, seeds=[0, 1], device=GPU):
        assert isinstance(result, TrainingResult)

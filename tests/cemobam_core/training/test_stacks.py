"""A stack compared with single models. See test_why_alone.py for the models that can be stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from batches import (
    BEFORE_BATCH_NORM,
    READINGS,
    SIZES,
    TOLERANCE,
    any_batch,
    graphs_of,
    model_of,
    one_step,
    system_of,
)
from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from cemobam_core import Batch, NeuralSystem, Sizes, TrainingConfig, train
from cemobam_core.operators.fusion import FUSIONS
from cemobam_core.systems.cemobam import MODULES
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.training.loop import TrainingDiverged, TrainingResult, train_together
from cemobam_core.training.stacks import Stack
from cemobam_core.training.step import settle_batch_norm, train_epoch


def assert_each_is_alone(models: Sequence[nn.Module], batches: Sequence[Batch], seed: int, dtype: torch.dtype) -> None:
    """Compare logits, loss, every gradient, every statistic and the dropout with those of single models."""
    generators = [torch.Generator().manual_seed(seed + trial) for trial in range(len(models))]
    together = Stack(models, generators)
    logits = together(Batch.together(batches).inputs)
    assert logits.shape == (len(models), len(batches[0].labels), SIZES.num_classes)
    losses = [cross_entropy(of, batches[0].labels) for of in logits]
    sum(losses).backward()  # type: ignore[union-attr]
    tolerance = TOLERANCE[dtype]
    gradients = {name: weight.grad for name, weight in together.model.named_parameters()}
    for trial, (model, batch) in enumerate(zip(models, batches, strict=True)):
        alone = one_step(model, batch, seed=seed + trial)
        torch.testing.assert_close(logits[trial].detach(), alone["logits"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(losses[trial].detach(), alone["loss"], rtol=tolerance, atol=tolerance)
        assert torch.equal(torch.rand(1, generator=generators[trial]), alone["next random number"])
        assert gradients.keys() == dict(model.named_parameters()).keys()
        for name, mine in model.named_parameters():
            torch.testing.assert_close(
                gradients[name][trial].reshape(mine.shape),
                alone[f"gradient of {name}"],
                rtol=tolerance,
                atol=tolerance,
                msg=lambda m, n=name: f"gradient of {n}: {m}",
            )
        for name, mine in together.unstack(trial, type_of(model)).named_buffers():
            torch.testing.assert_close(mine, alone[name], rtol=tolerance, atol=tolerance)


def type_of(model: nn.Module) -> nn.Module:
    """Return a new model of the same system."""
    system: NeuralSystem = model.system
    return system.build(SIZES)


@given(
    reading=st.sampled_from(sorted(READINGS)),
    modules=st.sampled_from(MODULES),
    fusion=st.sampled_from(FUSIONS),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(2, 4),
    trials=st.integers(1, 4),
    n=st.integers(12, 30),
    steps=st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 1), (4, 0), (0, 3), (4, 3)]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_each_trial_of_a_stack_is_cemobam_alone(
    reading: str,
    modules: str,
    fusion: str,
    heads: int,
    layers: int,
    trials: int,
    n: int,
    steps: tuple[int, int],
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    batches = graphs_of(n, steps, seed, dtype, trials, gather_from=READINGS[reading].gather_from)
    torch.manual_seed(seed)
    system = system_of(reading, heads=heads, gat_layers=layers, modules=modules, fusion=fusion)
    models = [system.build(SIZES).to(dtype).train(training) for _ in range(trials)]
    assert_each_is_alone(models, batches, seed, dtype)


@given(
    hidden_dim=st.sampled_from([16, 33]),  # a single unit may be nearly dead, and batch norm divides by its variance
    layers=st.integers(1, 3),
    dropout=st.sampled_from([0.0, 0.3]),
    trials=st.integers(1, 4),
    steps=st.sampled_from([(0, 0), (4, 0), (4, 3)]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_each_trial_of_a_stack_is_a_perceptron_alone(
    hidden_dim: int,
    layers: int,
    dropout: float,
    trials: int,
    steps: tuple[int, int],
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(seed)
    system = ConcatMLP(hidden_dim=hidden_dim, layers=layers, dropout=dropout)
    models = [system.build(SIZES).to(dtype).train(training) for _ in range(trials)]
    for model in models:
        model.system = system  # type: ignore[assignment]
    assert_each_is_alone(models, graphs_of(20, steps, seed, dtype, trials), seed, dtype)


class Waits(TorchDispatchMode):
    """Record operations that would wait for the device on a GPU, which a recorded epoch must not do."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        indices = args[1] if name.startswith("index_put") or name == "index" else ()
        if name in WAITING or any(x is not None and x.dtype == torch.bool for x in indices):
            self.noted.add(name)
        return func(*args, **(kwargs or {}))


WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "masked_scatter_backward", "bincount", "equal"),
    *("repeat_interleave", "_unique2", "unique_dim", "unique_consecutive", "is_nonzero"),
}


@pairwise(reading=sorted(READINGS), steps=[(0, 0), (4, 3)], modules=MODULES, fusion=FUSIONS, precision=["fp32", "bf16"])
def test_no_epoch_but_the_first_waits_for_the_device(
    reading: str, steps: tuple[int, int], modules: str, fusion: str, precision: Any
) -> None:
    assert_only_the_first_waits([model_of(reading, modules=modules, fusion=fusion) for _ in range(2)], steps, precision)


def test_a_batch_norm_with_a_plain_average_does_not_wait_either() -> None:
    models = [ConcatMLP(hidden_dim=8, layers=2).build(SIZES) for _ in range(2)]
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = None
    assert_only_the_first_waits(models, (0, 0), "fp32")


def assert_only_the_first_waits(models: Sequence[nn.Module], steps: tuple[int, int], precision: Any) -> None:
    batch = Batch.together(graphs_of(20, steps, 0, torch.float32, 2))
    together = Stack(models, [torch.Generator(), torch.Generator()]).train()
    optimizer = torch.optim.SGD(together.parameters(), lr=0.1)  # Adam on the CPU waits, on a GPU it does not
    train_epoch(together, batch, optimizer, precision)
    with Waits() as waits:
        train_epoch(together, batch, optimizer, precision)
    assert waits.noted == set()


def test_a_stack_is_taken_apart_into_what_it_was_made_of() -> None:
    models = [model_of("paper") for _ in range(3)]
    together = Stack(models, [torch.Generator()] * 3)
    for trial, model in enumerate(models):
        again = together.unstack(trial, model_of("paper"))
        assert not again.training
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(models[0].parameters(), together.parameters(), strict=True))


@pairwise(reading=sorted(READINGS), modules=MODULES, steps=[(0, 0), (4, 3)], dtype=[torch.float64, torch.float32])
def test_a_training_of_20_epochs_together_is_each_alone(
    reading: str, modules: str, steps: tuple[int, int], dtype: torch.dtype
) -> None:
    gather_from = READINGS[reading].gather_from
    batches, vals = (graphs_of(60, steps, seed, dtype, 2, gather_from=gather_from) for seed in (0, 1))
    models, generators, states = [], [], []
    for seed in (5, 6):
        torch.manual_seed(seed)
        models.append(model_of(reading, modules=modules).to(dtype))
        states.append(torch.get_rng_state())
        generators.append(torch.Generator())
        generators[-1].set_state(states[-1])
    together = Stack(models, generators)

    def trained(model: nn.Module, batch: Batch, val: Batch) -> tuple[list[torch.Tensor], torch.Tensor]:
        for name, parameter in model.named_parameters():
            if name.endswith(BEFORE_BATCH_NORM):  # a batch norm that layers share does not quite cancel it
                parameter.requires_grad_(False)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4, fused=True)
        losses = []
        for _ in range(20):
            model.train()
            optimizer.zero_grad()
            logits = model(batch.inputs)
            each = [cross_entropy(one, batch.labels) for one in (logits if logits.ndim == 3 else [logits])]
            sum(each).backward()  # type: ignore[union-attr]
            optimizer.step()
            losses.append(torch.stack(each).detach())
        settle_batch_norm(model, batch)
        with torch.no_grad():
            return losses, model(val.inputs)

    losses, logits = trained(together, Batch.together(batches), Batch.together(vals))
    tolerance = TOLERANCE[dtype]
    for trial, model in enumerate(models):
        torch.set_rng_state(states[trial])
        expected, theirs = trained(model, batches[trial], vals[trial])
        for ours, alone in zip(losses, expected, strict=True):
            torch.testing.assert_close(ours[trial : trial + 1], alone, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(logits[trial], theirs, rtol=tolerance, atol=tolerance)


SYSTEMS = {**{name: system_of(name) for name in READINGS}, "concat_mlp": ConcatMLP(hidden_dim=16, layers=2)}


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_trials_trained_together_end_as_those_trained_alone(name: str) -> None:
    system, reading = SYSTEMS[name], READINGS.get(name, READINGS["paper"])
    splits = [
        dict(zip(("train", "val", "test"), of, strict=True))
        for of in zip(
            *(graphs_of(n, (0, 0), n, torch.float32, 3, gather_from=reading.gather_from) for n in (60, 40, 41)),
            strict=True,
        )
    ]
    training = replace(reading.training, epochs=6, schedule="step")
    before = torch.get_rng_state()
    together = train_together(system, splits, training=training, seeds=[3, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    again = train_together(system, splits[1:], training=training, seeds=[1, 2])
    for result, batches, seed in zip(together, splits, (3, 1, 2), strict=True):
        alone = train(system, batches, training=training, seed=seed)
        assert isinstance(result, TrainingResult)
        assert result.metrics.keys() == alone.metrics.keys()
        for split, metrics in alone.metrics.items():
            assert result.metrics[split].loss == pytest.approx(metrics.loss, rel=1e-4)
            assert abs(result.metrics[split].wa - metrics.wa) < 0.06  # one or two utterances on the boundary
        assert result.curve.keys() == alone.curve.keys()
    for with_two, with_three in zip(again, together[1:], strict=True):
        assert isinstance(with_two, TrainingResult)
        assert isinstance(with_three, TrainingResult)
        assert with_two.metrics["val"].loss == pytest.approx(with_three.metrics["val"].loss, rel=1e-6)


def test_an_epoch_of_a_stack_takes_the_step_that_each_would_take_alone() -> None:
    """Use plain gradient descent, which shows the size of a gradient. Adam's steps hide it."""
    batches = graphs_of(24, (0, 0), 0, torch.float64, 3)
    models = [model_of("paper", dropout=0.0).double() for _ in batches]
    together = Stack(models, [torch.Generator() for _ in batches]).train()
    losses = train_epoch(together, Batch.together(batches), torch.optim.SGD(together.parameters(), lr=0.5))
    for trial, (model, batch) in enumerate(zip(models, batches, strict=True)):
        loss = train_epoch(model.train(), batch, torch.optim.SGD(model.parameters(), lr=0.5))
        torch.testing.assert_close(losses[trial], loss)
        again = together.unstack(trial, model_of("paper"))
        for mine, alone in zip(again.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, alone)


@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
def test_in_bf16_a_stack_rounds_as_each_alone_does(steps: tuple[int, int]) -> None:
    batches = graphs_of(40, steps, 0, torch.float32, 2)
    splits = [{"train": batch, "val": batch} for batch in batches]
    training = TrainingConfig(epochs=3, precision="bf16")
    for result, split, seed in zip(
        train_together(system_of("paper"), splits, training=training, seeds=[1, 2]), splits, (1, 2), strict=True
    ):
        assert isinstance(result, TrainingResult)
        alone = train(system_of("paper"), split, training=training, seed=seed)
        assert result.metrics["val"].loss == pytest.approx(alone.metrics["val"].loss, rel=0.03)
        assert isinstance(result.model, nn.Module)
        assert {p.dtype for p in result.model.parameters()} == {torch.float32}


@dataclass(frozen=True, kw_only=True)
class BrokenBySeed(NeuralSystem):
    """CemoBAM with NaN weights for one seed."""

    broken: int = 2

    def build(self, sizes: Sizes) -> nn.Module:
        model = system_of("paper").build(sizes)
        if torch.initial_seed() == self.broken:
            model.classifier[0].weight.data.fill_(float("nan"))
        return model


def test_one_that_diverges_takes_no_other_with_it() -> None:
    good, bad = graphs_of(40, (0, 0), 0, torch.float32, 2)
    training = TrainingConfig(epochs=3)
    alone = train(system_of("paper"), {"train": good, "val": good}, training=training, seed=1)
    batches = [{"train": good, "val": good}, {"train": bad, "val": bad}]
    results = train_together(BrokenBySeed(), batches, training=training, seeds=[1, 2])
    assert isinstance(results[1], TrainingDiverged)
    assert "nan at epoch 1" in str(results[1])
    assert isinstance(results[0], TrainingResult)
    assert results[0].metrics["val"].loss == pytest.approx(alone.metrics["val"].loss, rel=1e-5)
    both = train_together(BrokenBySeed(), batches, training=training, seeds=[2, 2])
    assert [str(result) for result in both] == ["the training loss is nan at epoch 1"] * 2


def test_a_learning_rate_of_each_trials_own_is_for_one_alone() -> None:
    batch = {"train": any_batch(20, (0, 0), 0, k=(1, 1))}
    with pytest.raises(ValueError, match="its own learning rate"):
        train_together(system_of("paper"), [batch] * 2, training=TrainingConfig(schedule="plateau"), seeds=[0, 1])

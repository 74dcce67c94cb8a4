"""``weights="best_epoch"``: the weights that are measured and returned are those of the best epoch on validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from batches import any_batch
from torch import nn

from cemobam_core import Batch, NeuralSystem, Sizes, TrainingConfig, evaluate, train
from cemobam_core.systems import system_class
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.training.loop import TrainingResult, _Best, train_together
from cemobam_core.training.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Double(NeuralSystem):
    """The same system in float64: a stack adds in another order, and Adam turns rounding noise into steps."""

    of: Any = None

    def build(self, sizes: Sizes) -> nn.Module:
        made: nn.Module = self.of.build(sizes).double()
        return made


SYSTEMS = {
    "concat_mlp": ConcatMLP(hidden_dim=12),
    "hemogat": system_class("hemogat")(hidden_dim=8, heads=2),
    "memocmt": system_class("memocmt")(hidden_dim=8, heads=2, classifier_dim=6),
}
TRAINING = TrainingConfig(epochs=9, lr=0.03, weights="best_epoch")


def noise(steps: tuple[int, int] = (0, 0), dtype: torch.dtype = torch.float32) -> dict[str, Batch]:
    """Splits with random labels, so that validation is best before the last epoch."""
    return {
        name: any_batch(n, steps, seed, dtype)
        for seed, (name, n) in enumerate({"train": 40, "val": 31, "test": 30}.items())
    }


def state_of(result: TrainingResult) -> dict[str, torch.Tensor]:
    assert isinstance(result.model, nn.Module)
    return result.model.state_dict()


def best_of(system: Any, batches: dict[str, Batch], training: TrainingConfig, seed: int) -> tuple[int, TrainingResult]:
    """The best epoch and its result, found by training up to every epoch."""
    last = replace(training, weights="last_epoch")
    results = [
        train(system, batches, training=replace(last, epochs=e), seed=seed) for e in range(1, training.epochs + 1)
    ]
    scores = [(one.metrics["val"].wa, -one.metrics["val"].loss) for one in results]
    best = scores.index(max(scores))
    return best + 1, results[best]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("batch_norm", ["settled", "running"])
def test_they_are_those_of_a_training_that_ends_at_the_best_epoch(name: str, batch_norm: Any) -> None:
    system, batches, training = SYSTEMS[name], noise((4, 3)), replace(TRAINING, batch_norm=batch_norm)
    epochs = []
    for seed in range(2):
        epoch, expected = best_of(system, batches, training, seed)
        epochs.append(epoch)
        result = train(system, batches, training=training, seed=seed)
        assert result.metrics == expected.metrics
        for weight, value in state_of(expected).items():
            assert torch.equal(state_of(result)[weight], value), weight
    assert min(epochs) < training.epochs


def test_metrics_are_of_the_returned_model_and_the_curve_is_that_of_the_training() -> None:
    batches = noise()
    result = train(SYSTEMS["concat_mlp"], batches, training=TRAINING, seed=1)
    for name, batch in batches.items():
        assert evaluate(result.model, batch) == result.metrics[name]
    last = train(SYSTEMS["concat_mlp"], batches, training=replace(TRAINING, weights="last_epoch"), seed=1)
    assert result.curve == last.curve
    assert result.metrics["val"].wa >= max(result.curve.values())
    assert list(result.metrics) == list(batches)


def test_the_rate_falls_at_a_plateau_as_without_it() -> None:
    batches, training = noise(), replace(TRAINING, schedule="plateau", lr_patience=1, lr_gamma=0.5)
    epoch, expected = best_of(SYSTEMS["concat_mlp"], batches, training, 0)
    assert train(SYSTEMS["concat_mlp"], batches, training=training, seed=0).metrics == expected.metrics
    assert epoch < training.epochs


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_trial_of_a_stack_keeps_its_own_best_epoch(name: str) -> None:
    system, batches, seeds = Double(of=SYSTEMS[name]), noise((4, 3), torch.float64), range(3)
    together = train_together(system, [batches] * 3, training=TRAINING, seeds=seeds)
    epochs = set()
    for seed, result in zip(seeds, together, strict=True):
        epoch, alone = best_of(system, batches, TRAINING, seed)
        epochs.add(epoch)
        assert isinstance(result, TrainingResult)
        for split, metrics in alone.metrics.items():
            assert result.metrics[split].confusion == metrics.confusion
            assert result.metrics[split].loss == pytest.approx(metrics.loss, rel=1e-4)
        for batch in batches.values():  # its statistics come from that epoch too
            torch.testing.assert_close(result.model(batch.inputs), alone.model(batch.inputs), rtol=1e-3, atol=1e-3)
    assert len(epochs) > 1


def measured(wa: float, loss: float) -> Metrics:
    return Metrics(loss=loss, scores={"wa": wa}, confusion=())


@pytest.mark.parametrize(
    ("course", "best"),
    [
        ([(0.5, 1.0), (0.6, 2.0), (0.55, 0.1)], 1),  # by WA first
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 1),  # then by loss
        ([(0.5, 1.0), (0.5, 1.0)], 0),  # then the earlier one
        ([(0.0, 3.0), (0.0, 2.0)], 1),
        ([(0.4, 1.0), (0.9, float("nan")), (0.8, float("inf"))], 0),  # never an epoch without a finite loss
        ([(0.4, float("nan")), (0.5, float("nan"))], 1),  # no finite epoch: keep the last one
    ],
)
def test_the_best_epoch_is_that_of_the_highest_wa_then_the_lowest_loss(
    course: list[tuple[float, float]], best: int
) -> None:
    model = nn.Linear(1, 1)
    kept = _Best(model)
    for epoch, (wa, loss) in enumerate(course):
        with torch.no_grad():
            model.weight.fill_(epoch)
        kept.update([measured(wa, loss)])
    kept.restore()
    assert model.weight.item() == best

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cemobam_core import Batch, CemoBAM, CemoBAMConfig, Fold, InputError, TrainingConfig, evaluate, train
from cemobam_core.config import MODULES
from cemobam_core.training.loop import TrainingDiverged, settle_batch_norm

CONFIG = CemoBAMConfig(audio_dim=12, text_dim=12, hidden_dim=8, heads=2)
QUICK = TrainingConfig(epochs=6, lr=3e-3)


@pytest.fixture
def batches(small_fold: Fold) -> dict[str, Batch]:
    return {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}


@pytest.mark.parametrize("modules", MODULES)
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(batches: dict[str, Batch], modules: str) -> None:
    config = replace(CONFIG, modules=modules)
    first = train(config, batches, training=QUICK, seed=3)
    torch.rand(17)  # whatever was drawn in between
    again = train(config, batches, training=QUICK, seed=3)
    assert again.metrics == first.metrics
    assert again.curve == first.curve
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert train(config, batches, training=QUICK, seed=4).metrics["train"].loss != first.metrics["train"].loss


def test_the_callers_random_state_is_left_alone(batches: dict[str, Batch]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(CONFIG, batches, training=QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_what_can_be_learnt(batches: dict[str, Batch]) -> None:
    result = train(CONFIG, batches, training=TrainingConfig(epochs=60, lr=1e-2, lr_step=100))
    assert result.metrics["train"].wa > 0.95
    assert result.metrics["test"].wa > 0.7


def test_metrics_are_of_the_model_that_is_given(batches: dict[str, Batch]) -> None:
    result = train(CONFIG, batches, training=QUICK)
    assert set(result.metrics) == {"train", "val", "test"}
    assert {name: evaluate(result.model, batch) for name, batch in batches.items()} == result.metrics
    assert result.curve[6] == result.metrics["val"].wa


@pytest.mark.parametrize(
    ("epochs", "looked_at"), [(1, [1]), (6, [1, 2, 3, 4, 5, 6]), (100, list(range(10, 101, 10))), (25, None)]
)
def test_the_curve_has_ten_points_at_most_and_ends_at_the_last_epoch(
    batches: dict[str, Batch], epochs: int, looked_at: list[int] | None
) -> None:
    curve = train(replace(CONFIG, modules="no_chgat"), batches, training=replace(QUICK, epochs=epochs)).curve
    assert len(curve) == min(10, epochs)
    assert list(curve)[-1] == epochs
    if looked_at:
        assert list(curve) == looked_at


def test_the_steps_are_adams_with_the_rate_decayed_by_steps(batches: dict[str, Batch]) -> None:
    training = TrainingConfig(epochs=5, lr=1e-2, weight_decay=0.1, lr_step=2, lr_gamma=0.5)
    config = replace(CONFIG, dropout=0.0)
    result = train(config, batches, training=training, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CemoBAM(config)
    batch = batches["train"]
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    for epoch in range(5):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 ** (epoch // 2)
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(batch.logits(model), batch.labels).backward()
        optimizer.step()
    for (name, ours), theirs in zip(result.model.named_parameters(), model.parameters(), strict=True):
        if name.startswith("chgat.hidden") and name.endswith("bias"):
            continue  # batch norm takes it away again: its gradient is rounding noise, which Adam makes steps of
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_settled_batch_norm_has_the_statistics_of_the_split_as_evaluation_sees_it(batches: dict[str, Batch]) -> None:
    torch.manual_seed(0)
    model, batch = CemoBAM(CONFIG), batches["train"]
    settle_batch_norm(model, batch)
    norm = model.audio_projection.layers[1]
    projected = model.audio_projection.layers[0](batch.audio)
    torch.testing.assert_close(norm.running_mean, projected.mean(dim=0))
    torch.testing.assert_close(norm.running_var, projected.var(dim=0))
    assert not any(module.training for module in model.modules())
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d)} == {0.1}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settle_batch_norm(model, batch)  # deeper norms see settled inputs the first time already
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)


def test_a_diverging_training_says_when(batches: dict[str, Batch]) -> None:
    with pytest.raises(TrainingDiverged, match=r"loss is nan at epoch \d"):
        train(CONFIG, batches, training=replace(QUICK, lr=1e30))


def test_bf16_runs_and_stays_close(batches: dict[str, Batch]) -> None:
    config = replace(CONFIG, dropout=0.0)
    plain = train(config, batches, training=QUICK).metrics["train"].loss
    rounded = train(config, batches, training=replace(QUICK, precision="bf16")).metrics["train"].loss
    assert rounded != plain
    assert rounded == pytest.approx(plain, rel=0.1)


def test_tf32_is_refused_where_it_does_not_exist(batches: dict[str, Batch]) -> None:
    with pytest.raises(InputError, match="tf32"):
        train(CONFIG, batches, training=replace(QUICK, precision="tf32"))

"""Recomputed segments: the same numbers, with fewer tensors kept."""

from __future__ import annotations

import pytest
import torch
from batches import READINGS, any_batch, system_of

from cemobam_core import TrainingConfig, train
from cemobam_core.operators.recompute import recomputing
from cemobam_core.systems.hemogat import HemoGAT
from cemobam_core.training.footprint import bytes_of_training

SYSTEMS = {**{reading: system_of(reading) for reading in READINGS}, "hemogat": HemoGAT(hidden_dim=32)}


@pytest.mark.parametrize("steps", [(0, 0), (3, 4)])
@pytest.mark.parametrize("batch", [0, 12])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_training_is_the_same_to_the_bit(system: str, batch: int, steps: tuple[int, int]) -> None:
    batches = {name: any_batch(40, steps, seed) for seed, name in enumerate(("train", "val", "test"))}
    kept, recomputed = (
        train(
            SYSTEMS[system],
            batches,
            training=TrainingConfig(epochs=4, lr=1e-2, batch=batch, recompute=on, batch_norm="running"),
        )
        for on in (False, True)
    )
    assert recomputed.metrics == kept.metrics
    ours, theirs = (result.model.state_dict() for result in (recomputed, kept))  # type: ignore[attr-defined]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_fewer_tensors_are_kept() -> None:
    sample = any_batch(64, (0, 0), 0)
    kept, recomputed = (
        bytes_of_training(SYSTEMS["paper"], sample, TrainingConfig(recompute=on), train=5000, largest=100)
        for on in (False, True)
    )
    assert recomputed < kept / 2


def test_the_setting_ends_with_its_block() -> None:
    batch = any_batch(20, (0, 0), 0)
    model, calls = SYSTEMS["paper"].build(batch.sizes), []
    model.get_submodule("chgat.last").register_forward_pre_hook(lambda *_: calls.append("last"))
    with pytest.raises(RuntimeError, match="stop"), recomputing(on=True):
        model(batch.inputs).sum().backward()
        assert len(calls) == 2
        with torch.no_grad():
            model(batch.inputs)
        assert len(calls) == 3
        raise RuntimeError("stop")
    model(batch.inputs).sum().backward()
    assert len(calls) == 4

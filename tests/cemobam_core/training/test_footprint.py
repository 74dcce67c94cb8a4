"""The estimate of the memory that a training needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import SIZES, any_batch
from runs import ended, start_python

from cemobam_core import CemoBAM, TrainingConfig
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.training.footprint import _Tracked, bytes_of_training

WHOLE, PARTS = TrainingConfig(), TrainingConfig(batch=100)


def needed(n: int, training: TrainingConfig = WHOLE, *, hidden_dim: int = 16, val: int = 10) -> int:
    """Return the estimate for CemoBAM."""
    system, sample = CemoBAM(hidden_dim=hidden_dim), any_batch(min(n, 80), (0, 0), 0)
    return bytes_of_training(system, sample, training, train=n, largest=max(n, val))


def test_what_a_training_needs_of_memory_grows_with_the_batch_and_the_model() -> None:
    small, large = needed(100), needed(1000)
    assert 5 * small < large < 15 * small
    assert needed(100, hidden_dim=64) > 2 * small
    weights = sum(4 * p.numel() for p in CemoBAM(hidden_dim=512).build(SIZES).parameters())
    assert needed(10, hidden_dim=512) > 4 * weights


def test_in_mini_batches_it_grows_only_with_what_an_evaluation_keeps() -> None:
    assert needed(100, PARTS) == needed(100)
    assert needed(3000, PARTS) < needed(3000) / 2
    assert needed(3000, TrainingConfig(batch=100, step_after="epoch")) == needed(3000)
    assert needed(3000, PARTS, val=9000) == needed(9000, PARTS)
    whole = any_batch(80, (0, 0), 0)
    without = replace(whole, inputs=replace(whole.inputs, edge_index=whole.inputs.edge_index[:, :0]))
    parts, full = (
        bytes_of_training(ConcatMLP(), without, training, train=50_000, largest=50_000) for training in (PARTS, WHOLE)
    )
    assert parts < full / 50


def test_an_estimate_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    needed(50)
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_is_that_of_the_tensors_that_exist_at_the_same_time() -> None:
    x = torch.ones(1000)
    with _Tracked() as tracked:
        y = x + 1
        view = y.view(10, 100)
        del y
        assert tracked.now == 4000
        z = view.flatten() * 2
        z.mul_(3)
        assert tracked.now == 8000
        del view
        assert tracked.now == 4000
        weight = torch.ones(1000, requires_grad=True)
        loss = (z * weight).exp().sum()
    assert tracked.now == pytest.approx(4000 + 4000 + 4000, abs=10)  # z, the weight and the exponential
    del loss
    assert tracked.now == 8000


ESTIMATED = """
import sys
import torch
from cemobam_core import Batch, CemoBAM, Inputs, TrainingConfig
from cemobam_core.training.footprint import bytes_of_training
edges = torch.arange(70).repeat(2, 1)
batch = Batch(Inputs.from_features(torch.ones(70, 8), torch.ones(70, 8), edges), torch.arange(70) % 2, 2)
assert bytes_of_training(CemoBAM(hidden_dim=16), batch, TrainingConfig(batch=9), train=70, largest=70) > 0
loaded = {"torch._dynamo", "triton"} & set(sys.modules)
assert not loaded, loaded
"""


def test_an_estimate_does_not_load_torchs_compiler() -> None:
    ended(start_python("-c", ESTIMATED))

"""A stack of models against each of them alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import BEFORE_BATCH_NORM, TOLERANCE, any_batch, config_of, graphs_of, one_step, plain
from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from cemobam_core import Batch, CemoBAM, TrainingConfig, fast, train
from cemobam_core.config import FUSIONS, MODULES, PROFILES
from cemobam_core.training.loop import TrainingDiverged, TrainingResult, settle_batch_norm, train_epoch, train_together
from cemobam_core.training.stacks import stack, unstack


@given(
    profile=st.sampled_from(sorted(PROFILES)),
    modules=st.sampled_from(MODULES),
    fusion=st.sampled_from(FUSIONS),
    heads=st.sampled_from([1, 2, 4]),
    trials=st.integers(1, 4),
    n=st.integers(12, 30),
    steps=st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 1), (4, 0), (0, 3), (4, 3)]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_each_trial_of_a_stack_is_the_reference_alone(
    profile: str,
    modules: str,
    fusion: str,
    heads: int,
    trials: int,
    n: int,
    steps: tuple[int, int],
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    """Logits, loss, every gradient, every statistic, and the dropout."""
    config = config_of(profile, heads=heads, modules=modules, fusion=fusion)
    turned = PROFILES[profile].graph.gather_from == "choosers"
    batches = graphs_of(n, steps, seed, dtype, trials, turned=turned)
    torch.manual_seed(seed)
    models = [CemoBAM(config).to(dtype).train(training) for _ in range(trials)]
    generators = [torch.Generator().manual_seed(seed + trial) for trial in range(trials)]
    together = stack(models, generators)
    logits = Batch.together(batches).logits(together)
    assert logits.shape == (trials, n, 3)
    losses = [cross_entropy(of, batches[0].labels) for of in logits]
    sum(losses).backward()  # type: ignore[union-attr]
    tolerance = TOLERANCE[dtype]
    for trial, (model, batch) in enumerate(zip(models, batches, strict=True)):
        alone = one_step(model, batch, reference=True, seed=seed + trial)
        torch.testing.assert_close(logits[trial].detach(), alone["logits"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(losses[trial].detach(), alone["loss"], rtol=tolerance, atol=tolerance)
        assert torch.equal(torch.rand(1, generator=generators[trial]), alone["next random number"])
        for (name, stacked), mine in zip(together.named_parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(
                stacked.grad[trial].reshape(mine.shape),
                alone[f"gradient of {name}"],
                rtol=tolerance,
                atol=tolerance,
                msg=lambda m, n=name: f"gradient of {n}: {m}",
            )
        for name, mine in unstack(together, trial).named_buffers():
            torch.testing.assert_close(mine, alone[name], rtol=tolerance, atol=tolerance)


class Waits(TorchDispatchMode):
    """Notes what on a GPU would wait for a number from the device, which no recorded epoch can."""

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


@pairwise(profile=sorted(PROFILES), steps=[(0, 0), (4, 3)], modules=MODULES, fusion=FUSIONS, precision=["fp32", "bf16"])
def test_no_epoch_but_the_first_waits_for_the_device(
    profile: str, steps: tuple[int, int], modules: str, fusion: str, precision: Any
) -> None:
    batch = Batch.together(graphs_of(20, steps, 0, torch.float32, 2, turned=False))
    models = [CemoBAM(config_of(profile, modules=modules, fusion=fusion)) for _ in range(2)]
    together = stack(models, [torch.Generator(), torch.Generator()]).train()
    optimizer = torch.optim.SGD(together.parameters(), lr=0.1)  # Adam on the CPU waits, on a GPU it does not
    train_epoch(together, batch, optimizer, precision)
    with Waits() as waits:
        train_epoch(together, batch, optimizer, precision)
    assert waits.noted == set()


def test_a_stack_is_taken_apart_into_what_it_was_made_of() -> None:
    models = [CemoBAM(config_of("paper")) for _ in range(3)]
    together = stack(models, [torch.Generator()] * 3)
    for trial, model in enumerate(models):
        again = unstack(together, trial)
        assert not again.training
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(models[0].parameters(), together.parameters(), strict=True))


@pairwise(profile=sorted(PROFILES), modules=MODULES, steps=[(0, 0), (4, 3)], dtype=[torch.float64, torch.float32])
def test_a_training_of_20_epochs_together_is_each_alone(
    profile: str, modules: str, steps: tuple[int, int], dtype: torch.dtype
) -> None:
    config, turned = config_of(profile, modules=modules), PROFILES[profile].graph.gather_from == "choosers"
    batches, vals = (graphs_of(60, steps, seed, dtype, 2, turned=turned) for seed in (0, 1))
    models, generators, states = [], [], []
    for seed in (5, 6):
        torch.manual_seed(seed)
        models.append(CemoBAM(config).to(dtype))
        states.append(torch.get_rng_state())
        generators.append(torch.Generator())
        generators[-1].set_state(states[-1])
    together = stack(models, generators)

    def trained(
        model: CemoBAM, batch: Batch, val: Batch, *, reference: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        for name, parameter in model.named_parameters():
            if name.endswith(BEFORE_BATCH_NORM):  # which a norm that layers share does not quite take away again
                parameter.requires_grad_(False)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=5e-4, fused=True)
        losses = []
        for _ in range(20):
            model.train()
            optimizer.zero_grad()
            logits = plain(model, batch) if reference else batch.logits(model)
            each = [cross_entropy(one, batch.labels) for one in (logits if logits.ndim == 3 else [logits])]
            sum(each).backward()  # type: ignore[union-attr]
            optimizer.step()
            losses.append(torch.stack(each).detach())
        settle_batch_norm(model, batch)
        with torch.no_grad():
            return losses, plain(model, val) if reference else val.logits(model)

    losses, logits = trained(together, Batch.together(batches), Batch.together(vals), reference=False)
    tolerance = TOLERANCE[dtype]
    for trial, model in enumerate(models):
        torch.set_rng_state(states[trial])
        expected, theirs = trained(model, batches[trial], vals[trial], reference=True)
        for ours, alone in zip(losses, expected, strict=True):
            torch.testing.assert_close(ours[trial : trial + 1], alone, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(logits[trial], theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_trials_trained_together_end_as_those_trained_alone(profile: str) -> None:
    turned = PROFILES[profile].graph.gather_from == "choosers"
    config = config_of(profile)
    splits = [
        dict(zip(("train", "val", "test"), of, strict=True))
        for of in zip(*(graphs_of(n, (0, 0), n, torch.float32, 3, turned=turned) for n in (60, 40, 41)), strict=True)
    ]
    training = replace(PROFILES[profile].training, epochs=6, schedule="step")
    before = torch.get_rng_state()
    together = train_together(config, splits, training=training, seeds=[3, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    again = train_together(config, splits[1:], training=training, seeds=[1, 2])
    for result, batches, seed in zip(together, splits, (3, 1, 2), strict=True):
        alone = train(config, batches, training=training, seed=seed)
        assert isinstance(result, TrainingResult)
        assert result.metrics.keys() == alone.metrics.keys()
        for name, metrics in alone.metrics.items():
            assert result.metrics[name].loss == pytest.approx(metrics.loss, rel=1e-4)
            assert abs(result.metrics[name].wa - metrics.wa) < 0.06  # one or two utterances on the edge
        assert result.curve.keys() == alone.curve.keys()
    for with_two, with_three in zip(again, together[1:], strict=True):
        assert isinstance(with_two, TrainingResult)
        assert isinstance(with_three, TrainingResult)
        assert with_two.metrics["val"].loss == pytest.approx(with_three.metrics["val"].loss, rel=1e-6)


def test_an_epoch_of_a_stack_takes_the_step_that_each_would_take_alone() -> None:
    """With plain gradient descent, which shows the size of a gradient; Adam's steps hide it."""
    batches = graphs_of(24, (0, 0), 0, torch.float64, 3, turned=False)
    models = [CemoBAM(config_of("paper", dropout=0.0)).double() for _ in batches]
    together = stack(models, [torch.Generator() for _ in batches]).train()
    losses = train_epoch(together, Batch.together(batches), torch.optim.SGD(together.parameters(), lr=0.5))
    for trial, (model, batch) in enumerate(zip(models, batches, strict=True)):
        loss = train_epoch(model.train(), batch, torch.optim.SGD(model.parameters(), lr=0.5))
        torch.testing.assert_close(losses[trial], loss)
        for mine, alone in zip(unstack(together, trial).parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, alone)


@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
def test_in_bf16_a_stack_rounds_as_each_alone_does(steps: tuple[int, int]) -> None:
    batches = graphs_of(40, steps, 0, torch.float32, 2, turned=False)
    splits = [{"train": batch, "val": batch} for batch in batches]
    training = TrainingConfig(epochs=3, precision="bf16")
    for result, split, seed in zip(
        train_together(config_of("paper"), splits, training=training, seeds=[1, 2]), splits, (1, 2), strict=True
    ):
        assert isinstance(result, TrainingResult)
        alone = train(config_of("paper"), split, training=training, seed=seed)
        assert result.metrics["val"].loss == pytest.approx(alone.metrics["val"].loss, rel=0.03)
        assert {p.dtype for p in result.model.parameters()} == {torch.float32}


def test_one_that_diverges_takes_no_other_with_it() -> None:
    config = config_of("paper")
    good, bad = graphs_of(40, (0, 0), 0, torch.float32, 2, turned=False)
    training = TrainingConfig(epochs=3)
    alone = train(config, {"train": good, "val": good}, training=training, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        made: list[CemoBAM] = []
        init = CemoBAM.__init__

        def broken(self: CemoBAM, *arguments: object) -> None:
            init(self, *arguments)  # type: ignore[arg-type]
            made.append(self)
            if len(made) == 2:
                self.classifier[0].weight.data.fill_(float("nan"))

        patch.setattr(CemoBAM, "__init__", broken)
        batches = [{"train": good, "val": good}, {"train": bad, "val": bad}]
        results = train_together(config, batches, training=training, seeds=[1, 2])
    assert isinstance(results[1], TrainingDiverged)
    assert "nan at epoch 1" in str(results[1])
    assert isinstance(results[0], TrainingResult)
    assert results[0].metrics["val"].loss == pytest.approx(alone.metrics["val"].loss, rel=1e-5)


def test_a_gpu_without_triton_trains_one_by_one_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert fast.stacks("cuda:1", 1)
    assert (fast.stacks("cpu", 1), fast.stacks("cpu", 2)) == (False, True)
    monkeypatch.setattr(fast, "find_spec", lambda _: None)
    for _ in range(3):
        assert not fast.stacks("cuda", 8)
    assert caplog.text.count("needs Triton") == 1


def test_a_learning_rate_of_each_trials_own_is_for_one_alone() -> None:
    batch = {"train": any_batch(20, (0, 0), 0, torch.float32, k=(1, 1), turned=False)}
    with pytest.raises(ValueError, match="learning rate of its own"):
        train_together(config_of("paper"), [batch] * 2, training=TrainingConfig(schedule="plateau"), seeds=[0, 1])

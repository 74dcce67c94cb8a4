from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from batches import SIZES, any_batch, model_of
from threadpoolctl import threadpool_info
from torch import Tensor, nn

from cemobam_core import (
    Batch,
    CemoBAM,
    EstimatorSystem,
    Fold,
    InputError,
    Inputs,
    NeuralSystem,
    Sizes,
    System,
    TrainingConfig,
    evaluate,
    train,
)
from cemobam_core.operators.sparse_attention import Adjacency
from cemobam_core.systems.cemobam import MODULES, CemoBAMNetwork
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.logistic import Logistic
from cemobam_core.training import memory
from cemobam_core.training.loop import TrainingDiverged, train_together
from cemobam_core.training.step import settle_batch_norm, train_epoch

SYSTEM = CemoBAM(hidden_dim=8, heads=2)
QUICK = TrainingConfig(epochs=6, lr=3e-3)


@pytest.fixture
def batches(small_fold: Fold) -> dict[str, Batch]:
    return {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}


def weights_of(model: object) -> dict[str, Tensor]:
    assert isinstance(model, nn.Module)
    return model.state_dict()


@pytest.mark.parametrize("modules", MODULES)
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(batches: dict[str, Batch], modules: str) -> None:
    system = replace(SYSTEM, modules=modules)
    first = train(system, batches, training=QUICK, seed=3)
    torch.rand(17)  # random numbers drawn in between
    again = train(system, batches, training=QUICK, seed=3)
    assert again.metrics == first.metrics
    assert again.curve == first.curve
    for name, value in weights_of(first.model).items():
        assert torch.equal(value, weights_of(again.model)[name]), name
    assert train(system, batches, training=QUICK, seed=4).metrics["train"].loss != first.metrics["train"].loss


def test_the_callers_random_state_is_left_alone(batches: dict[str, Batch]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(SYSTEM, batches, training=QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_what_can_be_learnt(batches: dict[str, Batch]) -> None:
    result = train(SYSTEM, batches, training=TrainingConfig(epochs=60, lr=1e-2, lr_step=100))
    assert result.metrics["train"].wa > 0.95
    assert result.metrics["test"].wa > 0.7


def test_metrics_are_of_the_model_that_is_given(batches: dict[str, Batch]) -> None:
    result = train(SYSTEM, batches, training=QUICK)
    assert set(result.metrics) == {"train", "val", "test"}
    assert {name: evaluate(result.model, batch) for name, batch in batches.items()} == result.metrics
    assert result.curve[6] == result.metrics["val"].wa


@pytest.mark.parametrize(
    ("epochs", "looked_at"), [(1, [1]), (6, [1, 2, 3, 4, 5, 6]), (100, list(range(10, 101, 10))), (25, None)]
)
def test_the_curve_has_ten_points_at_most_and_ends_at_the_last_epoch(
    batches: dict[str, Batch], epochs: int, looked_at: list[int] | None
) -> None:
    curve = train(replace(SYSTEM, modules="no_chgat"), batches, training=replace(QUICK, epochs=epochs)).curve
    assert len(curve) == min(10, epochs)
    assert list(curve)[-1] == epochs
    if looked_at:
        assert list(curve) == looked_at


def test_the_steps_are_adams_with_the_rate_decayed_by_steps(batches: dict[str, Batch]) -> None:
    training = TrainingConfig(epochs=5, lr=1e-2, weight_decay=0.1, lr_step=2, lr_gamma=0.5)
    system = replace(SYSTEM, dropout=0.0)
    result = train(system, batches, training=training, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = system.build(batches["train"].sizes)
    batch = batches["train"]
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    for epoch in range(5):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 ** (epoch // 2)
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    trained = weights_of(result.model)
    for name, theirs in model.named_parameters():
        if name.startswith("chgat.hidden") and name.endswith("bias"):
            continue  # batch norm cancels it: its gradient is rounding noise, which Adam turns into steps
        torch.testing.assert_close(trained[name], theirs.detach(), rtol=1e-4, atol=1e-5, msg=name)


def test_settled_batch_norm_has_the_statistics_of_the_split_as_evaluation_sees_it(batches: dict[str, Batch]) -> None:
    torch.manual_seed(0)
    batch = batches["train"]
    model = SYSTEM.build(batch.sizes)
    settle_batch_norm(model, batch)
    norm = model.audio_projection.layers[1]
    projected = model.audio_projection.layers[0](batch.inputs.audio.pooled)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, projected.mean(dim=0))
    torch.testing.assert_close(norm.running_var, projected.var(dim=0))
    assert not any(module.training for module in model.modules())
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm1d)} == {0.1}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settle_batch_norm(model, batch)  # deeper norms already receive settled inputs in the first pass
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)


def settled_plainly(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the statistics after one complete forward pass in which only batch norms are in training mode."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(batch.inputs)
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
    return {name: value.clone() for name, value in model.named_buffers()}


class Passes:
    """Count how often a module is called, and how often it returns."""

    def __init__(self, module: nn.Module) -> None:
        self.begun = self.ended = 0
        module.register_forward_pre_hook(lambda *_: setattr(self, "begun", self.begun + 1))
        module.register_forward_hook(lambda *_: setattr(self, "ended", self.ended + 1))


class TheirNorms(nn.Module):
    """A network with batch norms of torch-geometric."""

    def __init__(self) -> None:
        from torch_geometric.nn import BatchNorm, GCNConv

        super().__init__()
        self.convolution, self.norm = GCNConv(SIZES.audio_dim, 8, add_self_loops=False), BatchNorm(8)
        self.last = nn.Linear(8, SIZES.num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        hidden = self.norm(self.convolution(inputs.audio.pooled, inputs.edge_index))
        out: Tensor = self.last(hidden.relu())
        return out


class OverTime(nn.Module):
    """A network that calls one batch norm for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(SIZES.audio_dim, 8), nn.BatchNorm1d(8)
        self.last = nn.Linear(8, SIZES.num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        steps = [self.norm(self.first(inputs.audio[:, t])) for t in range(inputs.audio.shape[1])]
        out: Tensor = self.last(torch.stack(steps).mean(dim=0))
        return out


NETWORKS = {
    **{f"cemobam {modules}": (lambda m=modules: model_of("paper", modules=m), "classifier") for modules in MODULES},
    "a norm that layers share": (lambda: model_of("released", gat_layers=4), "classifier"),
    "a perceptron": (lambda: ConcatMLP(hidden_dim=8, layers=3).build(SIZES), "classifier"),
    "torch-geometric's": (TheirNorms, "last"),
    "one norm for all steps": (OverTime, "last"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
def test_settling_ends_with_the_last_batch_norm_and_gives_the_same(name: str, steps: tuple[int, int]) -> None:
    torch.manual_seed(0)
    build, after = NETWORKS[name]
    model, batch = build(), any_batch(30, steps, 0)
    whole, rest = Passes(model), Passes(model.get_submodule(after))
    expected = settled_plainly(model, batch)
    assert (whole.begun, rest.begun) == (1, 1)
    for time in range(3):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.01)
        state = torch.get_rng_state()
        settle_batch_norm(model.train(), batch)
        assert torch.equal(torch.get_rng_state(), state)
        # our first pass is complete, to count the batch norm calls; later passes stop after the last batch norm
        assert (whole.begun, rest.begun) == (2 + 2 * time, 2 + time)
        assert not any(module.training for module in model.modules())
        ours = {name: value.clone() for name, value in model.named_buffers()}
        expected = settled_plainly(model, batch)
        assert ours.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in ours.items())
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, nn.BatchNorm1d))


def test_settling_counts_again_for_other_shapes() -> None:
    torch.manual_seed(0)
    model = OverTime()
    for steps in (2, 5, 3, 5):
        batch = any_batch(30, (steps, 0), steps)
        settle_batch_norm(model, batch)
        ours = {name: value.clone() for name, value in model.named_buffers()}
        expected = settled_plainly(model, batch)
        assert all(torch.equal(value, expected[name]) for name, value in ours.items())


def test_without_batch_norms_settling_runs_nothing() -> None:
    class Plain(nn.Module):
        def forward(self, _: Inputs) -> Tensor:
            pytest.fail("it was run")

    model = Plain().train()
    settle_batch_norm(model, any_batch(20, (0, 0), 0))
    assert not model.training


def test_an_error_while_settling_leaves_the_norms_as_they_were() -> None:
    model = model_of("paper")
    with pytest.raises(InputError, match="audio embeddings have 4 numbers"):
        settle_batch_norm(model, Batch(Inputs.from_features(torch.randn(6, 4), torch.randn(6, 6)), torch.zeros(6), 3))
    assert not any(module._forward_hooks for module in model.modules())
    assert {(m.momentum, m.training) for m in model.modules() if isinstance(m, nn.BatchNorm1d)} == {(0.1, False)}


def test_a_diverging_training_says_when(batches: dict[str, Batch]) -> None:
    with pytest.raises(TrainingDiverged, match=r"loss is nan at epoch \d"):
        train(SYSTEM, batches, training=replace(QUICK, lr=1e30))


def test_bf16_runs_and_stays_close(batches: dict[str, Batch]) -> None:
    system = replace(SYSTEM, dropout=0.0)
    plain = train(system, batches, training=QUICK).metrics["train"].loss
    rounded = train(system, batches, training=replace(QUICK, precision="bf16")).metrics["train"].loss
    assert rounded != plain
    assert rounded == pytest.approx(plain, rel=0.1)


def test_tf32_is_refused_where_it_does_not_exist(batches: dict[str, Batch]) -> None:
    with pytest.raises(InputError, match="tf32"):
        train(SYSTEM, batches, training=replace(QUICK, precision="tf32"))


def test_training_computes_nothing_of_a_batch_twice(batches: dict[str, Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    plainly = Adjacency.from_edges
    monkeypatch.setattr(Adjacency, "from_edges", lambda *given: made.append(given) or plainly(*given))
    train(SYSTEM, batches, training=TrainingConfig(epochs=4))
    assert len(made) == 3  # once per split, for any number of epochs and layers


@dataclass(frozen=True, kw_only=True)
class Odd(NeuralSystem):
    """A system whose forward returns a given value."""

    gives: Any

    def build(self, sizes: Sizes) -> nn.Module:
        given = self.gives

        class OddNetwork(nn.Linear):
            def forward(self, inputs: Inputs) -> Any:  # type: ignore[override]
                return given(super().forward(inputs.audio.pooled))

        return OddNetwork(sizes.audio_dim, sizes.num_classes)


@pytest.mark.parametrize(
    ("gives", "given"),
    [
        (lambda x: x[:-1], r"\(39, 4\)"),
        (lambda x: x[:, :3], r"\(40, 3\)"),
        (lambda x: x.unsqueeze(0), r"\(1, 40, 4\)"),
        (lambda x: x.flatten(), r"\(160,\)"),
        (lambda x: (x, None), "a tuple"),
        (lambda _: None, "a NoneType"),
    ],
)
def test_a_forward_of_another_shape_is_told(batches: dict[str, Batch], gives: Any, given: str) -> None:
    message = rf"OddNetwork: forward returned {given}; return logits \(40, 4\), one for each utterance and class"
    with pytest.raises(InputError, match=message):
        train(Odd(gives=gives), batches, training=QUICK)


def test_evaluation_tells_of_another_shape_too(batches: dict[str, Batch]) -> None:
    model = SYSTEM.build(replace(batches["val"].sizes, num_classes=7))
    with pytest.raises(InputError, match=r"CemoBAMNetwork: forward returned \(24, 7\); return logits \(24, 4\)"):
        evaluate(model, batches["val"])


def test_a_training_leaves_the_process_as_it_was(batches: dict[str, Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    """A call in a notebook must not change process settings of workers, such as glibc's handling of freed memory."""
    asked = []
    opened = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *of, **more: asked.append(name) or opened(name, *of, **more))
    memory.keep_freed_memory.cache_clear()

    def of_process() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            list(warnings.filters),
        )

    def train_all() -> None:
        for system in (SYSTEM, ConcatMLP(hidden_dim=8), Logistic()):
            train_together(system, [batches] * 2, training=QUICK, seeds=[0, 1])

    train_all()  # loads libraries, which add warning filters and thread pools
    before, pools = of_process(), threadpool_info()
    train_all()
    with pytest.raises(TrainingDiverged):
        train(SYSTEM, batches, training=replace(QUICK, lr=1e30))
    assert of_process() == before
    assert threadpool_info() == pools
    # Thread pools are limited temporarily, and the handling of freed memory does not change.
    assert not any(name is None or "libc.so" in str(name) for name in asked)


def test_a_step_is_taken_in_the_mode_that_the_model_is_in(batches: dict[str, Batch]) -> None:
    model = SYSTEM.build(batches["train"].sizes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    state = torch.get_rng_state()
    losses = [train_epoch(model.eval(), batches["train"], optimizer).item() for _ in range(2)]
    assert losses[0] == losses[1] == evaluate(model, batches["train"]).loss
    assert torch.equal(torch.get_rng_state(), state)
    assert train_epoch(model.train(), batches["train"], optimizer).item() != losses[0]


def test_a_system_says_what_it_is() -> None:
    assert issubclass(NeuralSystem, System)
    assert issubclass(EstimatorSystem, System)
    for kind in (NeuralSystem, EstimatorSystem):
        with pytest.raises(TypeError, match="abstract"):
            kind()


def test_the_trained_network_is_cemobams(batches: dict[str, Batch]) -> None:
    model = train(SYSTEM, batches, training=QUICK).model
    assert isinstance(model, CemoBAMNetwork)
    assert model.system == SYSTEM
    assert model.embedding(batches["val"].inputs).shape == (24, 16)

"""Mini-batches: what they hold, and what they change in a training and in an evaluation, which is nothing if exact."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from batches import SIZES, any_batch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cemobam_core import Batch, CemoBAM, Fold, InputError, Inputs, TrainingConfig, train
from cemobam_core.systems import NeuralSystem, names, system_class
from cemobam_core.training.parts import Parts, clusters
from cemobam_core.training.reach import Reach, reach
from cemobam_core.training.step import logits_of, measure, train_epoch, train_in_parts

NEURAL = [name for name in names() if issubclass(system_class(name), NeuralSystem)]
LAYERS = {"cemobam": 3, "hemogat": 3, "gcn": 2, "gatv2": 2, "graphsage": 2, "graph_transformer": 2}
STEPS = [(0, 0), (3, 4)]


def double(name: str, batch: Batch) -> nn.Module:
    """Return a model of a system in float64."""
    torch.manual_seed(0)
    system = system_class(name)()
    assert isinstance(system, NeuralSystem)
    return system.build(batch.sizes).double()


def batch_for(name: str, steps: tuple[int, int], n: int = 23, seed: int = 0) -> Batch:
    """Return random utterances in float64, with a graph if the system uses one."""
    batch = any_batch(n, steps, seed, torch.float64)
    return batch if system_class(name).uses_graph else without_graph(batch)


def without_graph(batch: Batch) -> Batch:
    """Return a batch without edges."""
    return replace(batch, inputs=replace(batch.inputs, edge_index=batch.inputs.edge_index[:, :0]))


def numbered(n: int, edge_index: Tensor) -> Batch:
    """Return utterances whose embeddings are their number."""
    x = torch.arange(n, dtype=torch.float32)[:, None]
    return Batch(Inputs.from_features(x, x, edge_index), torch.arange(n) % 3, 3)


@given(n=st.integers(2, 60), size=st.integers(2, 70), edges=st.integers(0, 4), seed=st.integers(0, 99))
def test_an_epoch_has_every_utterance_once_with_the_edges_within_its_mini_batch(
    n: int, size: int, edges: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, n * edges), generator=generator).unique(dim=1)
    parts = Parts(numbered(n, edge_index), size)
    torch.manual_seed(seed)
    epoch = list(parts.shuffled())
    members = [part.inputs.audio.flatten().long().tolist() for part in epoch]
    everyone = [i for own in members for i in own]
    assert len(set(everyone)) == len(everyone)
    assert n - len(everyone) <= math.ceil(n / size) - len(epoch)  # mini-batches of one utterance are left out
    for part, own in zip(epoch, members, strict=True):
        assert part.labels.tolist() == [i % 3 for i in own]
        within = {(a, b) for a, b in edge_index.T.tolist() if a in own and b in own}
        assert {(own[a], own[b]) for a, b in part.inputs.edge_index.T.tolist()} == within
    if size >= n:
        assert len(epoch) == 1


def test_mini_batches_differ_between_epochs_but_not_between_two_runs() -> None:
    batch = any_batch(400, (0, 0), 0)
    parts = Parts(batch, 50)

    def drawn() -> list[list[float]]:
        return [part.inputs.audio[:, 0, 0].tolist() for part in parts.shuffled()]

    torch.manual_seed(1)
    first, second = drawn(), drawn()
    torch.manual_seed(1)
    assert drawn() == first != second
    assert all(40 <= len(part) <= 60 for part in first)
    state = torch.get_rng_state()
    fixed = [[part.labels.tolist() for part in parts.fixed()] for _ in range(2)]
    assert fixed[0] == fixed[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_clusters_are_those_that_few_edges_leave() -> None:
    groups = torch.arange(60).reshape(6, 10)
    edges = torch.cat(
        [torch.cartesian_prod(group, group) for group in groups] + [groups[:, :1].roll(1, 0).repeat(1, 2)]
    )
    shuffle = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    found = clusters(shuffle[edges.T], 60, 6)
    assert all(len(found[shuffle[group]].unique()) == 1 for group in groups)
    assert len(found.unique()) == 6
    assert torch.equal(clusters(shuffle[edges.T], 60, 6), found)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", NEURAL)
def test_the_gradient_of_an_epoch_is_that_of_the_whole_split(name: str, steps: tuple[int, int]) -> None:
    batch = batch_for(name, steps)
    model = double(name, batch).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    losses, gradients = [], []
    for parts in (None, Parts(batch, 6)):
        if parts:
            losses.append(train_in_parts(model, parts, optimizer, accumulate=True))
        else:
            losses.append(train_epoch(model, batch, optimizer))
        gradients.append([torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in model.parameters()])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-8, atol=1e-10)
    assert any(gradient.any() for gradient in gradients[0])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", NEURAL)
def test_the_logits_in_parts_are_those_of_the_whole_split(name: str, steps: tuple[int, int]) -> None:
    batch = batch_for(name, steps)
    model = double(name, batch).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model, batch.inputs, 5), model(batch.inputs), rtol=1e-10, atol=1e-10)
    assert measure(model, batch, at_once=5)[0].confusion == measure(model, batch)[0].confusion


@pytest.mark.parametrize("modules", ["full", "no_xcbam", "no_chgat"])
def test_cemobam_computes_at_once_only_what_needs_the_graph(modules: str) -> None:
    batch = any_batch(20, (3, 4), 0)
    if modules == "no_chgat":
        batch = without_graph(batch)
    model = CemoBAM(hidden_dim=8, heads=2, modules=modules).build(SIZES).eval()  # type: ignore[arg-type]
    seen = []
    model.audio_projection.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model, batch.inputs, 6), model(batch.inputs))
    assert seen == [6, 6, 6, 2, 20]


def test_the_reach_of_a_model_is_its_number_of_graph_layers() -> None:
    for name in NEURAL:
        found = reach(double(name, batch := batch_for(name, (0, 0))), batch.inputs)
        assert found == Reach(LAYERS.get(name, 0), both_ways=False), name
    five = CemoBAM(gat_layers=5, hidden_dim=8).build(SIZES)
    assert reach(five, any_batch(5, (2, 3), 0).inputs).edges == 5


class Mixing(nn.Module):
    """A model whose logits depend on all utterances."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZES.audio_dim, SIZES.num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Return logits, less their mean over the utterances."""
        logits: Tensor = self.layer(inputs.audio.pooled)
        return logits - logits.mean(dim=0)


def test_a_model_that_mixes_all_utterances_has_no_exact_mini_batches() -> None:
    parts = Parts(any_batch(20, (0, 0), 0), 5)
    with pytest.raises(InputError, match=r"Mixing: .* without an edge to it, .* leave step_after out"):
        train_in_parts(Mixing(), parts, torch.optim.SGD([torch.zeros(1)]), accumulate=True)
    with pytest.raises(InputError, match="over 12 edges or more"):
        reach(
            CemoBAM(gat_layers=14, hidden_dim=4, heads=1, cbam_reduction=1).build(SIZES), any_batch(5, (0, 0), 0).inputs
        )


@pytest.fixture
def batches(small_fold: Fold) -> dict[str, Batch]:
    return {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}


SMALL = CemoBAM(hidden_dim=8, heads=2)


@pytest.mark.parametrize("batch_norm", ["settled", "running"])
@pytest.mark.parametrize("step_after", ["batch", "epoch"])
def test_a_training_in_mini_batches_is_reproducible_and_learns(
    batches: dict[str, Batch], batch_norm: str, step_after: str
) -> None:
    settings = TrainingConfig(epochs=12, lr=3e-3, batch=16, batch_norm=batch_norm, step_after=step_after)  # type: ignore[arg-type]
    state = torch.get_rng_state()
    first, second = (train(SMALL, batches, training=settings, seed=3) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.curve == second.curve
    assert torch.equal(torch.get_rng_state(), state)
    assert (
        first.metrics["train"].loss < train(SMALL, batches, training=replace(settings, epochs=1)).metrics["train"].loss
    )
    assert train(SMALL, batches, training=settings, seed=4).metrics != first.metrics


def test_a_mini_batch_as_large_as_the_split_is_the_full_batch(batches: dict[str, Batch]) -> None:
    no_dropout = replace(SMALL, dropout=0.0)  # the order of the mini-batches is drawn from the same numbers
    whole = TrainingConfig(epochs=5, lr=3e-3)
    one = replace(whole, batch=len(batches["train"].labels))
    expected, found = (train(no_dropout, batches, training=each) for each in (whole, one))
    for name, metrics in expected.metrics.items():
        assert found.metrics[name].loss == pytest.approx(metrics.loss, abs=1e-5)
        assert found.metrics[name].predicted == metrics.predicted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 1}, "batch=1: a batch norm needs at least two utterances"),
        ({"batch": -5}, "batch=-5 must be a whole number of at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TrainingConfig(**settings)  # type: ignore[arg-type]

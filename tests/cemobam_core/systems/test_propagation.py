"""Label propagation and Correct and Smooth: examples by hand, torch-geometric's results, and hidden labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from batches import joint_batches
from torch import Tensor
from torch_geometric.nn import CorrectAndSmooth as TheirCorrectAndSmooth
from torch_geometric.nn import LabelPropagation as TheirLabelPropagation
from torch_geometric.utils import to_undirected

from cemobam_core import Batch, FeatureSet, Fold, GraphConfig, InputError, Inputs, Sizes, train
from cemobam_core.systems.correct_and_smooth import CorrectAndSmooth
from cemobam_core.systems.label_propagation import LabelPropagation
from cemobam_core.systems.logistic import Logistic
from cemobam_core.systems.propagation import HIDDEN, PropagationSystem, symmetric

SYSTEMS = [LabelPropagation(layers=5), CorrectAndSmooth(c=0.1, correct_layers=5, smooth_layers=5)]
SIZES = Sizes(audio_dim=2, text_dim=2, num_classes=2)


def nodes(n: int, edges: list[tuple[int, int]]) -> Inputs:
    x = torch.arange(2 * n, dtype=torch.float32).view(n, 2)
    loops = [(i, i) for i in range(n)]
    return Inputs.from_features(x, -x, torch.tensor([*loops, *edges]).T)


def first(inputs: Inputs, n: int) -> Inputs:
    return inputs.part(torch.arange(n))


def test_labels_go_along_a_path_of_four() -> None:
    """0 – 1 – 2 – 3, of which 0 is of class 0 and 1 of class 1, one step with α = 1/2.

    Degrees 1, 2, 2, 1: node 2 gets α / √(2 · 2) of node 1's label, node 3 nothing: it has the frequencies.
    """
    path = nodes(4, [(1, 0), (1, 2), (2, 3)])  # either end may be the chooser
    system = LabelPropagation(layers=1, alpha=0.5)
    model = system.fit(first(path, 2), torch.tensor([0, 1]), SIZES, 0)
    expected = torch.tensor([[0.5, 0.5 / 2**0.5], [0.5 / 2**0.5, 0.5], [0.0, 0.25], [0.5, 0.5]])
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model(path).softmax(dim=1), expected)
    # After two steps node 3 has α / √2 of the score of node 2, all for class 1.
    twice = replace(system, layers=2).fit(first(path, 2), torch.tensor([0, 1]), SIZES, 0)(path)
    torch.testing.assert_close(twice.softmax(dim=1)[3], torch.tensor([0.0, 1.0]))


def test_a_graph_is_made_symmetric_without_loops() -> None:
    edges = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 0, 0]])
    assert symmetric(edges, 4).tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]


def test_it_is_torch_geometrics_label_propagation(small_fold: Fold) -> None:
    batches = joint_batches(small_fold.splits, 3, 2)
    result = train(LabelPropagation(layers=7, alpha=0.8), batches)
    test, n = batches["test"], len(small_fold.train)
    labels = torch.cat([small_fold.train.labels, torch.zeros_like(test.labels)])
    edges = test.inputs.edge_index
    edges = to_undirected(edges[:, edges[0] != edges[1]])
    theirs = TheirLabelPropagation(7, 0.8)(labels, edges, mask=torch.arange(n))
    assert result.metrics["test"].logits is not None
    torch.testing.assert_close(
        result.metrics["test"].logits.softmax(dim=1), theirs[n:] / theirs[n:].sum(dim=1, keepdim=True)
    )
    assert result.metrics["test"].wa > 0.5


@pytest.mark.parametrize("autoscale", [True, False])
def test_it_is_torch_geometrics_correct_and_smooth(small_fold: Fold, autoscale: bool) -> None:
    batches = joint_batches(small_fold.splits, 3, 2)
    system = CorrectAndSmooth(c=0.1, correct_layers=4, smooth_layers=3, correct_alpha=0.7, autoscale=autoscale)
    test, n = batches["test"], len(small_fold.train)
    base = train(Logistic(c=0.1), batches).model(test.inputs).softmax(dim=1)
    edges = test.inputs.edge_index
    edges = to_undirected(edges[:, edges[0] != edges[1]])
    post = TheirCorrectAndSmooth(4, 0.7, 3, 0.8, autoscale=autoscale)
    theirs = post(base, small_fold.train.labels, torch.arange(n), edges)[n:]
    ours = train(system, batches).metrics["test"].logits
    assert ours is not None
    torch.testing.assert_close(ours.softmax(dim=1), theirs / theirs.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("system", SYSTEMS)
def test_labels_of_evaluation_do_not_reach_a_prediction(small_fold: Fold, system: PropagationSystem) -> None:
    batches = joint_batches(small_fold.splits, 3, 2)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    mixed = {
        name: batch if name == "train" else replace(batch, labels=batch.labels[order])
        for name, batch in batches.items()
    }
    ours, theirs = train(system, batches).metrics, train(system, mixed).metrics
    for name in batches:
        assert ours[name].logits is not None
        torch.testing.assert_close(ours[name].logits, theirs[name].logits, rtol=0, atol=0)


def test_a_training_utterance_is_not_told_its_own_label(small_fold: Fold) -> None:
    """An utterance's label does not change its own logits, but changes those of its neighbours in another fifth."""
    batch = joint_batches(small_fold.splits, 3, 2)["train"]
    system = LabelPropagation(layers=5)

    def logits(labels: Tensor) -> Tensor:
        return system.fit(batch.inputs, labels, batch.sizes, 0)(batch.inputs)

    other = batch.labels.clone()
    other[7] = (other[7] + 1) % 4
    before, after = logits(batch.labels), logits(other)
    hidden = torch.arange(40) % HIDDEN == 7 % HIDDEN
    torch.testing.assert_close(before[hidden], after[hidden])
    assert not torch.equal(before, after)


def test_random_labels_are_not_found_in_the_train_split(small_fold: Fold) -> None:
    batch = joint_batches(small_fold.splits, 3, 2)["train"]
    random = replace(batch, labels=torch.randint(4, (40,), generator=torch.Generator().manual_seed(3)))
    wa = train(LabelPropagation(), {"train": random, "val": random}).metrics["train"].wa
    assert wa < 0.5


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_order_of_utterances_does_not_matter(small_fold: Fold, system: PropagationSystem) -> None:
    orders = {
        name: torch.randperm(len(split), generator=torch.Generator().manual_seed(4)).tolist()
        for name, split in small_fold.splits.items()
    }
    mixed = {name: split.select(orders[name], source=name) for name, split in small_fold.splits.items()}
    ours = train(system, joint_batches(small_fold.splits, 3, 2)).metrics["test"].logits
    theirs = train(system, joint_batches(mixed, 3, 2)).metrics["test"].logits
    assert ours is not None
    torch.testing.assert_close(ours[orders["test"]], theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_graph_without_the_training_utterances_is_refused(small_fold: Fold, system: PropagationSystem) -> None:
    own = {
        name: Batch.from_features(split, split.rank(3).edge_index(3, 2)) for name, split in small_fold.splits.items()
    }
    with pytest.raises(InputError, match="starts with the 40 training utterances; give evaluation_graph=joint"):
        train(system, own)
    for graph in ("own", "anchored"):
        with pytest.raises(InputError, match=rf"evaluation_graph={graph}: .* give evaluation_graph=joint"):
            system.check_graph(GraphConfig(evaluation_graph=graph))  # type: ignore[arg-type]
    system.check_graph(GraphConfig(evaluation_graph="joint"))


def test_an_utterance_that_no_label_reaches_has_the_frequencies() -> None:
    apart = nodes(3, [])
    model = LabelPropagation().fit(first(apart, 2), torch.tensor([0, 0]), SIZES, 0)
    torch.testing.assert_close(model(apart).softmax(dim=1)[2], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("system", SYSTEMS)
def test_sequences_of_another_length_than_trains_are_labelled(
    make_features: Callable[..., FeatureSet], system: PropagationSystem
) -> None:
    splits = {
        "train": make_features(40, seed=1, name="train", steps=4),
        "val": make_features(24, seed=2, name="val", steps=7),
    }
    metrics = train(system, joint_batches(splits, 3, 2)).metrics
    assert metrics["val"].wa > 0.5

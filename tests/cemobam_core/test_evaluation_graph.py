"""The graphs in which validation and test are measured, and the order of ties."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import (
    Batch,
    CemoBAM,
    FeatureSet,
    Fold,
    GraphConfig,
    InputError,
    TopKGraph,
    TrainingConfig,
    candidates,
    train,
)
from cemobam_core import neighbours as module
from cemobam_core.anchors import Anchors
from cemobam_core.graph import Ranking, in_parts
from cemobam_core.neighbours import Neighbours, Pooled, Ties
from cemobam_core.training.loop import evaluate, train_together
from cemobam_core.training.step import measure

Make = Callable[..., FeatureSet]
Ends = Literal["chosen", "choosers"]

TIES: tuple[Ties, ...] = ("index", "random", "all")
ENDS: tuple[Ends, ...] = ("chosen", "choosers")


def pairs(edges: torch.Tensor) -> set[tuple[int, int]]:
    """Return edges as (source, target) pairs."""
    made = list(map(tuple, edges.T.tolist()))
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    return set(made)


def angles(*degrees: float) -> torch.Tensor:
    """Return embeddings in a plane with the given angles."""
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def both(x: torch.Tensor) -> Pooled:
    return Pooled(x, x)


def loops(n: int) -> set[tuple[int, int]]:
    return {(i, i) for i in range(n)}


# By hand: four training utterances at 0°, 10°, 30° and 90°. Their nearest neighbours are 1, 0, 1 and 2.
TRAIN = angles(0, 10, 30, 90)


def test_an_anchored_utterance_gathers_from_its_nearest_training_utterances() -> None:
    graph = Ranking.of(both(TRAIN), 2).anchored(both(angles(12, 80)), "chosen")
    own = {(1, 0), (0, 1), (1, 2), (2, 3)}
    assert pairs(graph.edge_index(1, 1)) == loops(6) | own | {(1, 4), (3, 5)}
    more = {(2, 0), (2, 1), (0, 2), (1, 3)}
    assert pairs(graph.edge_index(2, 1)) == loops(6) | own | more | {(1, 4), (0, 4), (3, 5), (2, 5)}


def test_an_anchored_utterance_gathers_from_those_that_would_choose_it() -> None:
    graph = Ranking.of(both(TRAIN), 2).anchored(both(angles(12, 80, 200)), "choosers")
    own = {(0, 1), (1, 0), (2, 1), (3, 2)}  # each chooser is the source
    # 12° is nearer to 10° and to 30° than their nearest are, and 80° is to 90°. None would choose 200°.
    assert pairs(graph.edge_index(1, 1)) == loops(7) | own | {(1, 4), (2, 4), (3, 5)}
    with_two = pairs(graph.edge_index(2, 2))
    assert {edge for edge in with_two if edge[1] == 4} == {(4, 4), (0, 4), (1, 4), (2, 4), (3, 4)}
    assert {edge for edge in with_two if edge[1] == 6} == {(6, 6)}


def test_a_new_utterance_that_is_as_near_as_one_of_the_nearest_comes_after_it() -> None:
    twins = angles(0, 10, 10, 90)
    new = both(angles(10))  # as near to 0° as its nearest neighbours, 1 and 2
    assert {s for s, t in pairs(Ranking.of(both(twins), 2).anchored(new, "choosers").edge_index(2, 2)) if t == 4} == {
        4,
        1,  # its second nearest, at 0°, is further away
        2,
    }
    # with ties "all", 0° and 90° also choose it: both twins and the new one are their nearest
    every = Ranking.of(both(twins), 2, ties="all").anchored(new, "choosers")
    assert {s for s, t in pairs(every.edge_index(2, 2)) if t == 4} == {4, 0, 1, 2, 3}


def test_joint_ranks_both_splits_together() -> None:
    together = Ranking.of(Pooled.joined([both(TRAIN), both(angles(12, 80))]), 1).graph("chosen")
    expected = TopKGraph.from_features(angles(0, 10, 30, 90, 12, 80), angles(0, 10, 30, 90, 12, 80), 1)
    assert torch.equal(together.edge_index(1, 1), expected.edge_index(1, 1))
    assert (4, 1) in pairs(together.edge_index(1, 1))  # a training utterance gathers from a measured one


def test_parts_do_not_see_one_another() -> None:
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    edges = in_parts(both(x), 4, 16, "chosen").edge_index(4, 3)
    neighbours = torch.zeros(50, 50, dtype=torch.bool)
    neighbours[edges[0], edges[1]] = True
    component = (neighbours | neighbours.T).double()
    for _ in range(6):
        component = (component @ component > 0).double()
    sizes = sorted(len(rows) for rows in {tuple(row.nonzero().flatten().tolist()) for row in component})
    assert sizes == [16, 17, 17]
    rows = next(row.nonzero().flatten() for row in component)
    alone = TopKGraph.from_features(x[rows], x[rows], 4).edge_index(4, 3)
    inside = edges[:, torch.isin(edges[1], rows)]
    assert pairs(rows[alone]) == pairs(inside)


@pytest.mark.parametrize("size", [26, 50, 60])
def test_a_split_that_is_not_large_enough_for_two_parts_is_whole(size: int) -> None:
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    whole = TopKGraph.from_features(x, x, 4)
    assert torch.equal(
        in_parts(both(x), 4, size, "choosers").edge_index(2, 4), whole.edge_index(2, 4, gather_from="choosers")
    )


def repeated(n: int, sentences: int, seed: int) -> torch.Tensor:
    """Return repeated embeddings in random order."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(sentences, 6, generator=generator)
    return base[torch.randint(sentences, (n,), generator=generator)]


@given(st.integers(0, 1000), st.sampled_from(TIES), st.sampled_from(ENDS), st.tuples(*[st.integers(1, 5)] * 2))
def test_one_by_one_is_all_at_once(seed: int, ties: Ties, ends: Ends, k: tuple[int, int]) -> None:
    known, new = Pooled(torch.randn(20, 6), repeated(20, 6, seed)), Pooled(torch.randn(8, 6), repeated(8, 6, seed))
    ranking = Ranking.of(known, 5, ties=ties, seed=seed)
    edges = ranking.anchored(new, ends).edge_index(*k)
    among_train = edges[:, (edges < 20).all(dim=0)]
    assert torch.equal(among_train, ranking.graph(ends).edge_index(*k))  # as it was in training
    assert pairs(edges[:, edges[0] >= 20]) == {(i, i) for i in range(20, 28)}  # none gathers from a new one
    for i in range(8):
        alone = ranking.anchored(new.select(torch.tensor([i])), ends).edge_index(*k)
        mine = alone[0, alone[1] == 20]
        assert torch.equal(torch.where(mine == 20, 20 + i, mine), edges[0, edges[1] == 20 + i])


@given(seed=st.integers(0, 1000), ties=st.sampled_from(TIES), ends=st.sampled_from(ENDS))
def test_graphs_are_nested_in_k(seed: int, ties: Ties, ends: Ends) -> None:
    known, new = both(repeated(24, 5, seed)), both(repeated(6, 5, seed))
    large, small = (Ranking.of(known, k, ties=ties, seed=seed) for k in (6, 3))
    for k in (1, 2, 3):
        assert torch.equal(large.graph(ends).edge_index(k, k), small.graph(ends).edge_index(k, k))
        assert torch.equal(large.anchored(new, ends).edge_index(k, 1), small.anchored(new, ends).edge_index(k, 1))
    every = [pairs(large.anchored(new, ends).edge_index(k, k)) for k in range(1, 7)]
    assert all(less <= more for less, more in itertools.pairwise(every))


# Ties.


@given(seed=st.integers(0, 1000), ends=st.sampled_from(ENDS))
def test_with_all_ties_the_order_of_the_utterances_does_not_matter(seed: int, ends: Ends) -> None:
    x, order = repeated(30, 6, seed), torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    edges = Ranking.of(both(x), 3, ties="all").graph(ends).edge_index(3, 2)
    shuffled = Ranking.of(both(x[order]), 3, ties="all").graph(ends).edge_index(3, 2)
    assert pairs(edges) == set(map(tuple, order[shuffled].T.tolist()))


def test_all_that_tie_with_the_kth_nearest_are_linked() -> None:
    x = both(angles(0, 10, 10, 10, 90))
    graph = Ranking.of(x, 2, ties="all").graph("chosen")
    assert pairs(graph.edge_index(1, 1)) == loops(5) | {
        *((s, 0) for s in (1, 2, 3)),
        *((s, t) for s in (1, 2, 3) for t in (1, 2, 3)),
        *((s, 4) for s in (1, 2, 3)),
    }
    # 10° has two twins, so K = 2 links no more; for 0° and 90° three neighbours tie for two places
    assert torch.equal(graph.edge_index(2, 2), graph.edge_index(1, 1))


def test_index_takes_the_first_of_those_that_tie() -> None:
    x = both(angles(0, 10, 10, 10, 90))
    assert {s for s, t in pairs(Ranking.of(x, 2).graph("chosen").edge_index(2, 2)) if t == 4} == {4, 1, 2}
    assert torch.equal(
        Ranking.of(x, 2).graph("chosen").edge_index(2, 1), TopKGraph.from_features(*x, 2).edge_index(2, 1)
    )


def test_random_ties_are_those_of_the_seed() -> None:
    x = both(repeated(60, 4, 0))

    def edges(seed: int) -> torch.Tensor:
        return Ranking.of(x, 3, ties="random", seed=seed).graph("chosen").edge_index(3, 3)

    assert torch.equal(edges(1), edges(1))
    assert not torch.equal(edges(1), edges(2))
    without = both(torch.randn(60, 6, generator=torch.Generator().manual_seed(0)))
    one, other = (Ranking.of(without, 3, ties="random", seed=seed).graph("chosen").edge_index(3, 3) for seed in (1, 2))
    assert torch.equal(one, other)  # without ties
    # all tied neighbours are equally good: over many seeds each is chosen
    x0 = angles(0, 9, 9, 9)
    firsts = [Neighbours.among(x0, 1, ties="random", seed=seed).links.chosen[0] for seed in range(60)]
    assert set(map(int, firsts)) == {1, 2, 3}


def test_chunks_do_not_change_any_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    known, new = both(repeated(40, 7, 1)), both(repeated(9, 7, 1))

    def made() -> list[torch.Tensor]:
        rankings = [Ranking.of(known, 4, ties=ties, seed=2) for ties in TIES]
        return [ranking.anchored(new, ends).edge_index(4, 3) for ranking in rankings for ends in ENDS]

    whole = made()
    monkeypatch.setattr(candidates, "_CHUNK_ELEMENTS", 90)
    assert all(map(torch.equal, made(), whole))


def test_more_ties_than_a_graph_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKS", 100)
    x = both(repeated(40, 2, 0))
    with pytest.raises(
        InputError, match=r"--ties all: too many utterances are equally similar, so K=3 would link more"
    ):
        Ranking.of(x, 3, ties="all")
    assert Ranking.of(x, 3).graph("chosen").edge_index(3, 3).shape[1] > 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation_size": 5}, "evaluation_size=5 is too small for K 5,5: it must be at least 6"),
        ({"evaluation_size": -1}, "evaluation_size=-1 must be a whole number of at least 0"),
        ({"evaluation_size": 20, "evaluation_graph": "joint"}, "with evaluation_graph=joint, leave it out"),
        ({"evaluation_size": 20, "evaluation_graph": "anchored"}, "with evaluation_graph=anchored, leave it out"),
    ],
)
def test_choices_that_make_no_graph_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        GraphConfig(**settings)  # type: ignore[arg-type]


# Batches with a context, through training and measuring.

SMALL = CemoBAM(hidden_dim=8, heads=2)
TRAINING = TrainingConfig(epochs=3, lr=0.01)


def batches_of(fold: Fold, ends: Ends = "chosen", k: tuple[int, int] = (3, 2)) -> dict[str, Batch]:
    ranking = Ranking.of(fold.train.pooled(), 3)
    batches = {"train": Batch.from_features(fold.train, ranking.graph(ends).edge_index(*k))}
    for name in ("val", "test"):
        edges = ranking.anchored(fold.splits[name].pooled(), ends).edge_index(*k)
        batches[name] = Batch.in_context(fold.train, fold.splits[name], edges)
    return batches


def test_only_what_is_not_context_is_measured(small_fold: Fold) -> None:
    batches = batches_of(small_fold)
    test = batches["test"]
    assert (len(test.inputs), len(test.labels), test.context) == (64, 24, 40)
    result = train(SMALL, batches, training=TRAINING)
    assert sum(map(sum, result.metrics["test"].confusion)) == 24
    with torch.no_grad():
        logits = result.model(test.inputs)[40:]
    assert result.metrics["test"].wa == pytest.approx((logits.argmax(dim=1) == small_fold.test.labels).double().mean())
    assert evaluate(result.model, test) == result.metrics["test"]
    assert len(test.few(10).inputs) == len(test.few(10).labels) == 10
    assert test.few(10).context == 0


def test_training_does_not_see_the_evaluation_graph(small_fold: Fold) -> None:
    own = {n: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for n, s in small_fold.splits.items()}
    one, other = (train(SMALL, batches, training=TRAINING) for batches in (own, batches_of(small_fold)))
    assert one.metrics["train"] == other.metrics["train"]
    states = [result.model.state_dict() for result in (one, other)]  # type: ignore[attr-defined]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("ends", ENDS)
def test_a_stack_gives_what_each_gives_alone(small_fold: Fold, ends: Ends) -> None:
    alike = [batches_of(small_fold, ends, k) for k in ((3, 2), (1, 3))]
    together = train_together(SMALL, alike, training=TRAINING, seeds=[0, 1])
    for seed, (batches, of_stack) in enumerate(zip(alike, together, strict=True)):
        alone = train(SMALL, batches, training=TRAINING, seed=seed)
        assert not isinstance(of_stack, Exception)
        for name in batches:
            assert of_stack.metrics[name].loss == pytest.approx(alone.metrics[name].loss, rel=1e-4)
            assert of_stack.metrics[name].confusion == alone.metrics[name].confusion


def test_sequences_of_other_lengths_are_padded(make_features: Make) -> None:
    fold = Fold(
        train=make_features(40, seed=1, name="train", steps=3),
        val=make_features(24, seed=2, name="val", steps=6),
        test=make_features(24, seed=3, name="test", steps=2),
    )
    batches = batches_of(fold)
    assert batches["val"].inputs.audio.shape[:2] == (64, 6)
    assert batches["test"].inputs.text.shape[:2] == (64, 3)
    assert batches["test"].inputs.audio.padded
    assert batches["test"].inputs.audio.mask[40:, 2:].sum() == 0
    pooled = fold.test.pooled().audio.float()
    assert torch.allclose(batches["test"].inputs.audio.pooled[40:], pooled, atol=1e-6)
    result = train(SMALL, batches, training=TRAINING)
    # one alone, with its own number of steps
    ranking = Ranking.of(fold.train.pooled(), 3)
    one = fold.test.select([7], source="one")
    alone = Batch.in_context(fold.train, one, ranking.anchored(one.pooled(), "chosen").edge_index(3, 2))
    with torch.no_grad():
        assert torch.allclose(result.model(alone.inputs)[-1], result.model(batches["test"].inputs)[47], atol=1e-5)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("ties", TIES)
def test_anchors_give_the_graph_of_the_study(small_fold: Fold, ends: Ends, ties: Ties) -> None:
    config = GraphConfig(k_audio=3, k_text=2, gather_from=ends, ties=ties)
    text = repeated(40, 5, 0)
    train_split = replace(small_fold.train, text=torch.cat([text, text], dim=1))
    anchors = Anchors.of(train_split, config, seed=3)
    ranking = Ranking.of(train_split.pooled(), 7, ties=ties, seed=3)  # as a study ranks, for larger K too
    expected = ranking.anchored(small_fold.test.pooled(), ends).edge_index(3, 2)
    batch = anchors.batch(small_fold.test, config, seed=3)
    assert torch.equal(batch.inputs.edge_index, expected)
    assert batch.context == 40


def test_a_stack_is_measured_without_its_context(small_fold: Fold) -> None:
    batches = batches_of(small_fold)
    results = train_together(SMALL, [batches] * 2, training=TRAINING, seeds=[0, 1])
    for result in results:
        assert not isinstance(result, Exception)
        (measured,) = measure(result.model, batches["val"])
        assert sum(map(sum, measured.confusion)) == 24

"""The approximate index: its candidates, its recall, and where it is not used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cemobam_core import FeatureSet, GraphConfig, InputError, TopKGraph, approximate
from cemobam_core.anchors import Anchors
from cemobam_core.graph import Ranking, in_parts, lowest
from cemobam_core.neighbours import Neighbours, Pooled, nearest, recall

Make = Callable[..., FeatureSet]


def in_a_cone(n: int, *, seed: int = 0, width: int = 48) -> torch.Tensor:
    return 1 + torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) / 3


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the index for any number of rows."""
    monkeypatch.setattr(approximate, "LEAST", 0)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch, always: None) -> None:
    """Use an index that misses many neighbours."""
    monkeypatch.setattr(approximate, "_LINKS", 2)
    monkeypatch.setattr(approximate, "_SEARCHED_TO_BUILD", 1)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("ties", ["index", "random"])
def test_candidates_that_cover_all_rows_give_the_exact_ranking(ties: str) -> None:
    x = in_a_cone(64)
    x[40:50] = x[3] * 2  # equally similar, but different rows
    exact = Neighbours.among(x, 7, ties=ties, seed=3)
    found = Neighbours.among(x, 7, ties=ties, seed=3, index="hnsw")
    assert found.recall == 1.0
    assert exact.recall is None
    assert torch.equal(found.nearness, exact.nearness)
    assert all(map(torch.equal, found.links, exact.links))


@pytest.mark.usefixtures("always")
def test_nearly_all_neighbours_are_found_and_ranked_by_their_similarity_in_float64() -> None:
    x = in_a_cone(3000)
    chosen, nearness = nearest(x, 10, index="hnsw")
    exact, exact_nearness = nearest(x, 10)
    same = (chosen[:, :, None] == exact[:, None]).any(dim=2)
    assert 0.95 < same.double().mean() < 1
    assert recall(x, nearness) == pytest.approx(float(same.double().mean()), abs=0.01)
    assert (nearness.diff(dim=1) <= 0).all()
    assert (chosen != torch.arange(3000)[:, None]).all()
    assert torch.equal(nearness[same.all(dim=1)], exact_nearness[same.all(dim=1)])


@pytest.mark.usefixtures("careless")
def test_the_graph_is_the_same_for_every_number_of_threads() -> None:
    x = in_a_cone(2000)
    expected = nearest(x, 9, index="hnsw")
    assert recall(x, expected[1]) < 0.9
    torch.set_num_threads(2)
    try:
        assert all(map(torch.equal, nearest(x, 9, index="hnsw"), expected))
    finally:
        torch.set_num_threads(1)


@pytest.mark.usefixtures("careless")
def test_rows_for_which_the_index_finds_too_few_are_compared_with_all() -> None:
    x = torch.cat([torch.eye(300), torch.zeros(5, 300)])  # nothing is nearer than anything else
    x[5:10] = 1 + in_a_cone(5, width=300)
    found, exact = nearest(x, 80, index="hnsw"), nearest(x, 80)
    assert (found[1] > -(2**34)).all()
    assert all(len(set(row)) == 80 for row in found[0].tolist())
    assert torch.equal(found[1][5:10], exact[1][5:10])


@pytest.mark.usefixtures("always")
def test_repeated_rows_are_neighbours_of_one_another() -> None:
    x = in_a_cone(12).repeat_interleave(50, dim=0)[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    assert all(map(torch.equal, nearest(x, 7, index="hnsw"), nearest(x, 7)))


@pytest.mark.usefixtures("careless")
def test_recall_counts_the_neighbours_that_are_as_near_as_the_exact_ones() -> None:
    x = in_a_cone(500)
    nearness = nearest(x, 4)[1]
    assert recall(x, nearness) == 1.0
    nearness[:, 2:] -= 2**33
    assert recall(x, nearness) == 0.5
    assert recall(torch.zeros(9, 3), nearest(torch.zeros(9, 3), 4)[1]) == 1.0


def test_few_utterances_are_ranked_exactly_even_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    pooled = Pooled(in_a_cone(60), in_a_cone(60, seed=1))
    assert Ranking.of(pooled, 5, index="hnsw").recall is None
    monkeypatch.setattr(approximate, "LEAST", 60)
    with pytest.raises(InputError, match=r"index=hnsw needs faiss, which is not installed.*cemobam-study\[index\]"):
        Ranking.of(pooled, 5, index="hnsw")
    with pytest.raises(InputError, match="index=hnsw needs faiss"):
        TopKGraph.from_features(*pooled, 5, index="hnsw")


@pytest.mark.usefixtures("careless")
def test_every_graph_carries_its_recall(make_features: Make) -> None:
    pooled, new = (Pooled(in_a_cone(n, seed=n), in_a_cone(n, seed=n + 1)) for n in (900, 20))
    ranking = Ranking.of(pooled, 6, index="hnsw")
    assert ranking.recall is not None
    assert max(ranking.recall) < 0.95
    assert ranking.graph("chosen").recall == ranking.anchored(new, "choosers").recall == ranking.recall
    parts = in_parts(pooled, 6, 400, "chosen", index="hnsw").recall
    assert parts is not None
    assert parts != ranking.recall
    assert lowest([None, (0.9, 0.5), (0.8, 0.7)]) == (0.8, 0.5)
    features, graph = make_features(300), GraphConfig(k_audio=6, k_text=6)
    approximated = Anchors.of(features, replace(graph, index="hnsw"), 0).audio_nearness
    assert not torch.equal(approximated, Anchors.of(features, graph, 0).audio_nearness)


def test_all_ties_need_the_exact_ranking() -> None:
    with pytest.raises(InputError, match=r"index=hnsw with ties=all: .*; use index=exact, or ties=index"):
        GraphConfig(index="hnsw", ties="all")

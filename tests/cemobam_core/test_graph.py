from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.utils import coalesce, contains_self_loops

from cemobam_core import InputError, TopKGraph, candidates, graph
from cemobam_core.graph import Ranking
from cemobam_core.neighbours import Pooled


def brute_force(x: torch.Tensor, k: int) -> list[list[int]]:
    """Find the neighbours of each row one by one, as in Eq. 2."""
    rows = x.double().numpy()
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    nearest = []
    for i in range(len(unit)):
        similarity = [(-round(float(unit[i] @ unit[j]), 9), j) for j in range(len(unit)) if j != i]
        nearest.append([j for _, j in sorted(similarity)[:k]])
    return nearest


@given(n=st.integers(3, 20), seed=st.integers(0, 1000), data=st.data())
def test_neighbours_and_edges_are_those_found_one_by_one(n: int, seed: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(n, 5, generator=generator), torch.randn(n, 7, generator=generator)
    if data.draw(st.booleans()):  # repeated utterances: ties
        audio[n // 2 :] = audio[: n - n // 2].clone()
    k_max = data.draw(st.integers(1, n - 1))
    graph = TopKGraph.from_features(audio, text, k_max)
    assert graph.by_audio.tolist() == brute_force(audio, k_max)
    assert graph.by_text.tolist() == brute_force(text, k_max)

    k_audio, k_text = data.draw(st.integers(1, k_max)), data.draw(st.integers(1, k_max))
    expected = {(i, i) for i in range(n)}
    expected |= {(j, i) for i, chosen in enumerate(brute_force(audio, k_audio)) for j in chosen}
    expected |= {(j, i) for i, chosen in enumerate(brute_force(text, k_text)) for j in chosen}
    edges = graph.edge_index(k_audio, k_text)
    assert edges.dtype == torch.int64
    assert list(map(tuple, edges.T.tolist())) == sorted(expected)


def test_edges_are_in_the_form_that_torch_geometric_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    graph = TopKGraph.from_features(torch.randn(50, 8, generator=generator), torch.randn(50, 8, generator=generator))
    for k_audio, k_text in itertools.product((1, 4, 10), repeat=2):
        edges = graph.edge_index(k_audio, k_text)
        assert torch.equal(edges, coalesce(edges))
        assert contains_self_loops(edges)
        # row 1 is the target that chose: each has itself, and between the larger K and the sum of both
        degree = edges[1].bincount()
        assert degree.min() >= 1 + max(k_audio, k_text)
        assert degree.max() <= 1 + k_audio + k_text


def test_equal_embeddings_are_ranked_by_index_wherever_they_stand() -> None:
    # Read sentences have the same text for every speaker and emotion, so there are many exact ties.
    base = torch.randn(7, 768, generator=torch.Generator().manual_seed(0))
    text = base.repeat(30, 1)
    nearest = TopKGraph.from_features(text, text, 12).by_text
    for i in range(len(text)):
        same = [j for j in range(i % 7, len(text), 7) if j != i]
        assert nearest[i].tolist() == same[:12]


def test_chunks_do_not_change_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    whole = TopKGraph.from_features(x, x, 5).by_audio
    monkeypatch.setattr(candidates, "_CHUNK_ELEMENTS", 70)
    assert torch.equal(TopKGraph.from_features(x, x, 5).by_audio, whole)


def test_rankings_are_nested_in_k() -> None:
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(2))
    assert torch.equal(TopKGraph.from_features(x, x, 4).by_text, TopKGraph.from_features(x, x, 9).by_text[:, :4])


def test_sequences_are_averaged_over_their_valid_steps() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 6, 8, generator=generator)
    mask = torch.arange(6) < torch.randint(1, 7, (12, 1), generator=generator)
    pooled = torch.stack([x[i, mask[i]].mean(dim=0) for i in range(12)])
    x[~mask] = 1e6  # any content of the padding
    graph = TopKGraph.from_features(x, pooled, 5, audio_mask=mask)
    assert torch.equal(graph.by_audio, graph.by_text)


def test_a_zero_embedding_is_similar_to_none_and_breaks_nothing() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(4))
    x[2] = 0
    nearest = TopKGraph.from_features(x, x, 5).by_audio
    assert nearest[2].tolist() == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(("n", "k"), [(10, 10), (10, 0), (11, 600), (1, 1)])
def test_k_out_of_range_is_refused(n: int, k: int) -> None:
    x = torch.randn(n, 4)
    with pytest.raises(InputError, match=f"K={k} with {n} utterances"):
        TopKGraph.from_features(x, x, k)


@pytest.mark.parametrize(
    ("k_audio", "k_text", "culprit"), [(0, 1, "k_audio=0"), (1, 4, "k_text=4"), (-1, 1, "k_audio")]
)
def test_an_edge_index_beyond_the_ranking_is_refused(k_audio: int, k_text: int, culprit: str) -> None:
    x = torch.randn(10, 4)
    with pytest.raises(InputError, match=culprit):
        TopKGraph.from_features(x, x, 3).edge_index(k_audio, k_text)


def test_different_numbers_of_utterances_are_refused() -> None:
    with pytest.raises(InputError, match="10 audio embeddings but 9 text"):
        TopKGraph.from_features(torch.randn(10, 4), torch.randn(9, 4), 3)


@pytest.mark.parametrize("device", ["cpu:0", "meta"])
def test_a_device_ranks_many_utterances_and_the_cpu_if_it_fails(
    device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(graph, "_MANY", 40)
    pooled = Pooled.of(torch.randn(40, 6), torch.randn(40, 4))
    plain, ranked = Ranking.of(pooled, 3), Ranking.of(pooled, 3, device=device)
    for modality in ("audio", "text"):
        theirs, ours = getattr(plain, modality), getattr(ranked, modality)
        assert all(map(torch.equal, ours.links, theirs.links))
        assert torch.equal(ours.nearness, theirs.nearness)
    assert ("meta cannot rank 40 utterances" in caplog.text) == (device == "meta")
    few = pooled.select(torch.arange(39))
    caplog.clear()
    Ranking.of(few, 3, device="meta")
    assert not caplog.text

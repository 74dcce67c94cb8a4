"""The ranking is compared with the whole matrix of similarities in float64."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cemobam_core import bfloat16, candidates, similarity
from cemobam_core.neighbours import Links, Neighbours, Ties, links_from, links_to, nearest
from cemobam_core.similarity import RESOLUTION, Embeddings, full_float32, margin

TIES: tuple[Ties, ...] = ("index", "random", "all")
SEED = 3


def whole_matrix(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return all similarities as multiples of the resolution."""
    unit, other = (torch.nn.functional.normalize(x.double(), dim=1) for x in (rows, columns))
    return (unit @ other.T).div_(RESOLUTION).round_().to(torch.int64)


def without_itself(steps: torch.Tensor) -> torch.Tensor:
    return steps.fill_diagonal_(-(2**40))


def chosen_from(steps: torch.Tensor, k: int, ties: Ties) -> set[tuple[int, int, int]]:
    """Return the links (chooser, chosen, rank) that follow from all similarities."""
    m, n = steps.shape
    rank = (steps[:, None] > steps[:, :, None]).sum(dim=2)  # how many are nearer
    if ties != "all":
        order = torch.arange(n)
        if ties == "random":
            order = torch.randperm(n, generator=torch.Generator().manual_seed(SEED))
        ranked = order[steps[:, order].argsort(dim=1, descending=True, stable=True)]
        rank = torch.empty_like(ranked).scatter_(1, ranked, torch.arange(n).expand(m, n))
    return {(i, j, int(rank[i, j])) for i, j in (rank < k).nonzero().tolist()}


def triples(links: Links) -> set[tuple[int, int, int]]:
    found = list(zip(*(part.tolist() for part in links), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@contextmanager
def sizes(
    *,
    block: int = 1024,
    spare: int = 128,
    chunk: int = 4_000_000,
    at_once: int = 1_000_000,
    in_bfloat16: bool = False,
) -> Iterator[None]:
    with (
        mock.patch.object(bfloat16, "LEAST", 0),
        mock.patch.object(bfloat16, "_NARROW", math.inf),
        mock.patch.object(bfloat16, "is_fast", lambda: in_bfloat16),
        mock.patch.dict(candidates._BLOCK, {"cpu": block}),
        mock.patch.object(candidates, "_SPARE", spare),
        mock.patch.object(candidates, "_CHUNK_ELEMENTS", chunk),
        mock.patch.object(similarity, "_CHUNK_ELEMENTS", at_once),
        mock.patch.object(similarity, "_PRODUCT_ELEMENTS", at_once),
    ):
        yield


SMALL: tuple[dict[str, int], ...] = (
    {},
    {"block": 64, "spare": 0, "chunk": 500, "at_once": 50},
    {"block": 128, "spare": 3, "chunk": 5000, "at_once": 300},
    {"in_bfloat16": True},
    {"in_bfloat16": True, "block": 64, "spare": 3, "chunk": 5000, "at_once": 300},
)
"""Sizes that make many blocks and chunks, and rows that are crowded."""


def plain(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(n, width, generator=of)


def repeated(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(max(2, n // 9), width, generator=of)[torch.randint(max(2, n // 9), (n,), generator=of)]


def all_the_same(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(1, width, generator=of).repeat(n, 1)


def alike(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    """Return embeddings that are closer than float32 can tell apart, in a few groups."""
    base = torch.randn(4, width, generator=of, dtype=torch.float64)[torch.randint(4, (n,), generator=of)]
    return base + 3e-5 * torch.randn(n, width, generator=of, dtype=torch.float64)


def copies_with_noise(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return repeated(n, width, of) * (1 + 1e-7 * torch.randn(n, width, generator=of))


def scaled(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(n, width, generator=of) * 10.0 ** torch.randint(-36, 36, (n, 1), generator=of).float()


def scaled_far(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    x = torch.randn(n, width, generator=of, dtype=torch.float64)
    return x * 10.0 ** torch.randint(-250, 250, (n, 1), generator=of).double()


def with_zeros(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(n, width, generator=of) * (torch.rand(n, 1, generator=of) < 0.7)


def on_a_grid(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randint(-1, 2, (n, width), generator=of).float()


def in_a_cone(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return 1 + 0.01 * torch.randn(n, width, generator=of)


def in_half(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    return torch.randn(n, width, generator=of).half()


KINDS: tuple[Callable[[int, int, torch.Generator], torch.Tensor], ...] = (
    plain,
    repeated,
    all_the_same,
    alike,
    copies_with_noise,
    scaled,
    scaled_far,
    with_zeros,
    on_a_grid,
    in_a_cone,
    in_half,
)


@st.composite
def embeddings(draw: st.DrawFn) -> torch.Tensor:
    n = draw(st.one_of(st.integers(2, 20), st.integers(60, 200)))
    kind, width = draw(st.sampled_from(KINDS)), draw(st.sampled_from((1, 2, 5, 40)))
    return kind(n, width, torch.Generator().manual_seed(draw(st.integers(0, 10_000))))


@pytest.mark.parametrize("ties", TIES)
@given(x=embeddings(), small=st.sampled_from(SMALL), data=st.data())
def test_the_ranking_is_that_of_the_whole_matrix(
    ties: Ties, x: torch.Tensor, small: dict[str, int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(x) - 1 if len(x) <= 20 else 24))
    steps, given = without_itself(whole_matrix(x, x)), x.clone()
    with sizes(**small):
        ranked = Neighbours.among(x, k, ties=ties, seed=SEED)
    assert torch.equal(x, given)
    assert torch.equal(ranked.nearness, steps.sort(dim=1, descending=True).values[:, :k])
    assert triples(ranked.links) == chosen_from(steps, k, ties)


@pytest.mark.parametrize("ties", TIES)
@given(x=embeddings(), m=st.integers(0, 30), small=st.sampled_from(SMALL), data=st.data())
def test_the_links_of_new_rows_are_those_of_the_whole_matrix(
    ties: Ties, x: torch.Tensor, m: int, small: dict[str, int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, min(12, len(x) - 1)))
    new = torch.cat(
        [x[: m // 2], plain(m, x.shape[1], torch.Generator().manual_seed(m)).to(x.dtype)]
    )  # some are copies
    with sizes(**small):
        to = links_to(new, x, k, ties=ties, seed=SEED)
        nearness = Neighbours.among(x, k, ties=ties, seed=SEED).nearness
        back = links_from(new, x, nearness, ties=ties)
    steps = whole_matrix(new, x)
    assert triples(to) == chosen_from(steps, k, ties)
    compared = steps.T[:, :, None]  # (n, m, 1)
    before = nearness[:, None] > compared if ties == "all" else nearness[:, None] >= compared
    rank = before.sum(dim=2)
    assert triples(back) == {(i, j, int(rank[i, j])) for i, j in (rank < k).nonzero().tolist()}


def test_the_order_is_right_where_float32_is_wrong() -> None:
    n = 60
    cosines = 0.5 + 1e-9 * torch.randperm(n, generator=torch.Generator().manual_seed(0)).double()
    x = torch.zeros(n + 1, 768, dtype=torch.float64)
    x[0, 0] = 1
    x[1:, 0] = cosines
    x[torch.arange(1, n + 1), torch.arange(1, n + 1)] = (1 - cosines**2).sqrt()
    turn = torch.linalg.qr(torch.randn(768, 768, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    x = x @ turn
    expected = (1 + cosines.argsort(descending=True)).tolist()
    rough = x.float()
    assert (rough[1:] @ rough[0]).argsort(descending=True).add(1).tolist() != expected
    assert nearest(x, 25)[0][0].tolist() == expected[:25]
    assert links_to(x[:1], x[1:], 25).chosen.tolist() == [i - 1 for i in expected[:25]]


def test_rows_with_more_ties_than_places_are_ranked_exactly() -> None:
    base = torch.randn(3, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = base.repeat(200, 1) + 1e-6 * torch.randn(600, 20, generator=torch.Generator().manual_seed(6))
    steps = without_itself(whole_matrix(x, x))
    kept = candidates._Candidates(Embeddings(x), Embeddings(x), 4)
    assert kept._places < 199
    chosen, nearness = nearest(x, 4)
    assert torch.equal(nearness, steps.sort(dim=1, descending=True).values[:, :4])
    assert torch.equal(steps.gather(1, chosen), nearness)


@pytest.mark.parametrize("width", [1, 7, 768, 5000])
def test_no_order_of_summation_leaves_the_margin(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    a, b = (torch.rand(200, width, generator=generator, dtype=torch.float64) for _ in range(2))  # errors add up
    unit_a, unit_b = Embeddings(a), Embeddings(b)
    exact = (unit_a.unit(slice(None)) * unit_b.unit(slice(None))).sum(dim=1)
    products = (unit_a.rough() * unit_b.rough()).numpy()
    one_by_one = torch.from_numpy(np.cumsum(products, axis=1, dtype=np.float32)[:, -1])
    smallest_first = torch.from_numpy(np.cumsum(np.sort(products, axis=1), axis=1, dtype=np.float32)[:, -1])
    for rough in (one_by_one, smallest_first, (unit_a.rough() @ unit_b.rough().T).diagonal()):
        assert (rough.double() - exact).abs().max() < margin(width) / 2


def aligned(n: int, width: int, of: torch.Generator) -> torch.Tensor:
    """Return embeddings that are rounded in the same direction at every place."""
    return (1 + 2.0**-8 + 2.0**-9 * torch.rand(n, width, generator=of)) * 2.0 ** torch.arange(width).remainder(9)


@pytest.mark.parametrize("kind", [*KINDS, aligned])
@pytest.mark.parametrize("width", [1, 40, 768])
def test_no_product_in_bfloat16_leaves_its_bound(
    kind: Callable[[int, int, torch.Generator], torch.Tensor], width: int
) -> None:
    x = Embeddings(kind(200, width, torch.Generator().manual_seed(width)))
    centred = bfloat16.Centred.of(x, multiple=64)
    unit = x.unit(slice(None))
    exact = unit @ unit.T - unit.mean(dim=0).square().sum()
    product = (centred.facing(slice(None)) @ centred.rows.T)[:200, :200].double()
    off = (product - exact).abs()
    bound = centred.error[:200, None] + bfloat16.ROUNDING * product.abs() * (1 + 2.0**-7)
    assert (off <= bound).all()
    assert torch.equal(centred.rows[200:], torch.zeros(56, width + 4, dtype=torch.bfloat16))


def test_bfloat16_is_left_alone_where_its_bounds_are_wide() -> None:
    x = in_a_cone(300, 768, torch.Generator().manual_seed(0))
    assert bfloat16.Centred.of(Embeddings(x), multiple=64).is_narrow
    x[7] = 0  # silence
    assert not bfloat16.Centred.of(Embeddings(x), multiple=64).is_narrow
    expected = nearest(x, 5)
    with mock.patch.object(bfloat16, "LEAST", 0), mock.patch.object(bfloat16, "is_fast", lambda: True):
        assert all(map(torch.equal, nearest(x, 5), expected))


@pytest.mark.parametrize(("plain_first", "again"), [(True, "between"), (False, "_by_float32")])
def test_rows_that_bfloat16_leaves_crowded_are_compared_in_float32(plain_first: bool, again: str) -> None:
    of = torch.Generator().manual_seed(0)
    cluster = torch.randn(1, 40, generator=of) + 0.01 * torch.randn(200, 40, generator=of)
    x = torch.cat([torch.randn(100, 40, generator=of), cluster])
    x = x if plain_first else x.flip(0)
    expected = nearest(x, 5)
    with (
        sizes(in_bfloat16=True, block=64, spare=3),
        mock.patch.object(candidates, again, wraps=vars(candidates)[again]) as used,
    ):
        assert all(map(torch.equal, nearest(x, 5), expected))
    assert used.called


@pytest.mark.parametrize(("kind", "in_float32", "in_bfloat16"), [(plain, 6, 12), (in_a_cone, 60, 12)])
def test_few_candidates_are_left(
    kind: Callable[[int, int, torch.Generator], torch.Tensor], in_float32: int, in_bfloat16: int
) -> None:
    x = Embeddings(kind(2000, 64, torch.Generator().manual_seed(0)))
    for most, fast in ((in_float32, False), (in_bfloat16, True)):
        with sizes(in_bfloat16=fast):
            count = sum(int((one.steps > similarity.BELOW_ALL).sum()) for one in candidates.among(x, 5))
        assert 5 * 2000 <= count < most * 2000


def test_the_ranking_does_not_depend_on_threads_blocks_or_precision() -> None:
    x = torch.cat([in_a_cone(400, 64, torch.Generator().manual_seed(0)), repeated(300, 64, torch.Generator())])
    expected = nearest(x, 9)
    assert all(map(torch.equal, nearest(x, 9), expected))
    for in_bfloat16 in (False, True):
        with sizes(block=128, spare=3, chunk=10_000, at_once=20_000, in_bfloat16=in_bfloat16):
            assert all(map(torch.equal, nearest(x, 9), expected))
    torch.set_num_threads(2)
    try:
        assert all(map(torch.equal, nearest(x, 9), expected))
    finally:
        torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(map(torch.equal, nearest(x, 9), expected))
            with full_float32(torch.device("cpu")):
                assert (x @ x.T).dtype == torch.float32
                assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


class PeakMemory(TorchDispatchMode):
    """Measures the memory of the tensors that are made in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._made += [weakref.ref(one) for one in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(one)]
        self._made = [one for one in self._made if one() is not None]
        storages = (one.untyped_storage() for made in self._made if (one := made()) is not None)
        self.bytes = max(self.bytes, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
        return result


def test_the_memory_does_not_grow_with_the_square_of_the_number_of_rows() -> None:
    peaks = []
    for n in (500, 2000):
        x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
        with sizes(block=256, chunk=100_000, at_once=20_000), PeakMemory() as peak:
            nearest(x, 5)
        peaks.append(peak.bytes)
    per_row = 8 * (2 * 5 + 128) + 4 * 64 + 4 * 8 + 50 + 6 * 40  # candidates, peaks, embeddings, and the result
    assert peaks[1] - peaks[0] < 1500 * per_row + 4_000_000
    assert peaks[1] < 2000 * per_row + 6_000_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_ranking() -> None:
    for kind, ties in itertools.product((plain, repeated, alike), TIES):
        x = kind(3000, 100, torch.Generator().manual_seed(0))
        here, there = (Neighbours.among(one, 7, ties=ties, seed=SEED) for one in (x, x.cuda()))
        assert torch.equal(here.nearness, there.nearness.cpu())
        assert triples(here.links) == triples(there.links)

"""Who is nearest to whom, by cosine similarity: the search behind every graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean

_CHUNK_ELEMENTS = 2_000_000
"""Similarities held at once: 16 MB of float64, and some three times that for their keys."""

_RESOLUTION = 2.0**-33
"""Cosines closer than this (1.2e-10) are a tie. Rounding errors of a float64 product are some 1e-15, so equal
embeddings tie on every machine, whatever its matrix product does; unequal ones of float32 data do not."""

MOST_LINKS = 10_000_000
"""Links of one modality, at most, where all that tie are linked. A graph of so many edges takes some gigabytes."""

Ties = Literal["index", "random", "all"]


class Pooled(NamedTuple):
    """One embedding an utterance and modality.

    Attributes:
        audio: (N, E_a).
        text: (N, E_t).
    """

    audio: Float[Tensor, "n ea"]
    text: Float[Tensor, "n et"]

    @classmethod
    def of(
        cls,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n *tt et"],
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
    ) -> Pooled:
        """Return embeddings on the CPU, with sequences averaged over their valid steps."""
        return cls(_pooled(audio, audio_mask), _pooled(text, text_mask))

    def select(self, rows: Int64[Tensor, " m"]) -> Pooled:
        """Return some of the utterances."""
        return Pooled(self.audio[rows], self.text[rows])

    @classmethod
    def joined(cls, parts: Sequence[Pooled]) -> Pooled:
        """Return the utterances of several, one after another; of one, itself."""
        return parts[0] if len(parts) == 1 else cls(*(torch.cat(of) for of in zip(*parts, strict=True)))


class Links(NamedTuple):
    """Who chose whom by one modality, in any order.

    Attributes:
        chooser: (C,) utterances.
        chosen: (C,) the utterance that each of them chose.
        rank: (C,) how many others the chooser prefers to it: with K neighbours it is linked if that is less than K.
    """

    chooser: Int64[Tensor, " c"]
    chosen: Int64[Tensor, " c"]
    rank: Int64[Tensor, " c"]

    @classmethod
    def listed(cls, chosen: Int64[Tensor, "n k"]) -> Links:
        """Return the links to neighbours that are listed chooser by chooser, best first."""
        n, k = chosen.shape
        place = torch.arange(max(n, k), device=chosen.device)
        return cls(place[:n].repeat_interleave(k), chosen.flatten(), place[:k].repeat(n))

    @classmethod
    def all_of(cls, parts: Iterable[Links]) -> Links:
        """Return the links of several parts; there is at least one."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def between(self, choosers: Int64[Tensor, " n"], chosen: Int64[Tensor, " m"]) -> Links:
        """Return the links with other numbers for the utterances: number i becomes the i-th of those given."""
        return Links(choosers[self.chooser], chosen[self.chosen], self.rank)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest of every utterance by one modality.

    Attributes:
        links: to them.
        nearness: row i holds the similarities of i to its ``k_max`` nearest, best first, in steps of the resolution.
    """

    links: Links
    nearness: Int64[Tensor, "n k"]

    @classmethod
    def among(cls, x: Float[Tensor, "n e"], k: int, *, ties: Ties = "index", seed: int = 0) -> Neighbours:
        """Find the ``k`` nearest of each row among the others.

        Args:
            x: embeddings.
            k: how many.
            ties: whether equally similar rows rank by ``index``, at ``random``, or all alike: ``all`` gives one the
                number of those that are nearer as its rank, so that all that tie with the K-th nearest are linked.
            seed: orders the ties at random.

        Raises:
            InputError: with ties ``all``, more than :data:`MOST_LINKS`.
        """
        if ties == "all":
            return cls(*_all_links(_others(x), k))
        chosen, nearness = nearest(x, k, order=_order(len(x), ties, seed))
        return cls(Links.listed(chosen), nearness)


def nearest(
    x: Float[Tensor, "n e"], k: int, *, order: Int64[Tensor, " n"] | None = None
) -> tuple[Int64[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Return the indices of each row's ``k`` nearest others, best first, and their similarities in steps.

    A similarity is that of both its rows, so half of the matrix is enough: a block of rows is compared with itself and
    what follows, and each block's best are merged into those known of either side.

    Args:
        x: embeddings.
        k: how many.
        order: the rows in the order in which they are preferred where similarities tie; None: by index.
    """
    n = len(x)
    order, precedence = _preferred(n, order)
    unit = _unit(x)
    best = torch.full((n, k), torch.iinfo(torch.int64).min)
    for rows in _chunks(n, n):
        first, beyond = int(rows[0]), int(rows[-1]) + 1
        similarity = unit[first:beyond] @ unit[first:].T  # (rows, n - first)
        similarity.diagonal().fill_(-2.0)  # of itself: below every cosine
        keys = _steps(similarity).mul_(n)
        _merge(best[first:beyond], keys + precedence[first:])
        _merge(best[beyond:], keys[:, beyond - first :].T + precedence[first:beyond])
    return order[n - 1 - best.remainder(n)], best.div(n, rounding_mode="floor")


def links_to(
    new: Float[Tensor, "m e"], x: Float[Tensor, "n e"], k: int, *, ties: Ties = "index", seed: int = 0
) -> Links:
    """Return the links from each new row, alone, to its ``k`` nearest in ``x``.

    Args:
        new: the choosers.
        x: the rows that they choose from.
        k: how many.
        ties: as for :meth:`Neighbours.among`, with the same order of ``x``.
        seed: likewise.

    Raises:
        InputError: with ties ``all``, more than :data:`MOST_LINKS`.
    """
    n, unit, chunks = len(x), _unit(x), _chunks(len(new), len(x))
    blocks = ((rows, _steps(_unit(new[rows]) @ unit.T)) for rows in chunks)
    if ties == "all":
        return _all_links(blocks, k)[0]
    order, precedence = _preferred(n, _order(n, ties, seed))
    best = [(steps.mul_(n) + precedence).topk(k, dim=1).values for _, steps in blocks]
    return Links.listed(order[n - 1 - torch.cat(best).remainder(n)])


def links_from(
    new: Float[Tensor, "m e"], x: Float[Tensor, "n e"], nearness: Int64[Tensor, "n k"], *, ties: Ties = "index"
) -> Links:
    """Return the links from rows of ``x`` to each new row that would be among their nearest, had it been there alone.

    Args:
        new: those that are chosen.
        x: the choosers.
        nearness: of ``x``, as :class:`Neighbours` has it. Where a new row ties with one of the nearest it comes after
            it, unless ``ties`` is ``all``.
        ties: as for :meth:`Neighbours.among`.
    """
    unit, k = _unit(x), nearness.shape[1]
    parts = []
    for rows in _chunks(len(new), len(x)):
        steps = _steps(unit @ _unit(new[rows]).T)  # (n, rows)
        rank = _nearer(nearness, steps, or_as_near=ties != "all")
        chooser, chosen = (rank < k).nonzero(as_tuple=True)
        parts.append(Links(chooser, rows[chosen], rank[chooser, chosen]))
    return Links.all_of(parts)


def _all_links(blocks: Iterable[tuple[Tensor, Tensor]], k: int) -> tuple[Links, Int64[Tensor, "n k"]]:
    """Return the links to all that are at least as near as the ``k``-th nearest, and the nearness of those ``k``.

    Args:
        blocks: some of the choosers, and the similarities of each to every row, in steps.
        k: how many are nearest.

    Raises:
        InputError: more than :data:`MOST_LINKS`.
    """
    parts, nearness, count = [], [], 0
    for rows, steps in blocks:
        best = steps.topk(k, dim=1).values
        rank = _nearer(best, steps, or_as_near=False)
        chooser, chosen = (rank < k).nonzero(as_tuple=True)
        count += len(chooser)
        if count > MOST_LINKS:
            raise InputError(
                f"--ties all: so many utterances are equally similar that K={k} would link more than "
                f"{MOST_LINKS // 1_000_000} million pairs; use --ties index or --ties random"
            )
        parts.append(Links(rows[chooser], chosen, rank[chooser, chosen]))
        nearness.append(best)
    return Links.all_of(parts), torch.cat(nearness)


def _nearer(nearness: Int64[Tensor, "n k"], steps: Int64[Tensor, "n c"], *, or_as_near: bool) -> Int64[Tensor, "n c"]:
    """Return how many of each row's nearest are nearer to it than each candidate, or as near; at most k."""
    ascending = nearness.flip(1).contiguous()
    return nearness.shape[1] - torch.searchsorted(ascending, steps.contiguous(), right=not or_as_near)


def _others(x: Float[Tensor, "n e"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some rows after the others, and the similarities of each to every other row, in steps."""
    unit = _unit(x)
    for rows in _chunks(len(x), len(x)):
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = -2.0  # of itself: below every cosine
        yield rows, _steps(similarity)


def _order(n: int, ties: Ties, seed: int) -> Int64[Tensor, " n"] | None:
    """Return the rows in the order in which they are preferred where similarities tie; None: by index."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)) if ties == "random" else None


def _preferred(n: int, order: Int64[Tensor, " n"] | None) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return the order, and each row's precedence in it: from n - 1 for the first to 0 for the last."""
    order = torch.arange(n) if order is None else order
    precedence = torch.empty_like(order)
    precedence[order] = torch.arange(n - 1, -1, -1)
    return order, precedence


def _unit(x: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    return torch.nn.functional.normalize(x.double(), dim=1)


def _steps(similarity: Float[Tensor, "rows c"]) -> Int64[Tensor, "rows c"]:
    """Return similarities in steps of the resolution; the tensor given is overwritten.

    Times the number of rows, plus a row's precedence, they are keys of which all are distinct and the larger is
    nearer: top-k of them has one answer on every machine.
    """
    return similarity.div_(_RESOLUTION).round_().to(torch.int64)


def _chunks(rows: int, columns: int) -> tuple[Int64[Tensor, " c"], ...]:
    """Return row numbers in chunks whose similarities to so many columns are held at once."""
    return torch.split(torch.arange(rows), max(1, _CHUNK_ELEMENTS // columns))


def _merge(best: Int64[Tensor, "rows k"], candidates: Int64[Tensor, "rows c"]) -> None:
    """Replace each row's best by the best of them and the candidates."""
    k = best.shape[1]
    nearest = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    best.copy_(torch.cat([best, nearest], dim=1).topk(k, dim=1).values)


def _pooled(x: Tensor, mask: Tensor | None) -> Float[Tensor, "n e"]:
    x = x.detach().cpu()
    if x.ndim == 2:
        return x
    valid = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
    return masked_mean(x.double(), valid)

"""Nearest-neighbour search by cosine similarity: the basis of every graph."""

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
"""Number of similarities held at once: 16 MB as float64, and about three times that for their sort keys."""

_RESOLUTION = 2.0**-33
"""Resolution of similarities. Cosines that differ by less (1.2e-10) tie.

The rounding error of a float64 product is about 1e-15, so equal embeddings tie on every machine, whatever its matrix
product does. Different float32 embeddings do not.
"""

MOST_LINKS = 10_000_000
"""Largest number of links of one modality if all ties are linked. A graph with so many edges takes some gigabytes."""

Ties = Literal["index", "random", "all"]


class Pooled(NamedTuple):
    """One audio and one text embedding per utterance.

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
        """Return embeddings on the CPU. Sequences are averaged over their valid steps."""
        return cls(_pooled(audio, audio_mask), _pooled(text, text_mask))

    def select(self, rows: Int64[Tensor, " m"]) -> Pooled:
        """Return the utterances at ``rows``."""
        return Pooled(self.audio[rows], self.text[rows])

    @classmethod
    def joined(cls, parts: Sequence[Pooled]) -> Pooled:
        """Return the utterances of several sets, one set after another. A single set is returned unchanged."""
        return parts[0] if len(parts) == 1 else cls(*(torch.cat(of) for of in zip(*parts, strict=True)))


class Links(NamedTuple):
    """The links of one modality, in any order: which utterance chose which.

    Attributes:
        chooser: (C,), the utterances that choose.
        chosen: (C,), the utterance that each of them chose.
        rank: (C,), the number of neighbours that the chooser prefers to this one. The graph for K neighbours contains
            the links with a rank below K.
    """

    chooser: Int64[Tensor, " c"]
    chosen: Int64[Tensor, " c"]
    rank: Int64[Tensor, " c"]

    @classmethod
    def listed(cls, chosen: Int64[Tensor, "n k"]) -> Links:
        """Return the links to neighbours that are given as one row per chooser, best first."""
        n, k = chosen.shape
        place = torch.arange(max(n, k), device=chosen.device)
        return cls(place[:n].repeat_interleave(k), chosen.flatten(), place[:k].repeat(n))

    @classmethod
    def all_of(cls, parts: Iterable[Links]) -> Links:
        """Concatenate the links of one or more parts."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def between(self, choosers: Int64[Tensor, " n"], chosen: Int64[Tensor, " m"]) -> Links:
        """Renumber the utterances: index i becomes the i-th entry of ``choosers`` or of ``chosen``."""
        return Links(choosers[self.chooser], chosen[self.chosen], self.rank)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest neighbours of every utterance by one modality.

    Attributes:
        links: Links to the neighbours.
        nearness: (N, k_max). Row i holds the similarities of i to its nearest neighbours, best first, as multiples of
            the resolution.
    """

    links: Links
    nearness: Int64[Tensor, "n k"]

    @classmethod
    def among(cls, x: Float[Tensor, "n e"], k: int, *, ties: Ties = "index", seed: int = 0) -> Neighbours:
        """Find the ``k`` nearest neighbours of each row among the other rows.

        Args:
            x: (N, E) embeddings.
            k: Number of neighbours.
            ties: How equally similar rows rank: by ``index``, at ``random``, or all alike. With ``all``, the rank of a
                neighbour is the number of nearer ones, so all that tie with the K-th nearest are linked.
            seed: Seed of the order of ties if ``ties`` is ``random``.

        Raises:
            InputError: With ``all``, there are more than ``MOST_LINKS`` links.
        """
        if ties == "all":
            return cls(*_all_links(_others(x), k))
        chosen, nearness = nearest(x, k, order=_order(len(x), ties, seed))
        return cls(Links.listed(chosen), nearness)


def nearest(
    x: Float[Tensor, "n e"], k: int, *, order: Int64[Tensor, " n"] | None = None
) -> tuple[Int64[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Return the indices of the ``k`` nearest other rows of each row, best first, and their similarities.

    The similarities are multiples of the resolution. They are symmetric, so half of the matrix is enough: each block of
    rows is compared with itself and with the rows after it. The best of each block are merged into the best so far of
    the rows on both sides.

    Args:
        x: (N, E) embeddings.
        k: Number of neighbours.
        order: (N,), the rows in the order of preference if similarities tie. ``None`` for the order of the indices.
    """
    n = len(x)
    order, precedence = _preferred(n, order)
    unit = _unit(x)
    best = torch.full((n, k), torch.iinfo(torch.int64).min)
    for rows in _chunks(n, n):
        first, beyond = int(rows[0]), int(rows[-1]) + 1
        similarity = unit[first:beyond] @ unit[first:].T  # (rows, n - first)
        similarity.diagonal().fill_(-2.0)  # similarity to itself: below every cosine
        keys = _steps(similarity).mul_(n)
        _merge(best[first:beyond], keys + precedence[first:])
        _merge(best[beyond:], keys[:, beyond - first :].T + precedence[first:beyond])
    return order[n - 1 - best.remainder(n)], best.div(n, rounding_mode="floor")


def links_to(
    new: Float[Tensor, "m e"], x: Float[Tensor, "n e"], k: int, *, ties: Ties = "index", seed: int = 0
) -> Links:
    """Return the links from each new row, taken alone, to its ``k`` nearest rows of ``x``.

    Args:
        new: (M, E) embeddings of the choosers.
        x: (N, E) embeddings of the rows that they choose from.
        k: Number of neighbours.
        ties: How equally similar rows rank, as in ``Neighbours.among``. The random order of ``x`` is the same.
        seed: Seed of the order of ties if ``ties`` is ``random``.

    Raises:
        InputError: With ``all``, there are more than ``MOST_LINKS`` links.
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
    """Return the links from rows of ``x`` to new rows: each new row is linked as if it were the only new one.

    A row of ``x`` chooses a new row if the new row would be among its nearest.

    Args:
        new: (M, E) embeddings of the rows that may be chosen.
        x: (N, E) embeddings of the choosers.
        nearness: Nearness of ``x``, as in ``Neighbours``. If a new row ties with one of the nearest, it comes after
            that row, unless ``ties`` is ``all``.
        ties: How equally similar rows rank, as in ``Neighbours.among``.
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
    """Return the links to all rows that are at least as near as the ``k``-th nearest, and the nearness of the nearest.

    Args:
        blocks: Pairs of some choosers and their similarities to every row, as multiples of the resolution.
        k: Number of neighbours.

    Raises:
        InputError: There are more than ``MOST_LINKS`` links.
    """
    parts, nearness, count = [], [], 0
    for rows, steps in blocks:
        best = steps.topk(k, dim=1).values
        rank = _nearer(best, steps, or_as_near=False)
        chooser, chosen = (rank < k).nonzero(as_tuple=True)
        count += len(chooser)
        if count > MOST_LINKS:
            raise InputError(
                f"--ties all: too many utterances are equally similar, so K={k} would link more than "
                f"{MOST_LINKS // 1_000_000} million pairs; use --ties index or --ties random"
            )
        parts.append(Links(rows[chooser], chosen, rank[chooser, chosen]))
        nearness.append(best)
    return Links.all_of(parts), torch.cat(nearness)


def _nearer(nearness: Int64[Tensor, "n k"], steps: Int64[Tensor, "n c"], *, or_as_near: bool) -> Int64[Tensor, "n c"]:
    """Count how many of a row's k nearest are nearer (or as near) than each candidate."""
    ascending = nearness.flip(1).contiguous()
    return nearness.shape[1] - torch.searchsorted(ascending, steps.contiguous(), right=not or_as_near)


def _others(x: Float[Tensor, "n e"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of rows with their similarities to every other row, as multiples of the resolution."""
    unit = _unit(x)
    for rows in _chunks(len(x), len(x)):
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = -2.0  # similarity to itself: below every cosine
        yield rows, _steps(similarity)


def _order(n: int, ties: Ties, seed: int) -> Int64[Tensor, " n"] | None:
    """Return the rows in the order of preference for ties, or ``None`` for the order of the indices."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)) if ties == "random" else None


def _preferred(n: int, order: Int64[Tensor, " n"] | None) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return the order of preference and each row's precedence in it: n - 1 for the first row, 0 for the last."""
    order = torch.arange(n) if order is None else order
    precedence = torch.empty_like(order)
    precedence[order] = torch.arange(n - 1, -1, -1)
    return order, precedence


def _unit(x: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
    return torch.nn.functional.normalize(x.double(), dim=1)


def _steps(similarity: Float[Tensor, "rows c"]) -> Int64[Tensor, "rows c"]:
    """Return similarities as multiples of the resolution. The given tensor is overwritten.

    Such a multiple, times the number of rows, plus the precedence of the row is a sort key. All keys are distinct and a
    larger key is nearer, so top-k has the same result on every machine.
    """
    return similarity.div_(_RESOLUTION).round_().to(torch.int64)


def _chunks(rows: int, columns: int) -> tuple[Int64[Tensor, " c"], ...]:
    """Split row numbers into chunks whose similarities to ``columns`` rows fit into memory."""
    return torch.split(torch.arange(rows), max(1, _CHUNK_ELEMENTS // columns))


def _merge(best: Int64[Tensor, "rows k"], candidates: Int64[Tensor, "rows c"]) -> None:
    """Replace the best keys of each row by the best of these and the candidates."""
    k = best.shape[1]
    nearest = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    best.copy_(torch.cat([best, nearest], dim=1).topk(k, dim=1).values)


def _pooled(x: Tensor, mask: Tensor | None) -> Float[Tensor, "n e"]:
    x = x.detach().cpu()
    if x.ndim == 2:
        return x
    valid = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
    return masked_mean(x.double(), valid)

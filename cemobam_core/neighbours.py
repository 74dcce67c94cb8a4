"""Nearest-neighbour search by cosine similarity: the basis of every graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cemobam_core.approximate import Index, is_approximate, nearby
from cemobam_core.candidates import Found, among, between, reaching
from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean
from cemobam_core.repeated import groups_of, members_of
from cemobam_core.rows import Rows, in_chunks
from cemobam_core.similarity import BELOW_ALL, Embeddings, slices

MOST_LINKS = 10_000_000
"""Largest number of links of one modality if all ties are linked. A graph with so many edges takes some gigabytes."""

_SAMPLED = 1000
"""Number of rows whose exact neighbours are found to measure the recall of approximate ones."""

_CHUNK_ELEMENTS = 4_000_000
"""Number of similarities that are ranked at once."""

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
        audio: Float[Tensor, "n *ta ea"] | Rows,
        text: Float[Tensor, "n *tt et"] | Rows,
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n tt"] | None = None,
    ) -> Pooled:
        """Return embeddings on the CPU. Sequences are averaged over their valid steps, a little at a time."""
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
        recall: Share of the nearest neighbours that were found, by :func:`recall`. ``None`` if all were found, because
            the ranking is exact.
    """

    links: Links
    nearness: Int64[Tensor, "n k"]
    recall: float | None = None

    @classmethod
    def among(
        cls, x: Float[Tensor, "n e"], k: int, *, ties: Ties = "index", seed: int = 0, index: Index = "exact"
    ) -> Neighbours:
        """Find the ``k`` nearest neighbours of each row among the other rows.

        Args:
            x: (N, E) embeddings.
            k: Number of neighbours.
            ties: How equally similar rows rank: by ``index``, at ``random``, or all alike. With ``all``, the rank of a
                neighbour is the number of nearer ones, so all that tie with the K-th nearest are linked.
            seed: Seed of the order of ties if ``ties`` is ``random``.
            index: How neighbours are found, as in ``nearest``. Without effect if ``ties`` is ``all``.

        Raises:
            InputError: With ``all``, there are more than ``MOST_LINKS`` links. With ``hnsw``, FAISS is not installed.
        """
        if ties == "all":
            embeddings = Embeddings(x)
            return cls(*_all_links(among(embeddings, k), embeddings, k))
        chosen, nearness = nearest(x, k, order=_order(len(x), ties, seed), index=index)
        return cls(Links.listed(chosen), nearness, recall(x, nearness) if is_approximate(index, len(x)) else None)

    def on(self, device: str) -> Neighbours:
        """Return the same neighbours on another device."""
        links = Links(*(column.to(device) for column in self.links))
        return Neighbours(links, self.nearness.to(device), self.recall)


def nearest(
    x: Float[Tensor, "n e"], k: int, *, order: Int64[Tensor, " n"] | None = None, index: Index = "exact"
) -> tuple[Int64[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Return the indices of the ``k`` nearest other rows of each row, best first, and their similarities.

    The similarities are multiples of the resolution. The rows may be on any device, and the result is on the same one.

    Args:
        x: (N, E) embeddings.
        k: Number of neighbours.
        order: (N,), the rows in the order of preference if similarities tie. ``None`` for the order of the indices.
        index: ``exact``: all pairs are compared. ``hnsw``: among 100,000 rows or more, candidates come from an
            approximate index, and similarities and ties decide among them.

    Raises:
        InputError: With ``hnsw``, FAISS is not installed.
    """
    search = nearby if is_approximate(index, len(x)) else among
    if (group := groups_of(x)) is not None:
        return _ranked_by_group(search, x, k, order, group)
    embeddings = Embeddings(x)
    return _ranked(search(embeddings, k), embeddings, embeddings, k, order)


def recall(x: Float[Tensor, "n e"], nearness: Int64[Tensor, "n k"]) -> float:
    """Return the share of approximate neighbours that are as near as the exact ones, over at most 1,000 random rows.

    A neighbour counts if it is at least as similar as the exact neighbour with the largest rank. So another one of
    several equally similar rows is no error.

    Args:
        x: (N, E) embeddings.
        nearness: Nearness of the approximate neighbours, as in ``Neighbours``.
    """
    k = nearness.shape[1]
    sample = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_SAMPLED].to(x.device)
    some, everyone = Embeddings(x[sample]), Embeddings(x)
    with_itself = _ranked(between(some, everyone, k + 1), some, everyone, k + 1, None)[1]
    return float((nearness[sample] >= with_itself[:, k:]).double().mean())


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
    choosers, others = Embeddings(new), Embeddings(x)
    found = between(choosers, others, k)
    if ties == "all":
        return _all_links(found, choosers, k)[0]
    return Links.listed(_ranked(found, choosers, others, k, _order(len(x), ties, seed))[0])


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
    choosers, others, k = Embeddings(x), Embeddings(new), nearness.shape[1]
    parts = []
    for chooser, chosen in reaching(choosers, others, nearness[:, -1]):
        steps = choosers.steps(chooser, others, chosen)
        rank = _nearer(nearness[chooser], steps[:, None], or_as_near=ties != "all").flatten()
        kept = rank < k
        parts.append(Links(chooser[kept], chosen[kept], rank[kept]))
    return Links.all_of(parts)


def _ranked(
    found: Iterable[Found], choosers: Embeddings, x: Embeddings, k: int, order: Int64[Tensor, " n"] | None
) -> tuple[Int64[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """Return the ``k`` nearest candidates of each chooser, best first, and their similarities.

    A similarity in steps, times the number of rows of ``x``, plus the precedence of the row is a sort key. All keys of
    a chooser are distinct and a larger key is nearer, so top-k has the same result on every machine.
    """
    n = len(x)
    order, precedence = _preferred(n, order, x.device)
    best = torch.empty(len(choosers), k, dtype=torch.int64, device=x.device)
    for rows, columns, steps in found:
        best[rows] = (steps * n).add_(precedence[columns]).topk(k, dim=1).values
    return order[n - 1 - best.remainder(n)], best.div(n, rounding_mode="floor")


def _ranked_by_group(
    search: Callable[[Embeddings, int], Iterable[Found]],
    x: Float[Tensor, "n e"],
    k: int,
    order: Int64[Tensor, " n"] | None,
    group: Int64[Tensor, " n"],
) -> tuple[Int64[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Return the same as ``nearest``, but compare only one row of each group of equal rows.

    The ``k`` nearest rows of a row belong to its own group or to the ``k`` groups that come first, by their similarity
    and then by the precedence of their first members. In each of these groups they are among the first ``k`` + 1
    members, of which one may be the row itself. So the rows of a group share the ``k`` + 1 nearest, and each row drops
    itself, or else the last one.
    """
    n = len(x)
    order, precedence = _preferred(n, order, x.device)
    members = members_of(group, order, k + 1)  # (u, k + 1)
    first = members[:, 0]
    distinct = Embeddings(x[first])
    groups = torch.arange(len(first), device=x.device)[:, None]
    steps = distinct.steps(groups[:, 0], distinct, groups[:, 0])[:, None]
    if (others := min(k, len(first) - 1)) > 0:
        by_precedence = precedence[first].argsort(descending=True)
        found = _ranked(search(distinct, others), distinct, distinct, others, by_precedence)
        groups, steps = torch.cat([groups, found[0]], dim=1), torch.cat([steps, found[1]], dim=1)  # (u, 1 + others)
    best = torch.empty_like(members)
    for rows in slices(len(first), max(1, _CHUNK_ELEMENTS // (groups.shape[1] * (k + 1)))):
        row = members[groups[rows]]  # (r, 1 + others, k + 1)
        keys = (steps[rows, :, None] * n + precedence[row]).masked_fill_(row < 0, BELOW_ALL * n)
        best[rows] = keys.flatten(1).topk(k + 1, dim=1).values
    chosen = order[n - 1 - best.remainder(n)][group]  # (n, k + 1)
    itself = chosen == torch.arange(n, device=x.device)[:, None]
    dropped = torch.where(itself.any(dim=1), itself.int().argmax(dim=1), k)
    kept = torch.arange(k + 1, device=x.device) != dropped[:, None]
    return chosen[kept].view(n, k), best.div(n, rounding_mode="floor")[group][kept].view(n, k)


def _all_links(found: Iterable[Found], choosers: Embeddings, k: int) -> tuple[Links, Int64[Tensor, "m k"]]:
    """Return the links to all rows that are at least as near as the ``k``-th nearest, and the nearness of the nearest.

    Args:
        found: Candidates of the choosers.
        choosers: Embeddings of the choosers.
        k: Number of neighbours.

    Raises:
        InputError: There are more than ``MOST_LINKS`` links.
    """
    parts, count = [], 0
    nearness = torch.empty(len(choosers), k, dtype=torch.int64, device=choosers.device)
    for rows, columns, steps in found:
        best = steps.topk(k, dim=1).values
        rank = _nearer(best, steps, or_as_near=False)
        row, place = (rank < k).nonzero(as_tuple=True)
        count += len(row)
        if count > MOST_LINKS:
            raise InputError(
                f"--ties all: too many utterances are equally similar, so K={k} would link more than "
                f"{MOST_LINKS // 1_000_000} million pairs; use --ties index or --ties random"
            )
        parts.append(Links(rows[row], columns.expand_as(steps)[row, place], rank[row, place]))
        nearness[rows] = best
    return Links.all_of(parts), nearness


def _nearer(nearness: Int64[Tensor, "n k"], steps: Int64[Tensor, "n c"], *, or_as_near: bool) -> Int64[Tensor, "n c"]:
    """Count how many of a row's k nearest are nearer (or as near) than each candidate."""
    ascending = nearness.flip(1).contiguous()
    return nearness.shape[1] - torch.searchsorted(ascending, steps.contiguous(), right=not or_as_near)


def _order(n: int, ties: Ties, seed: int) -> Int64[Tensor, " n"] | None:
    """Return the rows in the order of preference for ties, or ``None`` for the order of the indices."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)) if ties == "random" else None


def _preferred(
    n: int, order: Int64[Tensor, " n"] | None, device: torch.device
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return the order of preference and each row's precedence in it: n - 1 for the first row, 0 for the last."""
    order = torch.arange(n, device=device) if order is None else order.to(device)
    precedence = torch.empty_like(order)
    precedence[order] = torch.arange(n - 1, -1, -1, device=device)
    return order, precedence


def _pooled(x: Tensor | Rows, mask: Tensor | None) -> Float[Tensor, "n e"]:
    if x.ndim == 2:
        return x[:] if isinstance(x, Rows) else x.detach().cpu()
    pooled, start = torch.empty(len(x), x.shape[-1], dtype=torch.float64), 0
    for chunk in in_chunks(x):
        rows = slice(start, start + len(chunk))
        valid = torch.ones(chunk.shape[:2], dtype=torch.bool) if mask is None else mask[rows].cpu()
        pooled[rows] = masked_mean(chunk.detach().cpu().double(), valid)
        start += len(chunk)
    return pooled

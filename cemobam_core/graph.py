"""The graph over utterances: each one is linked to its nearest neighbours by audio and by text (Eqs. 1, 2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cemobam_core.approximate import Index
from cemobam_core.errors import InputError
from cemobam_core.fields import check_fields
from cemobam_core.neighbours import Links, Neighbours, Pooled, Ties, links_from, links_to, nearest
from cemobam_core.rows import Rows

_log = logging.getLogger("cemobam_core")

_MANY = 20_000
"""Number of utterances from which a GPU ranks them. For fewer, the CPU takes seconds."""

GatherFrom = Literal["chosen", "choosers"]
EvaluationGraph = Literal["own", "anchored", "joint"]


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Settings of the graph.

    Args:
        k_audio: Number of nearest neighbours by audio that each utterance chooses.
        k_text: Number of nearest neighbours by text that each utterance chooses.
        gather_from: A node gathers from the neighbours that it has ``chosen`` (Eq. 2), or from the ``choosers``, the
            nodes that chose it.
        evaluation_graph: The graph in which validation and test are labelled. ``own``: each split has a graph of its
            own. ``anchored``: each utterance is added alone to the graph of the train split, so its label does not
            depend on the other utterances that are labelled. ``joint``: a split is ranked together with the train
            split. This is transductive: the test utterances change the graph of the training utterances, but not the
            weights. Training always uses the train split's own graph.
        evaluation_size: Used with ``own`` only. A split is cut at random into parts of this many utterances, or a few
            more, and an utterance has neighbours only in its own part. 0 keeps the split whole.
        ties: How equally similar neighbours rank. ``index``: by index. ``random``: in a random order that differs
            between seeds. ``all``: alike, so all neighbours that tie with the K-th nearest are linked.
        index: How neighbours are found. ``exact``: all pairs of utterances are compared. ``hnsw``: among 100,000
            utterances or more, an approximate index (FAISS's HNSW) finds nearly all neighbours, and the report says
            what share. Fewer utterances are ranked exactly, and so are the new ones of an ``anchored`` graph.

    Raises:
        InputError: A value is out of range.
    """

    k_audio: int = 5
    k_text: int = 5
    gather_from: GatherFrom = "chosen"
    evaluation_graph: EvaluationGraph = "own"
    evaluation_size: int = 0
    ties: Ties = "index"
    index: Index = "exact"

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)
        if self.evaluation_size and self.evaluation_graph != "own":
            raise InputError(
                f"evaluation_size={self.evaluation_size} needs evaluation_graph=own; with "
                f"evaluation_graph={self.evaluation_graph}, leave it out"
            )
        if 0 < self.evaluation_size <= max(self.k_audio, self.k_text):
            raise InputError(
                f"evaluation_size={self.evaluation_size} is too small for K {self.k_audio},{self.k_text}: it must be "
                f"at least {max(self.k_audio, self.k_text) + 1}, because an utterance is not its own neighbour"
            )
        if self.index != "exact" and self.ties == "all":
            raise InputError(
                f"index={self.index} with ties=all: an approximate index does not find all ties; use index=exact, or "
                "ties=index or ties=random"
            )


@dataclass(frozen=True, eq=False)
class TopKGraph:
    """The nearest neighbours of every utterance, ranked once. Every graph of the K grid is a slice of this ranking.

    Neighbours by cosine similarity are nested in K: the K nearest are the first K of the ``k_max`` nearest. The
    similarity matrix, by far the most expensive step, is therefore computed once for the whole grid. An utterance is
    not its own neighbour. Ties are broken by the smaller index.

    Attributes:
        by_audio: (N, k_max). Row i holds the indices of the nearest utterances of i by audio, best first.
        by_text: (N, k_max), the same by text.
    """

    by_audio: Int64[Tensor, "n k"]
    by_text: Int64[Tensor, "n k"]

    @classmethod
    def from_features(
        cls,
        audio: Float[Tensor, "n *ta ea"] | Rows,
        text: Float[Tensor, "n_text *tt et"] | Rows,
        k_max: int = 10,
        *,
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n_text tt"] | None = None,
        index: Index = "exact",
    ) -> TopKGraph:
        """Rank the ``k_max`` nearest neighbours of each utterance, by audio and by text.

        The ranking is computed on the CPU. All similarities are computed in float32, and those that can belong to a
        nearest neighbour again in float64, so the result is that of float64. The memory beside the features is that of
        one modality in float32 and about 1.5 kB per utterance.

        Args:
            audio: Audio embeddings, (N, E) or (N, T, E), as a tensor or rows of files. Sequences are averaged over
                their valid steps.
            text: Text embeddings, (N, E) or (N, T, E).
            k_max: The largest K that you will pass to ``edge_index``.
            audio_mask: (N, T), true for valid audio steps. ``None`` if all steps are valid.
            text_mask: (N, T), true for valid text steps. ``None`` if all steps are valid.
            index: How neighbours are found, as in :class:`GraphConfig`.

        Raises:
            InputError: The numbers of utterances differ, ``k_max`` is not between 1 and N - 1, or FAISS is not
                installed and ``index`` needs it.
        """
        n = len(audio)
        if len(text) != n:
            raise InputError(
                f"{n} audio embeddings but {len(text)} text embeddings: give one of each for every utterance"
            )
        _check(n, k_max)
        pooled = Pooled.of(audio, text, audio_mask, text_mask)
        by_audio, by_text = (nearest(x, k_max, index=index)[0] for x in pooled)
        return cls(by_audio=by_audio, by_text=by_text)

    @property
    def k_max(self) -> int:
        """The largest K of this ranking."""
        return self.by_audio.shape[1]

    def edge_index(self, k_audio: int, k_text: int, *, gather_from: GatherFrom = "chosen") -> Int64[Tensor, "2 e"]:
        """Return the graph for one pair of K: the union of both modalities' neighbours, and self-loops (Eq. 2).

        Args:
            k_audio: Number of nearest neighbours by audio that each utterance chooses.
            k_text: Number of nearest neighbours by text that each utterance chooses.
            gather_from: ``chosen``, or ``choosers`` to reverse every edge: j then gathers from the i that chose it.

        Returns:
            (2, E) in the convention of torch-geometric: row 0 is the source j, row 1 is the target i that chose j and
            gathers from it. Edges are sorted by source, then by target, without duplicates.

        Raises:
            InputError: A K is below 1 or above ``k_max``.
        """
        ranked = self._choosers_edges if gather_from == "choosers" else self._edges
        return ranked.edge_index(k_audio, k_text)

    @cached_property
    def _edges(self) -> RankedGraph:
        return self._ranked("chosen")

    @cached_property
    def _choosers_edges(self) -> RankedGraph:
        return self._ranked("choosers")

    def _ranked(self, gather_from: GatherFrom) -> RankedGraph:
        audio, text = (Links.listed(by) for by in (self.by_audio, self.by_text))
        return RankedGraph.of(len(self.by_audio), self.k_max, audio, text, gather_from)


@dataclass(frozen=True, eq=False)
class RankedGraph:
    """The edges of the largest graph, with ranks that show which edges a smaller K keeps.

    Attributes:
        edges: (2, E). Row 0 is the source, row 1 is the target that gathers from it. Sorted, without duplicates.
        audio_rank: (E,), the rank of each edge's neighbour by audio. The graph for K_audio contains the edges with a
            rank below K_audio. A self-loop has rank 0. An edge that audio did not choose has rank ``k_max``.
        text_rank: (E,), the same by text.
        k_max: The largest K of this ranking.
        recall: Share of the ``k_max`` nearest neighbours that were found, by audio and by text. ``None`` if the ranking
            is exact.
    """

    edges: Int64[Tensor, "2 e"]
    audio_rank: Int64[Tensor, " e"]
    text_rank: Int64[Tensor, " e"]
    k_max: int
    recall: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        n: int,
        k_max: int,
        audio: Links,
        text: Links,
        gather_from: GatherFrom,
        *,
        recall: tuple[float, float] | None = None,
    ) -> RankedGraph:
        """Combine the links of both modalities (Eq. 2) with a self-loop at every utterance.

        Args:
            n: Number of utterances.
            k_max: The largest K of the ranking.
            audio: Links by audio.
            text: Links by text.
            gather_from: Whether an utterance gathers from the utterances it has ``chosen`` or from its ``choosers``.
            recall: As in the attributes.
        """
        loops = torch.arange(n, device=audio.chosen.device) * (n + 1)
        ends = [
            (chosen, chooser) if gather_from == "chosen" else (chooser, chosen) for chooser, chosen, _ in (audio, text)
        ]
        by_audio, by_text = (source * n + target for source, target in ends)
        distinct, which = torch.unique(torch.cat([loops, by_audio, by_text]), return_inverse=True)  # sorted
        loop, in_audio, in_text = which.split([n, len(by_audio), len(by_text)])
        ranks = []
        for places, links in ((in_audio, audio), (in_text, text)):
            rank = torch.full_like(distinct, k_max).scatter_reduce(0, places, links.rank, "amin")
            rank[loop] = 0
            ranks.append(rank)
        return cls(torch.stack([distinct // n, distinct % n]), ranks[0], ranks[1], k_max, recall)

    def edge_index(self, k_audio: int, k_text: int) -> Int64[Tensor, "2 e"]:
        """Return the graph for one pair of K, as ``TopKGraph.edge_index`` does.

        Raises:
            InputError: A K is below 1 or above ``k_max``.
        """
        for name, k in (("k_audio", k_audio), ("k_text", k_text)):
            if not 1 <= k <= self.k_max:
                raise InputError(f"{name}={k}: it must be between 1 and {self.k_max}, the largest K that was ranked")
        return self.edges[:, (self.audio_rank < k_audio) | (self.text_rank < k_text)]

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors of this graph."""
        return self.edges, self.audio_rank, self.text_rank


@dataclass(frozen=True, eq=False)
class Ranking:
    """The utterances of a split, ranked by each modality, for every graph up to ``k_max``.

    Attributes:
        pooled: Embeddings of the utterances.
        audio: Nearest neighbours of each utterance by audio.
        text: Nearest neighbours of each utterance by text.
        k_max: The largest K of this ranking.
        ties: How equally similar neighbours rank.
        seed: Seed of the order of ties if ``ties`` is ``random``.
    """

    pooled: Pooled
    audio: Neighbours
    text: Neighbours
    k_max: int
    ties: Ties
    seed: int

    @classmethod
    def of(
        cls,
        pooled: Pooled,
        k_max: int,
        *,
        ties: Ties = "index",
        seed: int = 0,
        index: Index = "exact",
        device: str = "cpu",
    ) -> Ranking:
        """Rank the ``k_max`` nearest neighbours of each utterance.

        Args:
            pooled: Embeddings of the utterances, on the CPU.
            k_max: Number of neighbours.
            ties: How equally similar neighbours rank.
            seed: Seed of the order of ties if ``ties`` is ``random``.
            index: How neighbours are found.
            device: Device that ranks many utterances. If it fails, the CPU ranks them. The result is on the CPU.

        Raises:
            InputError: There are too few utterances, too many ties to link them all, or FAISS is not installed and
                ``index`` needs it.
        """
        _check(len(pooled.audio), k_max)

        def rank(x: Tensor) -> Neighbours:
            return Neighbours.among(x, k_max, ties=ties, seed=seed, index=index)

        audio, text = (_ranked_on(device, x, rank) for x in pooled)
        return cls(pooled, audio, text, k_max, ties, seed)

    @property
    def recall(self) -> tuple[float, float] | None:
        """The recall of the neighbours by audio and by text, as in ``Neighbours``."""
        audio, text = self.audio.recall, self.text.recall
        return None if audio is None or text is None else (audio, text)

    def graph(self, gather_from: GatherFrom) -> RankedGraph:
        """Return the graph over these utterances."""
        n, audio, text = len(self.pooled.audio), self.audio.links, self.text.links
        return RankedGraph.of(n, self.k_max, audio, text, gather_from, recall=self.recall)

    def anchored(self, new: Pooled, gather_from: GatherFrom) -> RankedGraph:
        """Return the graph of these utterances and of new ones, each of which is added as if it were the only one.

        The nodes of the new utterances follow those of these. The graph over these utterances does not change.
        """
        n, m = len(self.pooled.audio), len(new.audio)
        links = [
            Links.all_of(
                [own.links, anchored_links(x, own.nearness, of_new, gather_from, ties=self.ties, seed=self.seed)]
            )
            for x, own, of_new in zip(self.pooled, (self.audio, self.text), new, strict=True)
        ]
        return RankedGraph.of(n + m, self.k_max, links[0], links[1], gather_from, recall=self.recall)


def _ranked_on(device: str, x: Float[Tensor, "n e"], rank: Callable[[Tensor], Neighbours]) -> Neighbours:
    """Return the neighbours that ``rank`` finds, on the CPU. Many utterances are ranked on ``device``."""
    if device != "cpu" and len(x) >= _MANY:
        try:
            return rank(x.to(device)).on("cpu")
        except RuntimeError as error:  # too little memory, or an operation that the device does not have
            reason = str(error).partition("\n")[0]
            _log.warning("%s cannot rank %d utterances (%s); the CPU ranks them", device, len(x), reason)
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # the workers need the memory
    return rank(x)


def anchored_links(
    x: Float[Tensor, "n e"],
    nearness: Int64[Tensor, "n k"],
    new: Float[Tensor, "m e"],
    gather_from: GatherFrom,
    *,
    ties: Ties,
    seed: int,
) -> Links:
    """Return the links between known utterances and new ones, each of which is added as if it were the only one.

    With ``gather_from="chosen"``, a new utterance chooses its nearest neighbours among the known ones. With
    ``"choosers"``, the known utterances that would have the new one among their nearest choose it; if it is exactly as
    near as a known neighbour, the known neighbour comes first, unless ``ties`` is ``all``.

    Args:
        x: Embeddings of the known utterances.
        nearness: Nearness of the known utterances, as in ``Neighbours``.
        new: Embeddings of the new utterances. Their nodes follow those of the known ones.
        gather_from: Direction of the edges, as described above.
        ties: How equally similar neighbours rank.
        seed: Seed of the order of ties if ``ties`` is ``random``.
    """
    known, added = torch.arange(len(x)), len(x) + torch.arange(len(new))
    if gather_from == "chosen":
        return links_to(new, x, nearness.shape[1], ties=ties, seed=seed).between(added, known)
    return links_from(new, x, nearness, ties=ties).between(known, added)


def in_parts(
    pooled: Pooled,
    k_max: int,
    size: int,
    gather_from: GatherFrom,
    *,
    ties: Ties = "index",
    seed: int = 0,
    index: Index = "exact",
    device: str = "cpu",
) -> RankedGraph:
    """Return the graph of a split that is cut at random into parts. An utterance has neighbours only in its own part.

    The cut is the same for every seed. A split is cut into as many parts of at least ``size`` utterances as possible,
    and the sizes of the parts differ by at most one. A split that is too small for two parts stays whole.

    Args:
        pooled: Embeddings of the split.
        k_max: The largest K.
        size: Smallest number of utterances in a part.
        gather_from: Direction of the edges.
        ties: How equally similar neighbours rank.
        seed: Seed of the order of ties if ``ties`` is ``random``.
        index: How neighbours are found.
        device: Device that ranks many utterances.

    Raises:
        InputError: There are too few utterances, too many ties to link them all, or FAISS is not installed and
            ``index`` needs it.
    """
    n = len(pooled.audio)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    parts = [rows.sort().values for rows in shuffled.tensor_split(max(1, n // size))]
    audio, text, recalls = [], [], []
    for rows in parts:
        ranking = Ranking.of(pooled.select(rows), k_max, ties=ties, seed=seed, index=index, device=device)
        recalls.append(ranking.recall)
        audio.append(ranking.audio.links.between(rows, rows))
        text.append(ranking.text.links.between(rows, rows))
    ends = Links.all_of(audio), Links.all_of(text)
    return RankedGraph.of(n, k_max, *ends, gather_from, recall=lowest(recalls))


def lowest(recalls: Iterable[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the lowest recall by audio and by text of several rankings. ``None`` if all of them are exact."""
    measured = [one for one in recalls if one is not None]
    return (min(audio for audio, _ in measured), min(text for _, text in measured)) if measured else None


def _check(n: int, k_max: int) -> None:
    if not 1 <= k_max < n:
        raise InputError(
            f"K={k_max} with {n} utterances: K must be between 1 and {n - 1} (an utterance is not its own neighbour)"
        )

"""The graph over utterances: each one linked to its nearest by audio and by text (Eqs. 1, 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.fields import check_fields
from cemobam_core.neighbours import Links, Neighbours, Pooled, Ties, links_from, links_to, nearest

GatherFrom = Literal["chosen", "choosers"]
EvaluationGraph = Literal["own", "anchored", "joint"]


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Choices of the graph.

    Args:
        k_audio: how many nearest by audio each utterance chooses.
        k_text: the same by text.
        gather_from: a node gathers from those it has ``chosen`` (Eq. 2), or from the ``choosers`` that chose it.
        evaluation_graph: the graph that validation and test are labelled in. ``own``: each split among itself.
            ``anchored``: each utterance is added alone to the train split's graph, so that its label does not depend on
            the others that are labelled. ``joint``: a split and the train split are ranked together. That is
            transductive: the test utterances change the graph of the training ones, though not the weights. Training
            always uses the train split's own graph.
        evaluation_size: with ``own``, a split is cut at random into parts of so many utterances, or a few more, and an
            utterance has neighbours in its part alone; 0: the split is whole.
        ties: equally similar neighbours rank by ``index``, at ``random`` (another order for each seed), or alike, so
            that ``all`` that tie with the K-th nearest are linked.

    Raises:
        InputError: a value out of range.
    """

    k_audio: int = 5
    k_text: int = 5
    gather_from: GatherFrom = "chosen"
    evaluation_graph: EvaluationGraph = "own"
    evaluation_size: int = 0
    ties: Ties = "index"

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)
        if self.evaluation_size and self.evaluation_graph != "own":
            raise InputError(
                f"evaluation_size={self.evaluation_size} cuts a split that has its own graph; leave it out with "
                f"evaluation_graph={self.evaluation_graph}"
            )
        if 0 < self.evaluation_size <= max(self.k_audio, self.k_text):
            raise InputError(
                f"evaluation_size={self.evaluation_size} is too small for K {self.k_audio},{self.k_text}: it must be "
                f"{max(self.k_audio, self.k_text) + 1} at least, for an utterance is not its own neighbour"
            )


@dataclass(frozen=True, eq=False)
class TopKGraph:
    """The nearest neighbours of every utterance, ranked once; every graph of the K grid is a slice of them.

    Neighbours by cosine similarity are nested in K: the K nearest are the first K of the ``k_max`` nearest. So the
    similarity matrix, by far the dearest step, is computed once for the whole grid. An utterance is not its own
    neighbour; ties are broken by the smaller index.

    Attributes:
        by_audio: row i holds the indices of i's nearest utterances by audio, best first.
        by_text: the same by text.
    """

    by_audio: Int64[Tensor, "n k"]
    by_text: Int64[Tensor, "n k"]

    @classmethod
    def from_features(
        cls,
        audio: Float[Tensor, "n *ta ea"],
        text: Float[Tensor, "n_text *tt et"],
        k_max: int = 10,
        *,
        audio_mask: Bool[Tensor, "n ta"] | None = None,
        text_mask: Bool[Tensor, "n_text tt"] | None = None,
    ) -> TopKGraph:
        """Rank the ``k_max`` nearest utterances of each, by audio and by text.

        Computed on the CPU in float64 and in chunks of rows: for 14,000 utterances of 768 numbers it takes seconds
        and some 180 MB beside the features.

        Args:
            audio: audio embeddings (N, E) or (N, T, E); sequences are averaged over their valid steps.
            text: text embeddings, likewise.
            k_max: the largest K that :meth:`edge_index` will be asked for.
            audio_mask: (N, T), true where an audio step is valid; None: all are.
            text_mask: the same for text.

        Raises:
            InputError: the numbers of utterances differ, or ``k_max`` is not between 1 and N - 1.
        """
        n = len(audio)
        if len(text) != n:
            raise InputError(f"{n} audio embeddings but {len(text)} text embeddings: there must be one of each")
        _check(n, k_max)
        pooled = Pooled.of(audio, text, audio_mask, text_mask)
        return cls(by_audio=nearest(pooled.audio, k_max)[0], by_text=nearest(pooled.text, k_max)[0])

    @property
    def k_max(self) -> int:
        """The largest K that was ranked."""
        return self.by_audio.shape[1]

    def edge_index(self, k_audio: int, k_text: int, *, gather_from: GatherFrom = "chosen") -> Int64[Tensor, "2 e"]:
        """Return the graph for one pair of K: the union of both modalities' neighbours and the self-loops (Eq. 2).

        Args:
            k_audio: how many nearest by audio each utterance chooses.
            k_text: the same by text.
            gather_from: ``choosers`` turns every edge round, so that j gathers from the i that chose it.

        Returns:
            (2, E) in torch-geometric's convention: row 0 the source j, row 1 the target i that chose j, so that i
            gathers from j. Without duplicates, sorted by source, then target.

        Raises:
            InputError: a K below 1 or above ``k_max``.
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
    """The edges of the largest graph, with the ranks that tell which of them a smaller K keeps.

    Attributes:
        edges: row 0 the source, row 1 the target that gathers from it; sorted, without duplicates.
        audio_rank: of each edge's neighbour by audio: with K_audio neighbours the edge is there if it is less than
            K_audio. A self-loop ranks first; an edge that audio did not choose has the rank ``k_max``.
        text_rank: the same by text.
        k_max: the largest K that was ranked.
    """

    edges: Int64[Tensor, "2 e"]
    audio_rank: Int64[Tensor, " e"]
    text_rank: Int64[Tensor, " e"]
    k_max: int

    @classmethod
    def of(cls, n: int, k_max: int, audio: Links, text: Links, gather_from: GatherFrom) -> RankedGraph:
        """Return the graph of both modalities' links (Eq. 2), and of every utterance's with itself.

        Args:
            n: how many utterances there are.
            k_max: the largest K that was ranked.
            audio: links by audio.
            text: links by text.
            gather_from: whether an utterance gathers from those it has chosen or from its choosers.
        """
        loops = torch.arange(n, device=audio.chosen.device) * (n + 1)
        ends = [
            (chosen, chooser) if gather_from == "chosen" else (chooser, chosen) for chooser, chosen, _ in (audio, text)
        ]
        by_audio, by_text = (source * n + target for source, target in ends)
        distinct, which = torch.unique(torch.cat([loops, by_audio, by_text]), return_inverse=True)  # sorted, each once
        loop, in_audio, in_text = which.split([n, len(by_audio), len(by_text)])
        ranks = []
        for places, links in ((in_audio, audio), (in_text, text)):
            rank = torch.full_like(distinct, k_max).scatter_reduce(0, places, links.rank, "amin")
            rank[loop] = 0
            ranks.append(rank)
        return cls(torch.stack([distinct // n, distinct % n]), ranks[0], ranks[1], k_max)

    def edge_index(self, k_audio: int, k_text: int) -> Int64[Tensor, "2 e"]:
        """Return the graph for one pair of K, as :meth:`TopKGraph.edge_index` does.

        Raises:
            InputError: a K below 1 or above ``k_max``.
        """
        for name, k in (("k_audio", k_audio), ("k_text", k_text)):
            if not 1 <= k <= self.k_max:
                raise InputError(f"{name}={k} is not between 1 and the {self.k_max} neighbours that were ranked")
        return self.edges[:, (self.audio_rank < k_audio) | (self.text_rank < k_text)]

    def tensors(self) -> tuple[Tensor, ...]:
        """Return its tensors."""
        return self.edges, self.audio_rank, self.text_rank


@dataclass(frozen=True, eq=False)
class Ranking:
    """Utterances ranked among one another by either modality, for every graph up to ``k_max``.

    Attributes:
        pooled: their embeddings.
        audio: each one's nearest by audio.
        text: the same by text.
        k_max: the largest K that was ranked.
        ties: how equally similar ones rank.
        seed: orders ties at random.
    """

    pooled: Pooled
    audio: Neighbours
    text: Neighbours
    k_max: int
    ties: Ties
    seed: int

    @classmethod
    def of(cls, pooled: Pooled, k_max: int, *, ties: Ties = "index", seed: int = 0) -> Ranking:
        """Rank the ``k_max`` nearest of each.

        Raises:
            InputError: too few utterances, or too many ties to link all.
        """
        _check(len(pooled.audio), k_max)
        audio, text = (Neighbours.among(x, k_max, ties=ties, seed=seed) for x in pooled)
        return cls(pooled, audio, text, k_max, ties, seed)

    def graph(self, gather_from: GatherFrom) -> RankedGraph:
        """Return the graph among them."""
        return RankedGraph.of(len(self.pooled.audio), self.k_max, self.audio.links, self.text.links, gather_from)

    def anchored(self, new: Pooled, gather_from: GatherFrom) -> RankedGraph:
        """Return the graph of these and of new utterances, each of which is added alone.

        The nodes of the new ones follow these. The graph among these stays what it is.
        """
        n, m = len(self.pooled.audio), len(new.audio)
        links = [
            Links.all_of(
                [own.links, anchored_links(x, own.nearness, of_new, gather_from, ties=self.ties, seed=self.seed)]
            )
            for x, own, of_new in zip(self.pooled, (self.audio, self.text), new, strict=True)
        ]
        return RankedGraph.of(n + m, self.k_max, links[0], links[1], gather_from)


def anchored_links(
    x: Float[Tensor, "n e"],
    nearness: Int64[Tensor, "n k"],
    new: Float[Tensor, "m e"],
    gather_from: GatherFrom,
    *,
    ties: Ties,
    seed: int,
) -> Links:
    """Return the links between known utterances and new ones, each of which is there alone.

    A new utterance that gathers from those it has ``chosen`` chooses its nearest among the known. One that gathers from
    its ``choosers`` is chosen by the known that would have it among their nearest; it comes after one that is as near.

    Args:
        x: embeddings of the known.
        nearness: theirs, as :class:`Neighbours` has it.
        new: embeddings of the new; their nodes follow those of the known.
        gather_from: see above.
        ties: how equally similar ones rank.
        seed: orders ties at random.
    """
    known, added = torch.arange(len(x)), len(x) + torch.arange(len(new))
    if gather_from == "chosen":
        return links_to(new, x, nearness.shape[1], ties=ties, seed=seed).between(added, known)
    return links_from(new, x, nearness, ties=ties).between(known, added)


def in_parts(
    pooled: Pooled, k_max: int, size: int, gather_from: GatherFrom, *, ties: Ties = "index", seed: int = 0
) -> RankedGraph:
    """Return the graph of a split that is cut at random into parts, in which alone an utterance has neighbours.

    The cut is the same for every seed. There are as many parts as hold ``size`` utterances, and the parts are as equal
    as they can be; a split that is not large enough for two is whole.

    Args:
        pooled: the split.
        k_max: the largest K.
        size: of a part, at least.
        gather_from: which way the edges point.
        ties: how equally similar utterances rank.
        seed: orders ties at random.

    Raises:
        InputError: too few utterances, or too many ties to link all.
    """
    n = len(pooled.audio)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    parts = [rows.sort().values for rows in shuffled.tensor_split(max(1, n // size))]
    audio, text = [], []
    for rows in parts:
        ranking = Ranking.of(pooled.select(rows), k_max, ties=ties, seed=seed)
        audio.append(ranking.audio.links.between(rows, rows))
        text.append(ranking.text.links.between(rows, rows))
    return RankedGraph.of(n, k_max, Links.all_of(audio), Links.all_of(text), gather_from)


def _check(n: int, k_max: int) -> None:
    if not 1 <= k_max < n:
        raise InputError(
            f"K={k_max} neighbours were asked of {n} utterances: K must be between 1 and {n - 1} "
            "(an utterance is not its own neighbour)"
        )

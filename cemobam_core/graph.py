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
from cemobam_core.operators.pooling import masked_mean

_CHUNK_ELEMENTS = 2_000_000
"""Similarities held at once: 16 MB of float64, and some three times that for their keys."""

_RESOLUTION = 2.0**-33
"""Cosines closer than this (1.2e-10) are a tie. Rounding errors of a float64 product are some 1e-15, so equal
embeddings tie on every machine, whatever its matrix product does; unequal ones of float32 data do not."""

GatherFrom = Literal["chosen", "choosers"]


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Choices of the graph.

    Args:
        k_audio: how many nearest by audio each utterance chooses.
        k_text: the same by text.
        gather_from: a node gathers from those it has ``chosen`` (Eq. 2), or from the ``choosers`` that chose it.

    Raises:
        InputError: a value out of range.
    """

    k_audio: int = 5
    k_text: int = 5
    gather_from: GatherFrom = "chosen"

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)


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
        if not 1 <= k_max < n:
            raise InputError(
                f"K={k_max} neighbours were asked of {n} utterances: K must be between 1 and {n - 1} "
                "(an utterance is not its own neighbour)"
            )
        return cls(
            by_audio=_nearest(_pooled(audio, audio_mask), k_max),
            by_text=_nearest(_pooled(text, text_mask), k_max),
        )

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
        for name, k in (("k_audio", k_audio), ("k_text", k_text)):
            if not 1 <= k <= self.k_max:
                raise InputError(f"{name}={k} is not between 1 and the {self.k_max} neighbours that were ranked")
        edges, audio_rank, text_rank = self._choosers_edges if gather_from == "choosers" else self._edges
        return edges[:, (audio_rank < k_audio) | (text_rank < k_text)]

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._ranked_edges(turned=False)

    @cached_property
    def _choosers_edges(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._ranked_edges(turned=True)

    def _ranked_edges(self, *, turned: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges of the largest graph, sorted, and the rank of each by audio and by text.

        A smaller graph is those whose rank is below its K. A self-loop ranks first; what a modality did not choose has
        the rank ``k_max``.
        """
        n, k = self.by_audio.shape
        target = torch.arange(n, device=self.by_audio.device).unsqueeze(1)
        source = torch.cat([target, self.by_audio, self.by_text], dim=1)  # (N, 1 + 2 K)
        edges = target * n + source if turned else source * n + target
        distinct, which = torch.unique(edges, return_inverse=True)  # one number an edge: sorted, each once
        place = torch.arange(k, device=edges.device)
        first, never = place.new_zeros(1), place.new_full((k,), k)
        ranks = []
        for rank in (torch.cat([first, place, never]), torch.cat([first, never, place])):
            best = torch.full_like(distinct, k)
            ranks.append(best.scatter_reduce(0, which.flatten(), rank.repeat(n), "amin"))
        return torch.stack([distinct // n, distinct % n]), ranks[0], ranks[1]


def _pooled(x: Tensor, mask: Tensor | None) -> Float[Tensor, "n e"]:
    x = x.detach().cpu()
    if x.ndim == 2:
        return x
    valid = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
    return masked_mean(x.double(), valid)


def _nearest(x: Float[Tensor, "n e"], k: int) -> Int64[Tensor, "n k"]:
    """Return the indices of each row's ``k`` nearest others, best first.

    A similarity is that of both its rows, so half of the matrix is enough: a block of rows is compared with itself and
    what follows, and each block's best are merged into those known of either side.
    """
    n = len(x)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    # One integer a candidate, larger is nearer: the similarity in steps of the resolution, then the smaller index.
    # All are distinct, so top-k has one answer on every machine.
    precedence = torch.arange(n - 1, -1, -1)
    best = torch.full((n, k), torch.iinfo(torch.int64).min)
    for rows in torch.split(torch.arange(n), max(1, _CHUNK_ELEMENTS // n)):
        first, beyond = int(rows[0]), int(rows[-1]) + 1
        similarity = unit[first:beyond] @ unit[first:].T  # (rows, n - first)
        similarity.diagonal().fill_(-2.0)  # of itself: below every cosine
        steps = similarity.div_(_RESOLUTION).round_().to(torch.int64).mul_(n)
        _merge(best[first:beyond], steps + precedence[first:])
        _merge(best[beyond:], steps[:, beyond - first :].T + precedence[first:beyond])
    return n - 1 - best.remainder(n)


def _merge(best: Int64[Tensor, "rows k"], candidates: Int64[Tensor, "rows c"]) -> None:
    """Replace each row's best by the best of them and the candidates."""
    k = best.shape[1]
    nearest = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    best.copy_(torch.cat([best, nearest], dim=1).topk(k, dim=1).values)

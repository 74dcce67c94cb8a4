"""The train split of a trained model, kept to label new utterances one by one in its graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.graph import GraphConfig, RankedGraph, Ranking, anchored_links
from cemobam_core.neighbours import Links
from cemobam_core.training.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training utterance that a new utterance is linked to.

    Attributes:
        row: Index of the training utterance.
        similarity: Cosine similarity of the two embeddings.
    """

    row: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Anchors:
    """Training utterances with their graph and the similarities of their nearest neighbours.

    It gives the same graphs as ``Ranking.anchored`` without ranking the training utterances again.

    Attributes:
        features: Features of the train split.
        edge_index: (2, E), the graph that the model was trained with.
        audio_nearness: (N, K), nearness by audio as in ``Neighbours``. K is the larger of K_audio and K_text.
        text_nearness: (N, K), the same by text.
    """

    features: FeatureSet
    edge_index: Int64[Tensor, "2 e"]
    audio_nearness: Int64[Tensor, "n k"]
    text_nearness: Int64[Tensor, "n k"]

    @classmethod
    def of(cls, features: FeatureSet, graph: GraphConfig, seed: int) -> Anchors:
        """Rank a train split.

        Args:
            features: Features of the train split.
            graph: Settings of the graph that the model is trained with.
            seed: Seed of the trial.

        Raises:
            InputError: There are too few utterances, or too many ties to link them all.
        """
        largest = max(graph.k_audio, graph.k_text)
        ranking = Ranking.of(features.pooled(), largest, ties=graph.ties, seed=seed, index=graph.index)
        edges = ranking.graph(graph.gather_from).edge_index(graph.k_audio, graph.k_text)
        return cls(features, edges, ranking.audio.nearness, ranking.text.nearness)

    def batch(self, new: FeatureSet, graph: GraphConfig, seed: int) -> Batch:
        """Return a batch in which each new utterance is labelled as if it were the only one.

        Args:
            new: Utterances to label. One is enough.
            graph: Settings of the graph that the model was trained with.
            seed: Seed of the model's trial.

        Raises:
            InputError: There are too many ties to link them all.
        """
        source, target = self.edge_index
        chooser, chosen = (target, source) if graph.gather_from == "chosen" else (source, target)
        ours = Links(chooser, chosen, source.new_zeros(len(source)))  # rank 0: kept for every K
        links = [Links.all_of([ours, more]) for more in self._links(new, graph, seed)]
        n, k_max = len(self.features) + len(new), max(graph.k_audio, graph.k_text)
        ranked = RankedGraph.of(n, k_max, links[0], links[1], graph.gather_from)
        return Batch.in_context(self.features, new, ranked.edge_index(graph.k_audio, graph.k_text))

    def neighbours(self, new: FeatureSet, graph: GraphConfig, seed: int) -> list[dict[str, tuple[Neighbour, ...]]]:
        """Return the training utterances that each new utterance is linked to, by modality, the most similar first.

        With ``gather_from="choosers"`` an utterance that no training utterance chooses has none.

        Args:
            new: Utterances to label.
            graph: Settings of the graph that the model was trained with.
            seed: Seed of the model's trial.

        Raises:
            InputError: There are too many ties to link them all.
        """
        found: list[dict[str, tuple[Neighbour, ...]]] = [{} for _ in range(len(new))]
        n, largest = len(self.features), (graph.k_audio, graph.k_text)
        pooled = zip(
            MODALITIES, self.features.pooled(), new.pooled(), self._links(new, graph, seed), largest, strict=True
        )
        for modality, x, of_new, links, k in pooled:
            kept = links.rank < k
            ends = torch.stack([links.chooser[kept], links.chosen[kept]]).sort(dim=0).values  # (2, C): known, then new
            known, added = ends[0], ends[1] - n
            similarity = torch.cosine_similarity(x[known].double(), of_new[added].double())
            for i, of_one in enumerate(found):
                rows = (added == i).nonzero().flatten()
                rows = rows[similarity[rows].argsort(descending=True, stable=True)]
                of_one[modality] = tuple(
                    Neighbour(row=int(known[row]), similarity=float(similarity[row])) for row in rows
                )
        return found

    def _links(self, new: FeatureSet, graph: GraphConfig, seed: int) -> list[Links]:
        """Return the links between these utterances and new ones by audio and by text, for the larger K."""
        nearness = (self.audio_nearness, self.text_nearness)
        return [
            anchored_links(x, near, of_new, graph.gather_from, ties=graph.ties, seed=seed)
            for x, near, of_new in zip(self.features.pooled(), nearness, new.pooled(), strict=True)
        ]

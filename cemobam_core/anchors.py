"""The train split of a trained model, kept to label new utterances one by one in its graph."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from cemobam_core.features import FeatureSet
from cemobam_core.graph import GraphConfig, RankedGraph, Ranking, anchored_links
from cemobam_core.neighbours import Links
from cemobam_core.training.batch import Batch


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
        ranking = Ranking.of(features.pooled(), max(graph.k_audio, graph.k_text), ties=graph.ties, seed=seed)
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
        known, added = self.features.pooled(), new.pooled()
        links = []
        for x, nearness, of_new in zip(known, (self.audio_nearness, self.text_nearness), added, strict=True):
            more = anchored_links(x, nearness, of_new, graph.gather_from, ties=graph.ties, seed=seed)
            links.append(Links.all_of([ours, more]))
        n, k_max = len(self.features) + len(new), max(graph.k_audio, graph.k_text)
        ranked = RankedGraph.of(n, k_max, links[0], links[1], graph.gather_from)
        return Batch.in_context(self.features, new, ranked.edge_index(graph.k_audio, graph.k_text))

"""Mini-batches of a train split, for training in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from cemobam_core.errors import InputError
from cemobam_core.systems.propagation import symmetric
from cemobam_core.training.batch import Batch
from cemobam_core.training.reach import Reach, reach

_JOINED = 8
"""Number of clusters in a mini-batch. The more, the less alike the utterances of a mini-batch are."""

_SMALLEST = 8
"""Smallest number of utterances in a cluster."""


class Parts:
    """A train split that is cut into mini-batches of about ``size`` utterances, in another way for each epoch.

    Without a graph, a mini-batch is random. A graph is cut once into clusters with few edges between them, and a
    mini-batch joins some random clusters, with all edges among them (Chiang et al., 2019, "Cluster-GCN: An Efficient
    Algorithm for Training Deep and Large Graph Convolutional Networks", KDD). The clusters are those of METIS. A
    mini-batch then needs the memory of its own utterances only, whatever the number of layers.

    Args:
        batch: The whole split. Mini-batches are cut on the CPU.
        size: Number of utterances in a mini-batch. A split with no more utterances is one mini-batch.
    """

    def __init__(self, batch: Batch, size: int) -> None:
        self._batch = batch if batch.labels.device.type == "cpu" else batch.to("cpu")
        self._n = len(batch.labels)
        self._number = -(-self._n // size)
        self._known: Reach | None = None
        self._joined = max(1, min(_JOINED, size // _SMALLEST))

    @property
    def labels(self) -> Tensor:
        """(N,), labels of the whole split."""
        return self._batch.labels

    def shuffled(self) -> Iterator[Batch]:
        """Yield the mini-batches of one epoch, which are drawn from torch's random state.

        A mini-batch of one utterance is left out, because a batch norm cannot be computed on it.
        """
        return self._cut(torch.randperm(len(self._sizes)))

    def fixed(self) -> Iterator[Batch]:
        """Yield the mini-batches of one epoch that are the same each time. No random numbers are drawn."""
        return self._cut(torch.randperm(len(self._sizes), generator=torch.Generator().manual_seed(0)))

    def surrounded(self, model: nn.Module) -> Iterator[Batch]:
        """Yield mini-batches in whose graph a model's logits are those of the whole graph, in evaluation mode.

        The utterances that the model sees from a mini-batch are its context. Their edges, to utterances one edge
        farther away, are complete, because a layer may weight a neighbour by the number of its own neighbours.

        Args:
            model: A single model.

        Raises:
            InputError: The logits of an utterance depend on too many others, see :func:`reach`.
        """
        edges = self._batch.inputs.edge_index
        if not edges.numel():
            for rows in torch.arange(self._n).split(-(-self._n // self._number)):
                yield self._batch.part(rows, edges)
            return
        far, both_ways = self._reach(model)
        for rows in self._clusters.argsort(stable=True).tensor_split(self._number):
            own = torch.zeros(self._n, dtype=torch.bool)
            own[rows] = True
            seen = own.clone()
            for _ in range(far + 1):
                further = [edges[0][seen[edges[1]]], *([edges[1][seen[edges[0]]]] if both_ways else [])]
                seen[torch.cat(further)] = True
            context = (seen & ~own).nonzero().flatten()
            nodes = torch.cat([context, rows])
            place = torch.empty(self._n, dtype=torch.int64)
            place[nodes] = torch.arange(len(nodes))
            inside = place[edges[:, seen[edges[0]] & seen[edges[1]]]]
            inputs = self._batch.inputs.part(nodes, inside)
            yield Batch(inputs, self._batch.labels[rows], self._batch.num_classes, context=len(context))

    def _reach(self, model: nn.Module) -> Reach:
        if self._known is None:
            self._known = reach(model, self._batch.inputs)
        return self._known

    def _cut(self, order: Int64[Tensor, " clusters"]) -> Iterator[Batch]:
        """Yield the mini-batches, each of consecutive clusters in this order."""
        if self._number == 1:
            yield self._batch
            return
        sizes = self._sizes[order]
        middle = sizes.cumsum(0) - sizes / 2
        of_cluster = torch.empty_like(order)
        of_cluster[order] = (middle * self._number / self._n).long()
        which = of_cluster[self._clusters]
        rows = which.argsort(stable=True)
        counts = which.bincount(minlength=self._number)
        place = torch.empty_like(rows)
        place[rows] = torch.arange(self._n) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        edges = self._batch.inputs.edge_index
        edges = edges[:, which[edges[0]] == which[edges[1]]]
        of_edge = which[edges[1]]
        edges = place[edges[:, of_edge.argsort(stable=True)]]
        of_parts = edges.split(of_edge.bincount(minlength=self._number).tolist(), dim=1)
        for own, own_edges in zip(rows.split(counts.tolist()), of_parts, strict=True):
            if len(own) > 1:
                yield self._batch.part(own, own_edges)

    @cached_property
    def _sizes(self) -> Int64[Tensor, " clusters"]:
        """The number of utterances in each cluster."""
        return self._clusters.bincount()

    @cached_property
    def _clusters(self) -> Int64[Tensor, " n"]:
        """The cluster of each utterance. Without a graph, every utterance is a cluster."""
        if not self._batch.inputs.edge_index.numel():
            return torch.arange(self._n)
        return clusters(self._batch.inputs.edge_index, self._n, self._number * self._joined)


def clusters(edge_index: Int64[Tensor, "2 e"], n: int, number: int) -> Int64[Tensor, " n"]:
    """Return the cluster of each node: clusters of nearly equal size with few edges between them, by METIS.

    Karypis and Kumar, 1998, "A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs". The same
    graph always gives the same clusters.

    Args:
        edge_index: (2, E), edges of any graph.
        n: Number of nodes.
        number: Number of clusters.

    Raises:
        InputError: The package that METIS comes with is not installed.
    """
    try:
        import pymetis  # noqa: PLC0415
    except ImportError:
        raise InputError(
            "mini-batches of a graph need pymetis, which has no wheel for this platform; with a C++ compiler: "
            "pip install pymetis"
        ) from None
    source, target = symmetric(edge_index, n)  # sorted by source
    offsets = torch.zeros(n + 1, dtype=torch.int64)
    offsets[1:] = source.bincount(minlength=n).cumsum(0)
    graph = pymetis.CSRAdjacency(adj_starts=offsets.numpy(), adjacent=target.numpy())
    _, cluster = pymetis.part_graph(number, graph, options=pymetis.Options(seed=0))
    numbered: Tensor = torch.as_tensor(cluster, dtype=torch.int64).unique(return_inverse=True)[1]  # some may be empty
    return numbered

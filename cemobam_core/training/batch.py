"""The utterances of one split, in the form in which systems are trained and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from cemobam_core.features import FeatureSet
from cemobam_core.inputs import Inputs, Sizes, Stored, StoredInputs


@dataclass(frozen=True, eq=False)
class Batch:
    """One split, ready for a system.

    Attributes:
        inputs: Inputs of the context, if any, followed by those of the split's N utterances.
        labels: (N,), labels of the split.
        num_classes: C.
        context: Number of utterances at the start that are in the graph but are neither labelled nor measured.
    """

    inputs: Inputs
    labels: Tensor
    num_classes: int
    context: int = 0

    @classmethod
    def from_features(cls, features: FeatureSet, edge_index: Tensor | None = None, *, whole: bool = True) -> Batch:
        """Create a batch from a feature set and its (2, E) graph.

        Args:
            features: The utterances.
            edge_index: Their graph. A system that uses no graph needs none.
            whole: Whether all embeddings are read now. If not, they stay in their files until a mini-batch needs them.
        """
        return cls._of([features], edge_index, whole=whole)

    @classmethod
    def in_context(cls, train: FeatureSet, features: FeatureSet, edge_index: Tensor, *, whole: bool = True) -> Batch:
        """Create a batch from a feature set in a graph that starts with the training utterances."""
        return cls._of([train, features], edge_index, whole=whole)

    @classmethod
    def _of(cls, sets: Sequence[FeatureSet], edge_index: Tensor | None, *, whole: bool) -> Batch:
        stored = [Stored(one.audio, one.text, one.audio_mask, one.text_mask) for one in sets]
        edges = torch.empty(2, 0, dtype=torch.int64) if edge_index is None else edge_index
        inputs: Inputs = StoredInputs(stored, edges)
        if whole:
            every = [one.read(slice(None)) for one in stored]
            inputs = replace(Inputs.joined(every) if len(every) > 1 else every[0], edge_index=edges)
        context = sum(len(one) for one in sets[:-1])
        return cls(inputs, sets[-1].labels, sets[-1].num_classes, context=context)

    def measured(self, rows: Tensor) -> Tensor:
        """Return the rows of the utterances to measure, without the context, from (..., N, width)."""
        return rows[..., self.context :, :]

    @classmethod
    def together(cls, batches: Sequence[Batch]) -> Batch:
        """Combine the batches of several trials that have the same utterances but different graphs."""
        return replace(batches[0], inputs=Inputs.together([batch.inputs for batch in batches]))

    @property
    def sizes(self) -> Sizes:
        """The sizes that a system needs to build a model."""
        audio_dim, text_dim = self.inputs.dims
        return Sizes(audio_dim=audio_dim, text_dim=text_dim, num_classes=self.num_classes)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device. Tensors that are already there are not copied."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def part(self, rows: Int64[Tensor, " p"], edge_index: Int64[Tensor, "2 e"]) -> Batch:
        """Return the utterances at ``rows``, with edges among them, which refer to places in ``rows``."""
        return Batch(self.inputs.part(rows, edge_index), self.labels[rows], self.num_classes)

    def few(self, n: int) -> Batch:
        """Return the first ``n`` utterances on the CPU, with an artificial graph of the same mean degree."""
        n = min(n, len(self.labels))
        degree = round(self.inputs.edge_index.shape[1] / len(self.inputs))
        target = torch.arange(n).repeat_interleave(degree)
        source = (target + torch.arange(degree).repeat(n)) % n
        device = self.labels.device
        inputs = self.inputs.part(torch.arange(n, device=device)).to("cpu")
        inputs = replace(inputs, edge_index=torch.stack([source, target]))
        return replace(self, inputs=inputs, labels=self.labels[:n].cpu(), context=0)

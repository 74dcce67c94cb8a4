"""The utterances of one split, in the form in which systems are trained and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from cemobam_core.features import FeatureSet
from cemobam_core.inputs import Inputs, Sizes


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
    def from_features(cls, features: FeatureSet, edge_index: Tensor | None = None) -> Batch:
        """Create a batch from a feature set and its (2, E) graph. A system that uses no graph needs none."""
        inputs = Inputs.from_features(
            features.audio[:], features.text[:], edge_index, features.audio_mask, features.text_mask
        )
        return cls(inputs, features.labels, features.num_classes)

    @classmethod
    def in_context(cls, train: FeatureSet, features: FeatureSet, edge_index: Tensor) -> Batch:
        """Create a batch from a feature set in a graph that starts with the training utterances."""
        inputs = [
            Inputs.from_features(one.audio[:], one.text[:], None, one.audio_mask, one.text_mask)
            for one in (train, features)
        ]
        both = replace(Inputs.joined(inputs), edge_index=edge_index)
        return cls(both, features.labels, features.num_classes, context=len(inputs[0]))

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
        audio_dim, text_dim = self.inputs.audio.shape[-1], self.inputs.text.shape[-1]
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
        inputs = Inputs(
            self.inputs.audio.first(n).on("cpu"), self.inputs.text.first(n).on("cpu"), torch.stack([source, target])
        )
        return replace(self, inputs=inputs, labels=self.labels[:n].cpu(), context=0)

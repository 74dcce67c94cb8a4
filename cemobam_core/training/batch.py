"""One split as a system is trained and measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cemobam_core.features import FeatureSet
from cemobam_core.inputs import Inputs, Sizes


@dataclass(frozen=True, eq=False)
class Batch:
    """One split, ready for a system.

    Attributes:
        inputs: of its N utterances, after those of the context.
        labels: (N,).
        num_classes: C.
        context: how many utterances come first that are in the graph and are not labelled or measured.
    """

    inputs: Inputs
    labels: Tensor
    num_classes: int
    context: int = 0

    @classmethod
    def from_features(cls, features: FeatureSet, edge_index: Tensor | None = None) -> Batch:
        """Return the batch of a feature set with its (2, E) graph; without one for a system that uses none."""
        inputs = Inputs.from_features(
            features.audio, features.text, edge_index, features.audio_mask, features.text_mask
        )
        return cls(inputs, features.labels, features.num_classes)

    @classmethod
    def in_context(cls, train: FeatureSet, features: FeatureSet, edge_index: Tensor) -> Batch:
        """Return the batch of a feature set in a graph that has training utterances too, which come first."""
        inputs = [
            Inputs.from_features(one.audio, one.text, None, one.audio_mask, one.text_mask) for one in (train, features)
        ]
        both = replace(Inputs.joined(inputs), edge_index=edge_index)
        return cls(both, features.labels, features.num_classes, context=len(inputs[0]))

    def measured(self, rows: Tensor) -> Tensor:
        """Return, of what a model gives for each utterance, (..., N, width), that of the utterances to be measured."""
        return rows[..., self.context :, :]

    @classmethod
    def together(cls, batches: Sequence[Batch]) -> Batch:
        """Return one batch of several trials', which have the same utterances and each its own graph."""
        return replace(batches[0], inputs=Inputs.together([batch.inputs for batch in batches]))

    @property
    def sizes(self) -> Sizes:
        """What a system needs to know of it."""
        audio_dim, text_dim = self.inputs.audio.shape[-1], self.inputs.text.shape[-1]
        return Sizes(audio_dim=audio_dim, text_dim=text_dim, num_classes=self.num_classes)

    def to(self, device: torch.device | str) -> Batch:
        """Return the same on another device; tensors that are there already are not copied."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def few(self, n: int) -> Batch:
        """Return the first utterances on the CPU, with a graph that has as many edges a node as this one."""
        n = min(n, len(self.labels))
        degree = round(self.inputs.edge_index.shape[1] / len(self.inputs))
        target = torch.arange(n).repeat_interleave(degree)
        source = (target + torch.arange(degree).repeat(n)) % n
        inputs = Inputs(
            self.inputs.audio.first(n).on("cpu"), self.inputs.text.first(n).on("cpu"), torch.stack([source, target])
        )
        return replace(self, inputs=inputs, labels=self.labels[:n].cpu(), context=0)

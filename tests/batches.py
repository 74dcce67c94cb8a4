"""Random batches, the two readings of the method, and one training step of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cemobam_core import Batch, CemoBAM, FeatureSet, Inputs, Sizes, TopKGraph, TrainingConfig
from cemobam_core.graph import GatherFrom
from cemobam_core.released import RELEASED
from cemobam_core.systems.cemobam import CemoBAMNetwork

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}

# A batch norm cancels the bias before it. The bias's gradient is rounding noise, which Adam turns into steps.
BEFORE_BATCH_NORM = ("projection.layers.0.bias", "hidden.0.bias", "hidden.1.bias")


@dataclass(frozen=True)
class Reading:
    """The settings of one reading of the method: the paper's or that of the authors' code."""

    system: CemoBAM
    gather_from: GatherFrom
    training: TrainingConfig


READINGS = {
    "paper": Reading(CemoBAM(), "chosen", TrainingConfig()),
    "released": Reading(
        RELEASED,
        "choosers",
        TrainingConfig(
            schedule="plateau", lr_gamma=0.5, lr_patience=15, train_mode="first_epoch", batch_norm="running"
        ),
    ),
}

SIZES = Sizes(audio_dim=10, text_dim=6, num_classes=3)


def system_of(reading: str, **changes: object) -> CemoBAM:
    """Return a small CemoBAM with the settings of a reading."""
    return replace(READINGS[reading].system, **({"hidden_dim": 32} | changes))  # type: ignore[arg-type]


def model_of(reading: str, **changes: object) -> CemoBAMNetwork:
    """Return the network of a reading, for the sizes of the batches here."""
    return system_of(reading, **changes).build(SIZES)


def any_batch(
    n: int,
    steps: tuple[int, int],
    seed: int,
    dtype: torch.dtype = torch.float32,
    *,
    k: tuple[int, int] = (2, 1),
    gather_from: GatherFrom = "chosen",
) -> Batch:
    """Return random utterances with up to this many audio and text steps. Zero steps means utterance level."""
    generator = torch.Generator().manual_seed(seed)
    x: list[torch.Tensor] = []
    masks: list[torch.Tensor | None] = []
    for length, dim in zip(steps, (SIZES.audio_dim, SIZES.text_dim), strict=True):
        x.append(torch.randn(*((n, length, dim) if length else (n, dim)), generator=generator, dtype=dtype))
        lengths = torch.randint(1, max(length, 1) + 1, (n, 1), generator=generator)
        masks.append(torch.arange(length) < lengths if length else None)
    ranked = TopKGraph.from_features(x[0], x[1], max(k), audio_mask=masks[0], text_mask=masks[1])
    inputs = Inputs.from_features(x[0], x[1], ranked.edge_index(*k, gather_from=gather_from), *masks)
    return Batch(inputs, torch.randint(SIZES.num_classes, (n,), generator=generator), SIZES.num_classes)


def joint_batches(splits: Mapping[str, FeatureSet], k_audio: int, k_text: int) -> dict[str, Batch]:
    """Return the splits; val and test share a graph with the training utterances (``evaluation_graph="joint"``)."""
    train, made = splits["train"], {}
    for name, split in splits.items():
        if name == "train":
            made[name] = Batch.from_features(split, split.rank(k_audio + k_text).edge_index(k_audio, k_text))
            continue
        both = Inputs.joined([Batch.from_features(one).inputs for one in (train, split)])
        masks = {"audio_mask": both.audio.mask, "text_mask": both.text.mask}
        ranked = TopKGraph.from_features(both.audio, both.text, max(k_audio, k_text), **masks)
        made[name] = Batch.in_context(train, split, ranked.edge_index(k_audio, k_text))
    return made


def graphs_of(
    n: int,
    steps: tuple[int, int],
    seed: int,
    dtype: torch.dtype,
    trials: int,
    *,
    gather_from: GatherFrom = "chosen",
) -> list[Batch]:
    """Return one batch per trial, with the same utterances and different graphs."""
    ks = [(1 + trial % 3, 3 - trial % 3) for trial in range(trials)]
    return [any_batch(n, steps, seed, dtype, k=k, gather_from=gather_from) for k in ks]


def one_step(
    model: nn.Module, batch: Batch, *, seed: int, forward: Callable[[Inputs], torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Return logits, loss, every gradient and every buffer of one forward and backward pass.

    ``forward`` is another way to compute the logits with the weights of the model.
    """
    model.zero_grad()
    torch.manual_seed(seed)
    logits = (forward or model)(batch.inputs)
    loss = cross_entropy(logits, batch.labels)
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return {
        "logits": logits.detach(),
        "loss": loss.detach(),
        "next random number": torch.rand(1),
        **gradients,
        **buffers,
    }


def any_graph(n: int, edges: int, seed: int, *, loops: bool) -> torch.Tensor:
    """Return random edges without duplicates, unordered. Some nodes have no edge except perhaps a self-loop."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(n * n, (edges,), generator=generator)
    if loops:
        chosen = torch.cat([chosen, torch.arange(n) * (n + 1)])
    chosen = torch.unique(chosen)
    chosen = chosen[torch.randperm(len(chosen), generator=generator)]
    return torch.stack([chosen // n, chosen % n])

"""Random batches, and one training step on each way to compute it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from cemobam_core import Batch, CemoBAM, CemoBAMConfig, TopKGraph
from cemobam_core.config import PROFILES

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}

# A batch norm takes the bias before it away again: its gradient is rounding noise, of which Adam makes steps.
BEFORE_BATCH_NORM = ("projection.layers.0.bias", "hidden.0.bias", "hidden.1.bias")


def any_batch(
    n: int, steps: tuple[int, int], seed: int, dtype: torch.dtype, *, k: tuple[int, int], turned: bool
) -> Batch:
    """Random utterances of up to so many audio and text steps; zero steps: utterance-level."""
    generator = torch.Generator().manual_seed(seed)
    x: list[torch.Tensor] = []
    masks: list[torch.Tensor | None] = []
    for length, dim in zip(steps, (10, 6), strict=True):
        x.append(torch.randn(*((n, length, dim) if length else (n, dim)), generator=generator, dtype=dtype))
        lengths = torch.randint(1, max(length, 1) + 1, (n, 1), generator=generator)
        masks.append(torch.arange(length) < lengths if length else None)
    ranked = TopKGraph.from_features(x[0], x[1], max(k), audio_mask=masks[0], text_mask=masks[1])
    edges = ranked.edge_index(*k, gather_from="choosers" if turned else "chosen")
    return Batch(x[0], x[1], torch.randint(3, (n,), generator=generator), edges, *masks)


def plain(model: CemoBAM, batch: Batch) -> torch.Tensor:
    return model(batch.audio, batch.text, batch.edge_index, batch.audio_mask, batch.text_mask)


def one_step(model: CemoBAM, batch: Batch, *, reference: bool, seed: int) -> dict[str, torch.Tensor]:
    """Logits, loss, every gradient and every buffer of one forward and backward pass."""
    model.zero_grad()
    torch.manual_seed(seed)
    logits = plain(model, batch) if reference else batch.logits(model)
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
    """Random edges without duplicates, in no order; some nodes have none but perhaps their own loop."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(n * n, (edges,), generator=generator)
    if loops:
        chosen = torch.cat([chosen, torch.arange(n) * (n + 1)])
    chosen = torch.unique(chosen)
    chosen = chosen[torch.randperm(len(chosen), generator=generator)]
    return torch.stack([chosen // n, chosen % n])


def graphs_of(
    n: int, steps: tuple[int, int], seed: int, dtype: torch.dtype, trials: int, *, turned: bool
) -> list[Batch]:
    """One batch a trial: the same utterances, another graph."""
    ks = [(1 + trial % 3, 3 - trial % 3) for trial in range(trials)]
    return [any_batch(n, steps, seed, dtype, k=k, turned=turned) for k in ks]


SMALL = {"audio_dim": 10, "text_dim": 6, "hidden_dim": 32, "num_classes": 3}


def config_of(profile: str, **changes: object) -> CemoBAMConfig:
    return replace(PROFILES[profile].model, **(SMALL | changes))  # type: ignore[arg-type]

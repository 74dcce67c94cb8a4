"""How far a model sees in the graph, found by its gradients on a path."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from cemobam_core.errors import InputError
from cemobam_core.inputs import Inputs

_FARTHEST = 12
"""Largest number of edges that is found."""


class Reach(NamedTuple):
    """The utterances that the logits of one utterance depend on, in evaluation mode.

    Attributes:
        edges: Number of edges between the utterance and the farthest of them: 3 for three graph layers.
        both_ways: Whether edges count in both directions, and not only from source to target.
    """

    edges: int
    both_ways: bool


def reach(model: nn.Module, inputs: Inputs) -> Reach:
    """Return how far a model sees in the graph.

    The model labels the middle of a path of random utterances. The gradient of these logits is zero for every utterance
    that they do not depend on.

    Args:
        model: A single model. It does not change.
        inputs: Inputs of the model's sizes.

    Raises:
        InputError: The logits depend on utterances that no edges lead to, or on too many edges.
    """
    n, middle = 2 * _FARTHEST + 2, _FARTHEST  # the last utterance is not on the path
    generator, first = torch.Generator().manual_seed(0), inputs.part(torch.arange(1))
    audio, text = (
        torch.randn(n, *x.shape[1:], dtype=torch.float64, generator=generator).requires_grad_()
        for x in (first.audio, first.text)
    )
    on_path, everyone = torch.arange(n - 2), torch.arange(n)
    edges = torch.stack([torch.cat([on_path, everyone]), torch.cat([on_path + 1, everyone])])
    probed = copy.deepcopy(model).to("cpu", torch.float64).eval()
    logits = probed(Inputs.from_features(audio, text, edges))
    gradients = torch.autograd.grad(logits[middle].square().sum(), (audio, text), allow_unused=True)
    seen = torch.stack([one.flatten(1).any(dim=1) for one in gradients if one is not None]).any(dim=0)
    distance = everyone - middle
    farthest = int(distance[seen].abs().max())
    if seen[-1] or farthest >= _FARTHEST:
        raise InputError(
            f"{type(model).__name__}: the logits of an utterance depend on utterances "
            f"{'without an edge to it' if seen[-1] else f'over {_FARTHEST} edges or more'}, so the gradient of mini-"
            "batches cannot be that of the whole split; leave step_after out"
        )
    return Reach(farthest, both_ways=bool(seen[distance > 0].any()))

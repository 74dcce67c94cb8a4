"""The hidden state of an encoder that gives the embedding: the output of one layer, or the mean of the last four."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cemobam_core.errors import InputError

Layer = int | Literal["last", "last4"]
"""The hidden state to take: 0 is the input of the first layer, n the output of layer n, ``last`` the output of the
encoder, and ``last4`` the mean of the last four."""

_MEAN_OF = 4


def layers_used(layer: Layer, there: int, *, option: str, name: str) -> int:
    """Return how many layers must run for a hidden state, counted from the lowest.

    Args:
        layer: The hidden state to take.
        there: Number of layers of the encoder.
        option: Name of the command-line option, for the message.
        name: Name of the encoder, for the message.

    Raises:
        InputError: The encoder has fewer layers.
    """
    if layer == "last4" and there < _MEAN_OF:
        raise InputError(
            f"{option} last4: {name} has {there} layers, fewer than {_MEAN_OF}; give 0 to {there}, or last"
        )
    if isinstance(layer, str):
        return there
    if not 0 <= layer <= there:
        raise InputError(f"{option} {layer}: {name} has {there} layers; give 0 to {there}, last or last4")
    return layer


class _Reached(Exception):
    """Ends a forward pass at the hidden state that was asked for."""


def hidden_state(
    run: Callable[[], Float[Tensor, "B T E"]], layers: nn.ModuleList, layer: Layer
) -> Float[Tensor, "B T E"]:
    """Run an encoder and return a hidden state. The layers above it do not run.

    The hidden state n is taken where layer n + 1 receives it, because some encoders change the output of a layer before
    they pass it on. The last one is the output of the encoder, after its final norm if it has one.

    Args:
        run: Function that runs the encoder and returns its output.
        layers: All layers of the encoder, from the lowest to the highest.
        layer: The hidden state to take.
    """
    if layer in ("last", len(layers)):
        return run()
    caught: list[Tensor] = []

    def catch(_layer: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        caught.append(args[0] if args else given["hidden_states"])
        if layer != "last4":
            raise _Reached

    watched = layers[1 - _MEAN_OF :] if isinstance(layer, str) else [layers[layer]]
    hooks = [one.register_forward_pre_hook(catch, with_kwargs=True) for one in watched]
    try:
        output = run()
        return torch.stack([*caught, output]).mean(dim=0)
    except _Reached:
        return caught[0]
    finally:
        for hook in hooks:
            hook.remove()

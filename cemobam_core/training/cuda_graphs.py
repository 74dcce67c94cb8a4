"""CUDA graphs: record a training step once and replay it from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP_CALLS = 3
"""Number of calls before the recording. In these, libraries choose their algorithms and allocate their buffers."""


class Recorded:
    """A step on a GPU that is recorded at its fourth call and replayed from then on.

    An epoch of a small model consists of hundreds of kernels, and launching them one by one takes longer than running
    them. A replay launches them all at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). The tensors
    that the step reads must keep their addresses: weights, optimizer state, learning rate, statistics.

    Args:
        step: Function that returns a tensor. It must not wait for the device, and it must do the same at every call
            from the second on.
        device: Device of the step.
        generators: Generators of the step's random numbers. Each replay draws new numbers.
    """

    def __init__(self, step: Callable[[], Tensor], device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._step, self._calls = step, 0
        self._side = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def __call__(self) -> Tensor:
        """Run or replay the step and return its tensor. Every replay returns the same tensor object."""
        self._calls += 1
        if self._calls <= _WARM_UP_CALLS:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                self._output = self._step()
            torch.cuda.current_stream().wait_stream(self._side)
            return self._output
        if self._calls == _WARM_UP_CALLS + 1:
            with torch.cuda.graph(self._graph):
                self._output = self._step()
        self._graph.replay()
        return self._output

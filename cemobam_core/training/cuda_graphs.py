"""CUDA graphs: a step of training is recorded once, and each further step replays the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3
"""Calls before the recording, in which libraries choose their algorithms and allocate what they keep."""


class Recorded:
    """A step on a GPU, recorded at its fourth call and replayed from then on.

    An epoch of a small model is hundreds of kernels that take less time than it takes to launch them one by one; a
    replay launches them all at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). What the step
    reads must stay where it is: weights, optimizer state, learning rate, statistics.

    Args:
        step: returns a tensor; must not wait for the device, and does the same at every call from the second on.
        device: where it runs.
        generators: from which it draws random numbers; each replay draws new ones.
    """

    def __init__(self, step: Callable[[], Tensor], device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._step, self._calls = step, 0
        self._side = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def __call__(self) -> Tensor:
        """Run the step, or replay it, and return its tensor: the same one at every replay."""
        self._calls += 1
        if self._calls <= _WARM_UP:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                self._given = self._step()
            torch.cuda.current_stream().wait_stream(self._side)
            return self._given
        if self._calls == _WARM_UP + 1:
            with torch.cuda.graph(self._graph):
                self._given = self._step()
        self._graph.replay()
        return self._given

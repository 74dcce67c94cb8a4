"""Doing the same on a GPU again and again without saying so: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP = 3
"""Calls before the recording, in which libraries choose their algorithms and allocate what they keep."""


def replayed(
    step: Callable[[], Tensor], device: torch.device, generators: Sequence[torch.Generator]
) -> Callable[[], Tensor]:
    """``step``, on a GPU recorded at its fourth call and replayed from then on, elsewhere as it is.

    An epoch of a small model is hundreds of kernels that take less time than it takes to launch them one by one; a
    replay launches them all at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). What the step
    reads must stay where it is: weights, optimizer state, learning rate, statistics.

    Args:
        step: gives a tensor; does not wait for the device, does the same at every call from the second on.
        device: where it runs.
        generators: whose random numbers it draws; a replay draws on.
    """
    return step if device.type != "cuda" else _Recorded(step, device, generators)


class _Recorded:
    """A step on a GPU."""

    def __init__(self, step: Callable[[], Tensor], device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._step, self._calls = step, 0
        self._side = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)

    def __call__(self) -> Tensor:
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

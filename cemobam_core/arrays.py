"""Conversion of arrays, lists and tensors to tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cemobam_core.rows import Rows

_DTYPES = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}
"""The type of the tensor for each kind of number in NumPy."""


def tensor_of(values: object) -> Tensor:
    """Return numbers or truth values as a tensor of type float32, int64 or bool, whatever their original width.

    A tensor that has one of these types is returned unchanged. Everything else is copied.

    Args:
        values: A tensor, a NumPy array, nested lists, a list of tensors, or anything else that NumPy accepts.

    Raises:
        TypeError: The values are not an array of numbers. The message describes what they are.
    """
    if isinstance(values, Sequence) and values and all(isinstance(value, Tensor) for value in values):
        try:
            values = torch.stack(list(values))
        except RuntimeError:
            raise TypeError(f"a {type(values).__name__} of tensors of different shapes") from None
    if isinstance(values, Tensor):
        values = values.detach() if values.requires_grad else values
        if values.is_floating_point():
            return values.float()
        return values if values.dtype == torch.bool or values.is_complex() else values.to(torch.int64)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in _DTYPES:
        raise TypeError(described(values))
    return torch.from_numpy(np.array(array, dtype=_DTYPES[array.dtype.kind], order="C"))


def described(values: object) -> str:
    """Describe the type and shape of values: ``float32 (24, 768)``, ``a list of str (24,)``, ``of type dict``."""
    if isinstance(values, Tensor | Rows):
        return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"
    kind = type(values).__name__
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):
        return f"a {kind} that is not an array (are its rows of different lengths?)"
    number = "str" if array.dtype.kind in "US" else str(array.dtype.newbyteorder("="))
    if isinstance(values, np.ndarray):
        return f"{number} {array.shape}"
    return f"a {kind} of {number} {array.shape}" if array.ndim else f"of type {kind}"

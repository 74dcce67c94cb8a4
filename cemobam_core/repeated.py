"""Rows that occur many times, such as the text embeddings of a script that every speaker reads."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def groups_of(x: Float[Tensor, "n e"]) -> Int64[Tensor, " n"] | None:
    """Return a number for each row, the same for rows of equal bytes, or ``None`` if over half of the rows differ."""
    most = len(x) // 2
    if not x.shape[1] or len(x[:, 0].unique()) > most:  # the usual case, found at once
        return None
    known: dict[bytes, int] = {}
    group = []
    for row in x.cpu().contiguous().view(torch.uint8).numpy():
        group.append(known.setdefault(row.tobytes(), len(known)))
        if len(known) > most:
            return None
    return torch.tensor(group, device=x.device)


def members_of(group: Int64[Tensor, " n"], order: Int64[Tensor, " n"], most: int) -> Int64[Tensor, "u most"]:
    """Return the first rows of each group in an order of preference, and -1 where a group has no more rows."""
    by_group = order[group[order].argsort(stable=True)]
    size = group.bincount()
    place = torch.arange(most, device=order.device)
    rows = by_group[((size.cumsum(0) - size)[:, None] + place).clamp_(max=len(order) - 1)]
    return rows.masked_fill_(place >= size[:, None], -1)

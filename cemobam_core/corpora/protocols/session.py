"""``session``: leave one session out. Validation is drawn from the other sessions.

It is what EmoBox (Ma et al., 2024), SUPERB (Yang et al., 2021) and emotion2vec (Ma et al., 2024) do on IEMOCAP.
"""

from __future__ import annotations

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, always, check_folds, with_drawn_val
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    names, sessions = columns.groups("sessions", name)
    if len(names) < 2:
        raise InputError(
            f"{columns.source}: one session ({names[0]}); --split-protocol {name} needs at least two; use another "
            "protocol"
        )
    check_folds(columns, len(names), name)
    return [
        with_drawn_val(columns, np.flatnonzero(sessions != i), np.flatnonzero(sessions == i), name, seed)
        for i in range(len(names))
    ]


PROTOCOL = Protocol(name="session", place=4, cut=_cut, drawn=always)

"""``session-val``: leave one session out, and validate on the next one."""

from __future__ import annotations

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, check_folds, numbered
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, _: int) -> list[Cut]:
    names, sessions = columns.groups("sessions", name)
    if len(names) < 3:
        raise InputError(
            f"{columns.source}: {len(names)} sessions; --split-protocol {name} needs at least three; use another "
            "protocol"
        )
    check_folds(columns, len(names), name)
    folds = []
    for test in range(len(names)):
        val = (test + 1) % len(names)
        train = np.flatnonzero((sessions != test) & (sessions != val))
        folds.append(Cut(train, numbered(sessions, [val]), numbered(sessions, [test])))
    return folds


PROTOCOL = Protocol(name="session-val", place=5, cut=_cut)

"""``speaker-N``: leave one speaker out, of the N speakers of the corpus, and validate on the session's other speaker.

The protocol is that of SpeechBrain's recipe for IEMOCAP (Ravanelli et al., 2021), ten folds for ten speakers.
"""

from __future__ import annotations

import numpy as np

from cemobam_core.corpora.columns import Columns, Rows
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, check_folds, numbered
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, _: int) -> list[Cut]:
    names, speakers = columns.groups("speakers", name)
    if int(name.removeprefix("speaker-")) != len(names):
        raise InputError(
            f"--split-protocol {name}: {columns.source} has {len(names)} speakers; "
            + (f"use speaker-{len(names)}" if len(names) >= 3 else "it needs at least three; use another protocol")
        )
    if len(names) < 3:
        raise InputError(
            f"--split-protocol {name}: it needs at least three speakers, for test, val and train; use another protocol"
        )
    check_folds(columns, len(names), name)
    if any(session is not None for session in columns.sessions):
        partner = _partners(columns, names, speakers, name)
    else:
        partner = [(i + 1) % len(names) for i in range(len(names))]
    return [
        Cut(
            np.flatnonzero((speakers != i) & (speakers != partner[i])),
            numbered(speakers, [partner[i]]),
            numbered(speakers, [i]),
        )
        for i in range(len(names))
    ]


def _partners(columns: Columns, names: tuple[str, ...], speakers: Rows, protocol: str) -> list[int]:
    """Return the number of the other speaker in each speaker's session."""
    sessions, session_of = columns.groups("sessions", protocol)
    partner: dict[int, int] = {}
    for i, session in enumerate(sessions):
        who = np.unique(speakers[session_of == i]).tolist()
        if len(who) != 2:
            raise InputError(
                f"{columns.source}: session {session!r} has {len(who)} speakers ({', '.join(names[s] for s in who)}), "
                f"but --split-protocol {protocol} needs two in each, one to test and one to validate; use session or "
                "speaker"
            )
        for one, other in (who, who[::-1]):
            if one in partner:
                raise InputError(
                    f"{columns.source}: speaker {names[one]!r} is in several sessions, but --split-protocol {protocol} "
                    "needs each in one, to validate on the session's other speaker; use session or speaker"
                )
            partner[one] = other
    return [partner[i] for i in range(len(names))]


PROTOCOL = Protocol(name="speaker-10", place=3, cut=_cut, pattern=r"speaker-\d{1,6}")

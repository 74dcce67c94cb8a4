"""``script``: as near to 80/10/10 as the sizes allow, without a script or scenario in two splits."""

from __future__ import annotations

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, always, by_group


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    return [by_group(columns, "scripts", name, seed)]


PROTOCOL = Protocol(name="script", place=7, cut=_cut, drawn=always, groups="scripts", group="script")

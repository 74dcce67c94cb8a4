"""``text``: about 80/10/10 without a sentence in two splits."""

from __future__ import annotations

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, always, by_group


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    return [by_group(columns, "texts", name, seed)]


PROTOCOL = Protocol(name="text", place=6, cut=_cut, drawn=always, groups="texts", group="sentence")

"""``speaker``: about 80/10/10 without a speaker in two splits."""

from __future__ import annotations

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, always
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    names, speakers = columns.groups("speakers", name)
    if len(names) < 3:
        raise InputError(f"{columns.source}: {len(names)} speakers; --split-protocol {name} needs at least three")
    # Ten parts with different speakers and similar class frequencies: one for test, one for val, eight for train.
    parts_wanted = min(10, len(names), columns.fewest_of_a_class())
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415  (slow to import)

    splitter = StratifiedGroupKFold(n_splits=parts_wanted, shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(columns.labels, columns.labels, speakers)]
    # If no two speakers have the same counts, the parts are the same for every seed, but not who tests.
    test, val, *train = (parts[i] for i in np.random.default_rng(seed).permutation(len(parts)))
    return [Cut(np.concatenate(train), val, test)]


PROTOCOL = Protocol(name="speaker", place=2, cut=_cut, drawn=always)

"""``random:80/10/10``: utterances at random, stratified by class, as in the paper."""

from __future__ import annotations

import re

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, always, stratified
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    percents = [int(share) for share in re.findall(r"\d+", name)]
    if sum(percents) != 100 or 0 in percents:
        raise InputError(f"--split-protocol {name}: give three shares above 0 that sum to 100")
    labels = columns.labels
    n_val, n_test = (round(len(labels) * percent / 100) for percent in percents[1:])
    columns.fewest_of_a_class()
    try:
        rest, test = stratified(np.arange(len(labels)), labels, n_test, seed)
        train, val = stratified(rest, labels, n_val, seed)
    except ValueError as error:
        raise InputError(
            f"{columns.source}: {len(labels)} utterances are too few for --split-protocol {name} by class "
            f"({str(error).rstrip('.')}); give more utterances"
        ) from None
    return [Cut(train, val, test)]


PROTOCOL = Protocol(name="random:80/10/10", place=1, cut=_cut, pattern=r"random:\d{1,3}/\d{1,3}/\d{1,3}", drawn=always)

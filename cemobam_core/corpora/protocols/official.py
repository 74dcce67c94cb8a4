"""``official``: the corpus's own splits. Validation is drawn from train where the corpus has none."""

from __future__ import annotations

import numpy as np

from cemobam_core.corpora.columns import DEFAULT_PROTOCOL, Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol, with_drawn_val
from cemobam_core.errors import InputError


def _cut(columns: Columns, name: str, seed: int) -> list[Cut]:
    number = _folds(columns, name)
    return [_fold(columns, name, seed, i, f" of fold {i}" if number > 1 else "") for i in range(number)]


def _fold(columns: Columns, name: str, seed: int, i: int, where: str) -> Cut:
    of = np.array([splits[i] for splits in columns.splits])
    train, val, test = (np.flatnonzero(of == split) for split in Cut._fields)
    for split, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise InputError(
                f"{columns.source}: no utterance is in the split {split}{where}; --split-protocol {name} needs some in "
                "train and in test; correct the splits, or use another protocol"
            )
    return Cut(train, val, test) if len(val) else with_drawn_val(columns, train, test, name, seed)


def _folds(columns: Columns, name: str) -> int:
    """Return the number of the corpus's own folds, and raise an error if an utterance has no split."""
    if not any(columns.splits):
        what = (
            "does not contain its splits, which --split-protocol {} needs; list the corpus in a --manifest with a "
            "column split, give a --split-file, or use {}"
            if columns.raw
            else "is one feature file, which does not store the splits that --split-protocol {} needs; give a "
            "--split-file or a folder of train, val and test, or use {}"
        )
        raise InputError(f"{columns.source}: {what.format(name, DEFAULT_PROTOCOL)}")
    numbers = [len(splits) for splits in columns.splits]
    most = max(numbers)
    if lacking := [key for key, number in zip(columns.ids, numbers, strict=True) if number != most]:
        raise InputError(
            f"{columns.source}: {len(lacking)} of {len(columns)} utterances have no split (first {lacking[0]!r}), "
            f"which --split-protocol {name} needs; fill it in, or use {DEFAULT_PROTOCOL}"
        )
    return most


def _drawn(columns: Columns) -> bool:
    """Return whether some fold has no validation split of its own."""
    folds = zip(*columns.splits, strict=False) if all(columns.splits) else ()
    return any("val" not in fold for fold in folds)


PROTOCOL = Protocol(name="official", place=8, cut=_cut, drawn=_drawn)

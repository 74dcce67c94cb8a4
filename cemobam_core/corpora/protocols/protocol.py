"""The description of a split protocol, and the ways of drawing that several protocols share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cemobam_core.corpora.columns import Columns, Rows
from cemobam_core.errors import InputError

VAL_SHARE = 0.2
"""Share of the utterances outside of test that validate, where a protocol draws them."""

_MOST_ROWS = 20_000_000
"""Largest number of rows in all folds together. Leaving out each speaker of CREMA-D has 677,222."""
_SHARES = (0.8, 0.1, 0.1)
_GROUPS_DRAWN = 1000
"""How many groups are placed in all orders together, and at least one order."""


class Cut(NamedTuple):
    """The rows of train, val and test: one fold."""

    train: Rows
    val: Rows
    test: Rows


def _never(_: Columns) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A split protocol.

    Attributes:
        name: The name as a user types it. Numbers in it are an example.
        place: Place in the list of protocols.
        cut: Function that returns the folds, given the columns, the name as the user typed it, and a seed.
        pattern: Regular expression of the names. Empty if ``name`` is the only one.
        drawn: Function that returns whether the seed has an effect.
        groups: Column whose values stay together. A protocol with such a column can follow another one after a ``+``.
        group: Name of one such value for the user.
    """

    name: str
    place: int
    cut: Callable[[Columns, str, int], list[Cut]]
    pattern: str = ""
    drawn: Callable[[Columns], bool] = _never
    groups: Literal["", "texts", "scripts"] = ""
    group: str = ""

    def is_meant_by(self, name: str) -> bool:
        """Return whether a name is this protocol's."""
        return re.fullmatch(self.pattern or re.escape(self.name), name) is not None


def always(_: Columns) -> bool:
    """Return True: the protocol is random for every corpus."""
    return True


def stratified(rows: Rows, labels: Rows, n_second: int, seed: int) -> tuple[Rows, Rows]:
    """Draw ``n_second`` of the rows, stratified by class, and return the others and these.

    Raises:
        ValueError: There are too few utterances.
    """
    from sklearn.model_selection import StratifiedShuffleSplit  # noqa: PLC0415  (slow to import)

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_second, random_state=seed)
    first, second = next(splitter.split(rows, labels[rows]))
    return rows[first], rows[second]


def check_folds(columns: Columns, folds: int, protocol: str) -> None:
    """Raise an error if there are so many folds that they fill the memory.

    Args:
        columns: The utterances.
        folds: Number of folds, each with all utterances.
        protocol: Name of the protocol, for the error message.

    Raises:
        InputError: There are too many.
    """
    if folds * len(columns) > _MOST_ROWS:
        raise InputError(
            f"{columns.source}: --split-protocol {protocol} makes {folds} folds of {len(columns)} utterances; use "
            "another protocol, or correct the column"
        )


def with_drawn_val(columns: Columns, rest: Rows, test: Rows, protocol: str, seed: int) -> Cut:
    """Return a fold whose validation split is drawn from the utterances outside of test, stratified by class.

    Args:
        columns: The utterances.
        rest: Rows to draw from.
        test: Rows of the test split.
        protocol: Name of the protocol, for the error message.
        seed: Seed of the draw.

    Raises:
        InputError: There are too few utterances.
    """
    try:
        train, val = stratified(rest, columns.labels, round(VAL_SHARE * len(rest)), seed)
    except ValueError as error:
        raise InputError(
            f"{columns.source}: {len(rest)} utterances outside of test are too few for --split-protocol {protocol}, "
            f"which draws {VAL_SHARE:.0%} of them by class to validate ({str(error).rstrip('.')}); give more "
            "utterances, or use another protocol"
        ) from None
    return Cut(train, val, test)


def by_group(columns: Columns, column: str, protocol: str, seed: int) -> Cut:
    """Return a fold of about 80/10/10 in which each group is in one split, stratified by class.

    Groups in random order go where the sum of log(count / wanted count)² over splits and classes falls most. With few
    groups, the best of several orders is kept, and several seeds may give the same split.

    Args:
        columns: The utterances.
        column: Column of the groups.
        protocol: Name of the protocol, for error messages.
        seed: Seed of the order.

    Raises:
        InputError: The column is unknown, or there are too few utterances or groups.
    """
    columns.fewest_of_a_class()
    names, groups = columns.groups(column, protocol)
    if len(names) < 3:
        raise InputError(
            f"{columns.source}: {len(names)} {'sentences' if column == 'texts' else column}; --split-protocol "
            f"{protocol} needs at least three; use another protocol"
        )
    counts = np.zeros((len(names), len(columns.class_names)))  # (G, C)
    np.add.at(counts, (groups, columns.labels), 1)
    wanted = np.outer(_SHARES, counts.sum(axis=0))  # (3, C)
    rng = np.random.default_rng(seed)
    drawn = [_balanced(counts, wanted, rng) for _ in range(max(1, _GROUPS_DRAWN // len(names)))]
    split_of = min(drawn, key=lambda one: _distance(one, counts, wanted))
    train, val, test = (np.flatnonzero(split_of[groups] == s) for s in range(len(_SHARES)))
    return Cut(train, val, test)


def _balanced(counts: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> Rows:
    """Return the split of each group, (G,), given counts by group and class (G, C) and wanted ones (3, C)."""
    have, split_of = np.zeros_like(wanted), np.zeros(len(counts), dtype=np.int64)
    for group in rng.permutation(len(counts)):
        change = (_off(have + counts[group], wanted) - _off(have, wanted)).sum(axis=1)
        split_of[group] = change.argmin()
        have[split_of[group]] += counts[group]
    return split_of


def _distance(split_of: Rows, counts: np.ndarray, wanted: np.ndarray) -> tuple[int, float]:
    """Return the number of classes that a split lacks, and the difference to the wanted counts."""
    have = np.stack([counts[split_of == s].sum(axis=0) for s in range(len(wanted))])
    return int((have == 0).sum()), float(_off(have, wanted).sum())


def _off(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return log(have / wanted)², so that half as many as wanted are as far off as twice as many."""
    off: np.ndarray = np.log(np.maximum(have, 0.5) / wanted) ** 2
    return off


def numbered(groups: Rows, chosen: Sequence[int]) -> Rows:
    """Return the rows whose group is one of the chosen."""
    return np.flatnonzero(np.isin(groups, chosen))

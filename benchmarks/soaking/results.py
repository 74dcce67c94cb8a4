"""The judgement of a study that was disturbed: trials that are lost or doubled, and values that differ."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from study.ledger.storages import open_storage

UNLIKE = ["seconds", "device"]
"""Columns that differ from run to run, or from machine to machine."""

_TABLES = (".csv", ".md", ".tex", ".npz")
_REPORT = "report.md"  # it names the study's command and has all tables again


@dataclass(frozen=True, order=True)
class Row:
    """A trial in the storage.

    Attributes:
        block: Block that the trial is recorded in.
        signature: Signature of the trial.
        number: Number of the trial in its Optuna study.
        done: Whether the trial is done. If not, it failed.
    """

    block: str
    signature: str
    number: int
    done: bool


def rows(storage: str, name: str) -> list[Row]:
    """Return the trials of a study in a storage."""
    place = open_storage(storage).optuna
    return [
        Row(
            block=study.study_name.removeprefix(f"{name}/").split()[0],
            signature=str(trial.user_attrs["signature"]),
            number=trial.number,
            done=trial.state.name == "COMPLETE",
        )
        for study in place.get_all_studies()
        if study.study_name.startswith(f"{name}/")
        for trial in place.get_all_trials(study._study_id, deepcopy=False)
    ]


def lost(expected: Iterable[Row], found: Iterable[Row]) -> int:
    """Count the trials that should be done and are not."""
    return len({(row.block, row.signature) for row in expected if row.done} - _done(found).keys())


def doubled(found: Iterable[Row]) -> int:
    """Count the rows of done trials that are there already, in the same block with the same signature."""
    return sum(times - 1 for times in _done(found).values())


def vanished(before: Iterable[Row], now: Collection[Row]) -> int:
    """Count the rows that were there before and are not now."""
    return len(set(before) - set(now))


def _done(found: Iterable[Row]) -> Counter[tuple[str, str]]:
    return Counter((row.block, row.signature) for row in found if row.done)


def differing(expected: Path, found: Path) -> int:
    """Count the values that differ between the tables of two studies: cells, lines and arrays.

    Args:
        expected: Folder of the results of one study.
        found: Folder of the results of another.
    """
    names = {path.name for folder in (expected, found) for path in folder.glob("*") if path.suffix in _TABLES}
    return sum(_differing(expected / name, found / name) for name in sorted(names - {_REPORT}))


def _differing(one: Path, other: Path) -> int:
    if not (one.exists() and other.exists()):
        return 1
    if one.suffix == ".csv":
        return differing_cells(*(pd.read_csv(path, dtype=str, keep_default_na=False) for path in (one, other)))
    if one.suffix == ".npz":
        with np.load(one) as first, np.load(other) as second:
            names = {*first.files, *second.files}
            return sum(
                not (name in first and name in second and np.array_equal(first[name], second[name])) for name in names
            )
    lines = one.read_text().splitlines(), other.read_text().splitlines()
    return sum(first != second for first, second in zip(*lines, strict=False)) + abs(len(lines[0]) - len(lines[1]))


def differing_cells(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """Count the cells that differ between two tables. A row or a column that one of them lacks differs in all cells."""
    one, other = (table.drop(columns=UNLIKE, errors="ignore") for table in (one, other))
    both = [column for column in one if column in other]
    n = min(len(one), len(other))
    size = max(len(one), len(other)) * len({*one, *other})
    same = int((one[both][:n].to_numpy() == other[both][:n].to_numpy()).sum()) if both else 0
    return size - same


def leases(storage: str) -> int:
    """Count the runs that are still entered on the boards of a storage, with or without leases."""
    if storage.startswith("journal:///"):
        boards = json.loads(Path(storage.removeprefix("journal:///") + ".boards").read_text())
        return sum(map(len, boards.values()))
    if storage.startswith("sqlite"):
        return 0
    engine = sa.create_engine(storage, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return sum(len(json.loads(content)) for (content,) in connection.execute(sa.text(_BOARDS)))


_BOARDS = "select content from cemobam_boards"


@dataclass(frozen=True)
class Sent:
    """A signal that a driver got.

    Attributes:
        name: Name of the signal.
        handled: Whether the driver had installed its handlers.
    """

    name: str
    handled: bool


def complaint(status: int, sent: Collection[Sent], disturbed: Mapping[str, bool], err: str) -> str:
    """Return what is wrong with the end of a driver, or an empty string.

    Args:
        status: Exit status, negative for a signal.
        sent: Signals that the driver got.
        disturbed: Whether ``workers`` were killed, and whether ``servers`` (database, Ray) were disturbed.
        err: What the driver wrote on standard error.
    """
    early = any(one.name != "KILL" and not one.handled for one in sent)
    if "Traceback (most recent call last)" in err and not early:
        return "a traceback"
    names = {one.name for one in sent}
    expected = {
        0: True,
        1: disturbed["workers"] or disturbed["servers"],
        2: disturbed["servers"],
        130: bool(names - {"KILL"}),
        -9: "KILL" in names,
        -2: early,
        -15: early,
        -1: early,
    }
    if not expected.get(status, False):
        return f"exit status {status}"
    if status == 2 and len(re.findall(r"^\S+: error: .+$", err.replace("\r", "\n"), flags=re.MULTILINE)) != 1:
        return "exit status 2 without one line"
    return ""

"""Hostile ledgers: copies of a good one that are damaged in one of many ways, the same for the same seed."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**9, 2**63, 10**30, 1e308, "", "x", "\ud800", "../../../x", "a\nb"),
    *([], {}, [[]], [1, "x", None], {"x": {"y": []}}, [10**30], ["x"] * 1000),
]
"""JSON values that a field does not expect."""

ODD_TEXT = [
    *("", "{", "[1, 2", "nul", "NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "[" * 100_000),
    *("9" * 5000, '{"a": 1, "a": 2}', "\0", '"x', "'x'"),
]
"""Texts that are not JSON, or JSON that Python reads as something odd."""

RAW: list[Any] = [None, b"\xff\xfe\0", 12, 1.5, "x" * 100_000, float("inf")]
"""Values of a column that expects text."""

COLUMNS = [
    *[("trials", name) for name in ("number", "study_id", "state", "datetime_start", "datetime_complete")],
    *[("study_user_attributes", name) for name in ("study_id", "key", "value_json")],
    *[("study_system_attributes", name) for name in ("study_id", "key", "value_json")],
    *[("trial_user_attributes", name) for name in ("trial_id", "key", "value_json")],
    *[("trial_system_attributes", name) for name in ("trial_id", "key", "value_json")],
    *[("trial_params", name) for name in ("trial_id", "param_name", "param_value", "distribution_json")],
    *[("trial_values", name) for name in ("trial_id", "objective", "value", "value_type")],
    *[("trial_intermediate_values", name) for name in ("step", "intermediate_value", "intermediate_value_type")],
    *[("studies", "study_name"), ("study_directions", "direction"), ("study_directions", "objective")],
    *[("version_info", "schema_version"), ("version_info", "library_version"), ("alembic_version", "version_num")],
]


def hostile(seed: int, database: Path, journal: Path, folder: Path) -> tuple[str, str]:
    """Put a damaged copy of a ledger into a folder.

    Args:
        seed: Decides what is damaged, and how.
        database: A good ledger in SQLite.
        journal: The same in a journal file.
        folder: Where the copy is put.

    Returns:
        The URL of the copy, and what was done to it.
    """
    dice = random.Random(seed)
    if seed % 3 == 2:
        copy = folder / "hostile.journal"
        shutil.copyfile(journal, copy)
        return f"journal:///{copy}", _call(dice, JOURNAL[seed // 3 % len(JOURNAL)], copy)
    copy = folder / "hostile.db"
    shutil.copyfile(database, copy)
    ways = PAGES if seed % 3 else ROWS
    return f"sqlite:///{copy}", _call(dice, ways[seed // 3 % len(ways)], copy)


def as_journal(database: Path, journal: Path) -> None:
    """Write the ledger of an SQLite file into a journal file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        there = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        here = optuna.storages.RDBStorage(f"sqlite:///{database}")
    for name in [study.study_name for study in here.get_all_studies()]:
        optuna.copy_study(from_study_name=name, from_storage=here, to_storage=there)
    here.remove_session()
    here.engine.dispose()


def _call(dice: random.Random, way: Callable[[random.Random, Path], str], path: Path) -> str:
    return f"{way.__name__.strip('_')}: {way(dice, path)}"


# The bytes of an SQLite file.


def _flip_bytes(dice: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    page = dice.randrange(len(data) // 4096)
    for _ in range(n := dice.choice([1, 3, 20, 200])):
        data[page * 4096 + dice.randrange(4096)] = dice.randrange(256)
    path.write_bytes(data)
    return f"{n} bytes of page {page + 1}"


def _overwrite_pages(dice: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    pages = dice.sample(range(len(data) // 4096), dice.choice([1, 1, 2, 8]))
    filler = dice.choice([b"\0", b"\xff", b"\x0d", b"\x05", None])
    for page in pages:
        data[page * 4096 : (page + 1) * 4096] = filler * 4096 if filler else dice.randbytes(4096)
    path.write_bytes(data)
    return f"{filler!r} over pages {[page + 1 for page in pages]}"


def _swap_pages(dice: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    one, other = (page * 4096 for page in dice.sample(range(len(data) // 4096), 2))
    data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], data[one : one + 4096]
    path.write_bytes(data)
    return f"{one // 4096 + 1} and {other // 4096 + 1}"


def _cut_off(dice: random.Random, path: Path) -> str:
    data = path.read_bytes()
    length = dice.choice([0, 1, 50, 100, 4096, dice.randrange(len(data)), len(data) - 1])
    path.write_bytes(data[:length])
    return f"after {length} bytes"


def _change_the_header(dice: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    at = dice.randrange(100)
    data[at] = dice.randrange(256)
    path.write_bytes(data)
    return f"byte {at}"


def _point_elsewhere(dice: random.Random, path: Path) -> str:
    """Let a pointer in the head of a page, to a cell or a child, lead anywhere."""
    data = bytearray(path.read_bytes())
    page = dice.randrange(1, len(data) // 4096)
    at = page * 4096 + dice.randrange(16)
    data[at : at + 2] = dice.randbytes(2)
    path.write_bytes(data)
    return f"byte {at % 4096} of page {page + 1}"


PAGES = [_flip_bytes, _overwrite_pages, _swap_pages, _cut_off, _change_the_header, _point_elsewhere]


# The rows of an SQLite file.


def _run_sql(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("pragma writable_schema=on")
        for statement, values in statements:
            with contextlib.suppress(sqlite3.IntegrityError):
                database.execute(statement, values)


def _odd_column(dice: random.Random, path: Path) -> str:
    table, column = dice.choice(COLUMNS)
    value = dice.choice([*RAW, *(text for text in ODD_TEXT if len(text) < 6000), -1, 10**9, "2020-13-45"])
    limit = dice.choice(["", f"where rowid % 3 = {dice.randrange(3)}", "where rowid = 2"])
    given = "cast(? as text)" if isinstance(value, bytes) and dice.random() < 0.5 else "?"
    _run_sql(path, (f'update {table} set "{column}" = {given} {limit}', (value,)))
    return f"{table}.{column} = {repr(value)[:40]} {limit}"


def _odd_json(dice: random.Random, path: Path) -> str:
    table = dice.choice(["study_user_attributes", "study_system_attributes", "trial_user_attributes"])
    with contextlib.closing(sqlite3.connect(path)) as database:
        keys = [key for (key,) in database.execute(f"select distinct key from {table} order by key")]
    key = dice.choice(keys)
    text = dice.choice(ODD_TEXT) if dice.random() < 0.4 else json.dumps(dice.choice(ODD))
    _run_sql(path, (f"update {table} set value_json = ? where key = ?", (text, key)))
    return f"{table} {key} = {text[:40]}"


def _odd_fact(dice: random.Random, path: Path) -> str:
    name = dice.choice(["made from", "made from", "block"])
    with contextlib.closing(sqlite3.connect(path)) as database:
        query = "select study_user_attribute_id, value_json from study_user_attributes where key = ? order by 1"
        rows = database.execute(query, (name,)).fetchall()
    row, text = dice.choice(rows)
    content = json.loads(text)
    field = dice.choice(sorted(content))
    content[field] = dice.choice(ODD)
    _run_sql(path, ("update study_user_attributes set value_json = ? where rowid = ?", (json.dumps(content), row)))
    return f"{name}: {field} = {content[field]!r:.40}"


def _many_folds(dice: random.Random, path: Path) -> str:
    folds = dice.choice([2, 1000, 10**6, 10**9])
    changed = f"json_set(value_json, '$.folds', {folds})"
    _run_sql(path, (f"update study_user_attributes set value_json = {changed} where key = 'made from'", ()))
    return str(folds)


def _another_version(dice: random.Random, path: Path) -> str:
    """Let another version have written the ledger: some fields are new, some are missing."""
    gone = dice.choice(["title", "class_names", "settings", "fingerprint", "made_with"])
    changed = f"json_set(json_remove(value_json, '$.{gone}'), '$.new', json('[1]'))"
    metric = dice.choice(["test_macro_f1", "val_wa", "test_confusion", "seconds", "signature"])
    _run_sql(
        path,
        (f"update study_user_attributes set value_json = {changed} where key = 'made from'", ()),
        ("delete from trial_user_attributes where key = ?", (metric,)),
    )
    return f"without {gone} and {metric}"


def _drop_a_table(dice: random.Random, path: Path) -> str:
    table = dice.choice(sorted({table for table, _ in COLUMNS}))
    _run_sql(path, (f"drop table {table}", ()))
    return table


def _drop_an_index(dice: random.Random, path: Path) -> str:
    index = dice.choice(["ix_studies_study_name", "ix_trials_study_id"])
    _run_sql(path, (f"drop index {index}", ()))
    return index


def _forget_from_the_schema(dice: random.Random, path: Path) -> str:
    table = dice.choice(sorted({table for table, _ in COLUMNS}))
    _run_sql(path, ("delete from sqlite_master where tbl_name = ?", (table,)))
    return table


def _delete_rows(dice: random.Random, path: Path) -> str:
    table = dice.choice(sorted({table for table, _ in COLUMNS}))
    limit = dice.choice(["rowid = 1", "rowid % 2 = 1", "1"])
    _run_sql(path, (f"delete from {table} where {limit}", ()))
    return f"{table} where {limit}"


def _other_tables(dice: random.Random, path: Path) -> str:
    path.unlink()
    _run_sql(path, ("create table studies (x text)", ()), ("insert into studies values (?)", (dice.choice(RAW),)))
    return "of another program"


ROWS = [
    *(_odd_column, _odd_json, _odd_fact, _many_folds, _another_version, _drop_a_table, _odd_column, _odd_json),
    *(_drop_an_index, _forget_from_the_schema, _delete_rows, _odd_fact, _other_tables),
]


# The lines of a journal.


def _tear(dice: random.Random, path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    place = dice.choice([0, len(lines) - 1, dice.randrange(len(lines))])
    lines[place] = lines[place][: dice.randrange(len(lines[place]))]
    path.write_bytes(b"".join(lines))
    return f"line {place + 1} of {len(lines)}"


def _other_bytes(dice: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    at, filler = dice.randrange(len(data)), dice.choice([b"\xff\xfe", b"\0" * 50, b"\n", b"{", b'"'])
    data[at : at + len(filler)] = filler
    path.write_bytes(data)
    return f"{filler[:4]!r} at {at}"


def _odd_line(dice: random.Random, path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    odd = dice.choice([json.dumps(dice.choice(ODD)), dice.choice(ODD_TEXT), '{"op_code": 99, "worker_id": "x"}'])
    lines.insert(dice.randrange(len(lines) + 1), odd.encode(errors="replace") + b"\n")
    path.write_bytes(b"".join(lines))
    return odd[:40]


def _odd_field(dice: random.Random, path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    place = dice.randrange(len(lines))
    entry = json.loads(lines[place])
    inside = dice.choice([entry, *(value for value in entry.values() if isinstance(value, dict) and value)])
    field = dice.choice(sorted(inside))
    inside[field] = dice.choice(ODD)
    lines[place] = json.dumps(entry).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    return f"{field} = {inside[field]!r:.40}"


def _lose_lines(dice: random.Random, path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    gone = dice.sample(range(len(lines)), dice.choice([1, 3, len(lines)]))
    path.write_bytes(b"".join(line for i, line in enumerate(lines) if i not in gone))
    return f"{len(gone)} of {len(lines)}"


def _twice(dice: random.Random, path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    dice.shuffle(lines)
    path.write_bytes(b"".join(lines + lines[:3]))
    return "in another order, and some twice"


JOURNAL = [_tear, _other_bytes, _odd_line, _odd_field, _lose_lines, _tear, _odd_field, _twice]

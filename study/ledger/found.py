"""What can be read of a ledger that is damaged, row by row: of an SQLite file, a journal file or a server."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb.models import BaseModel
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial, TrialState

from cemobam_core.errors import InputError
from cemobam_core.files import temporary_folder
from study.ledger.checked import PREDICTED
from study.ledger.outcomes import METRICS
from study.ledger.storages import LedgerFailed, first_line, ledger_file, told
from study.ledger.storages.pages import Cell, Content, read_pages
from study.ledger.storages.sql import SQLStorage

_ERRORS = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, RecursionError)
"""What Optuna and Python raise when they read values that no run wrote."""

_LONGEST_LIST = 5
"""Largest number of faults of SQLite's own check that are kept."""


@dataclass
class FoundStudy:
    """An Optuna study, with the attributes that can be read.

    Attributes:
        name: Name of the study. Empty if it is lost.
        user: User attributes.
        system: System attributes.
    """

    name: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)


@dataclass
class FoundTrial:
    """An Optuna trial, with what can be read of it.

    Attributes:
        id: Id of the trial in the ledger.
        study: Id of its study. `None` if it is lost.
        state: Name of its state. Empty if it is lost.
        start: Local time at which it began. `None` if it is lost.
        end: Local time at which it ended. `None` if it is lost.
        value: Its objective. `None` if it has none, or it is lost.
        params: Parameters.
        distributions: Distributions of the parameters.
        user: User attributes.
        system: System attributes.
        curve: Intermediate values.
        faults: What cannot be read.
    """

    id: int
    study: int | None = None
    state: str = ""
    start: datetime | None = None
    end: datetime | None = None
    value: float | None = None
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    curve: dict[int, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass
class Found:
    """What can be read of a ledger.

    Attributes:
        studies: Studies by id.
        trials: Trials by id.
        unit: What the ledger consists of: pages, lines or tables.
        whole: Number of these that are whole.
        damaged: Number of these that are damaged.
        faults: What is wrong with the ledger as a whole.
        lost_rows: Whether rows are lost, so that parts of a trial may be missing.
    """

    studies: dict[int, FoundStudy] = field(default_factory=lambda: defaultdict(FoundStudy))
    trials: dict[int, FoundTrial] = field(default_factory=dict)
    unit: str = "tables"
    whole: int = 0
    damaged: int = 0
    faults: list[str] = field(default_factory=list)
    lost_rows: bool = False

    def trial(self, number: int) -> FoundTrial:
        """Return the trial with an id, which is added if it is new.

        Raises:
            TypeError: If the id is no number.
        """
        if type(number) is not int:
            raise TypeError(number)
        return self.trials.setdefault(number, FoundTrial(number))


def find(url: str) -> Found:
    """Return what can be read of a ledger. The ledger is not changed.

    Raises:
        InputError: If there is no ledger, or nothing of it can be read.
    """
    file = ledger_file(url)
    if file is None:
        return _of_server(url)
    if not file.is_file():
        raise InputError(f"{file}: there is no ledger; give the --storage, --results or --name of the study's run")
    return _of_journal(file) if url.startswith("journal:") else _of_sqlite(file)


def _of_sqlite(file: Path) -> Found:
    """Return what can be read of an SQLite file, by way of a copy, so that the file stays as it is."""
    with temporary_folder() as folder:
        copy = folder / "ledger.db"
        shutil.copyfile(file, copy)
        for suffix in ("-journal", "-wal"):  # a transaction that was not finished
            if (beside := file.with_name(file.name + suffix)).exists():
                shutil.copyfile(beside, copy.with_name(copy.name + suffix))
        said = _checked_by_sqlite(copy)
        content = read_pages(copy)
        unread = "" if said else _unread_by_optuna(copy)
    if content is None:
        raise InputError(f"{file}: this is not an SQLite file ({said[0] if said else 'it has no page of one'})")
    found = Found(unit="pages", damaged=len(content.damaged))
    found.whole = max(0, content.pages - found.damaged)
    found.faults = [f"SQLite's own check: {one}" for one in said]
    if unread:
        found.faults.append(f"Optuna and its dashboard cannot read it: {unread}")
    if content.lost:
        found.faults.append(f"{content.lost} rows on damaged pages cannot be read")
    found.lost_rows = bool(content.damaged)
    tables: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for table, cells in content.tables.items():
        tables[table] += map(_row, cells)
    for cells in content.strays.values():
        tables[_table_of(cells)] += map(_row, cells)
    _fill(found, tables)
    _fill_from_indices(found, content)
    return found


def _checked_by_sqlite(copy: Path) -> list[str]:
    """Return the faults that SQLite finds, after it rolled back a transaction that was not finished."""
    try:
        with closing(sqlite3.connect(copy)) as database:
            said = [str(row[0]) for row in database.execute(f"pragma integrity_check({_LONGEST_LIST})")]
    except (sqlite3.Error, *_ERRORS) as error:
        said = [str(error)]
    return [" ".join(one.split())[:200] for one in said if one != "ok"]


def _unread_by_optuna(copy: Path) -> str:
    """Return why Optuna cannot read all trials, or an empty string if it can."""
    url = f"sqlite:///{copy}"
    try:
        with told(url):
            storage = SQLStorage(url).optuna
            try:
                for study in storage.get_all_studies():
                    storage.get_all_trials(study._study_id)
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except LedgerFailed as failure:
        return first_line(failure)
    return ""


def _row(cell: Cell) -> tuple[Any, ...]:
    """Return a row with its id in the first column, where SQLite keeps nothing."""
    return (cell.id, *cell.values[1:])


_OF_STUDIES = {"made from", "asked for", "block", "Best Trial", "Answer"}
_OF_TRIALS = {"signature", "status", "profile", "seconds", "device", "epochs", "parameters", "test_confusion", *METRICS}


def _table_of(cells: Iterable[Cell]) -> str:
    """Return the table whose rows look like these. Empty if the rows are of no table that is needed."""
    shapes = [cell.values for cell in cells]
    kinds = [tuple(type(value) for value in values[1:]) for values in shapes]
    kind = max(set(kinds), key=kinds.count)
    if len(kind) == 4 and kind[0] is int and kind[3] is str:
        if kind[1] is str:
            return "trial_params"
        return "trial_values" if all(values[2] == 0 for values in shapes) else "trial_intermediate_values"
    if kind == (int, str, str):
        return _table_of_attributes({str(values[2]) for values in shapes if len(values) == 4})
    if kind == (str,):
        return "studies"
    return "trials" if kind == (int, int, str, str, str) else ""


def _table_of_attributes(keys: set[str]) -> str:
    """Return the table of attributes with these keys: all four of them have the same columns."""
    prefixes = {PREDICTED: "trial", "cemobam:": "study", "study:": "study", "dashboard:": "study"}
    for prefix, of in prefixes.items():
        if any(key.startswith(prefix) for key in keys):
            return f"{of}_system_attributes"
    if keys & _OF_STUDIES:
        return "study_user_attributes"
    return "trial_user_attributes" if keys & _OF_TRIALS else ""


def _fill_from_indices(found: Found, content: Content) -> None:
    """Take the names of studies and the studies of trials from indices, where their own rows are lost."""
    names = [cell.values for cell in content.entries if len(cell.values) == 2]
    for name, number in names:
        if isinstance(name, str) and "/" in name and type(number) is int and not found.studies[number].name:
            found.studies[number].name = name
    for study, number in names:
        if type(study) is int and type(number) is int and study in found.studies and number in found.trials:
            trial = found.trials[number]
            if trial.study is None:
                trial.study = study
    for trial in found.trials.values():
        if not trial.state and trial.study is not None:
            trial.state = {"done": "COMPLETE", "failed": "FAIL"}.get(str(trial.user.get("status")), "")


def _of_server(url: str) -> Found:
    """Return what can be read of the tables of a server."""
    found = Found(unit="tables")
    with told(url, opening=True):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            there = set(sa.inspect(connection).get_table_names())
    wanted = [table for table in BaseModel.metadata.sorted_tables if table.name in _FILLERS]
    if not there & {table.name for table in wanted}:
        raise InputError("the database has no table of a ledger; give the --storage of the study's run")
    tables: dict[str, list[tuple[Any, ...]]] = {}
    for table in wanted:
        # Without types, so that a value that no run writes is read as it is.
        plain = sa.table(table.name, *(sa.column(column.name) for column in table.columns))
        try:
            with engine.connect() as connection:
                tables[table.name] = [tuple(row) for row in connection.execute(sa.select(plain))]
            found.whole += 1
        except (sa.exc.SQLAlchemyError, *_ERRORS) as error:
            found.damaged += 1
            found.lost_rows = True
            found.faults.append(f"the table {table.name} cannot be read ({' '.join(str(error).split())[:120]})")
    engine.dispose()
    _fill(found, tables)
    return found


def _fill(found: Found, tables: Mapping[str, Iterable[tuple[Any, ...]]]) -> None:
    """Put the rows of all tables together. Rows that do not fit are counted."""
    strange = 0
    for table, put in _FILLERS.items():
        for row in tables.get(table, ()):
            try:
                put(found, *row)
            except _ERRORS:
                strange += 1
    if strange:
        found.lost_rows = True
        found.faults.append(f"{strange} rows hold something that no run writes")


def _put_study(found: Found, number: int, name: str) -> None:
    if not isinstance(name, str):
        raise TypeError
    found.studies[number].name = found.studies[number].name or name


def _put_study_attribute(system: bool) -> Callable[..., None]:
    def put(found: Found, _: int, study: int, key: str, value: str) -> None:
        if type(study) is not int or not isinstance(key, str):
            raise TypeError
        of = found.studies[study]
        with suppress(*_ERRORS):  # it counts as lost
            (of.system if system else of.user).setdefault(key, json.loads(value))

    return put


def _put_trial(found: Found, number: int, *columns: Any) -> None:
    _, study, state, start, end = columns
    trial = found.trial(number)
    if type(study) is int:
        trial.study = study
    trial.state = state if isinstance(state, str) else ""
    trial.start, trial.end = _local(start), _local(end)


def _local(time: Any) -> datetime | None:
    """Return a time of the database, which is UTC, in local time."""
    try:
        parsed = time if isinstance(time, datetime) else datetime.fromisoformat(time)
        return parsed.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
    except (*_ERRORS, OSError):
        return None


def _put_attribute(system: bool) -> Callable[..., None]:
    def put(found: Found, _: int, number: int, key: str, value: str) -> None:
        if type(number) is not int or not isinstance(key, str):
            raise TypeError
        trial = found.trial(number)
        kept = trial.system if system else trial.user
        try:
            decoded = json.loads(value)
        except _ERRORS:
            trial.faults.append(f"{key[:40]} is not JSON")
            return
        if key in kept and kept[key] != decoded:
            trial.faults.append(f"{key[:40]} is there twice")
        kept.setdefault(key, decoded)

    return put


def _put_param(found: Found, _: int, number: int, name: str, value: Any, distribution: str) -> None:
    parsed = json_to_distribution(distribution)
    shown = parsed.to_external_repr(float(value))
    trial = found.trial(number)
    trial.params[name], trial.distributions[name] = shown, parsed


def _put_value(found: Found, _: int, number: int, objective: int, value: Any, __: str) -> None:
    if objective == 0:
        found.trial(number).value = float(value)


def _put_step(found: Found, _: int, number: int, step: int, value: Any, __: str) -> None:
    found.trial(number).curve[step] = float(value)


_FILLERS: dict[str, Callable[..., None]] = {
    "studies": _put_study,
    "study_user_attributes": _put_study_attribute(system=False),
    "study_system_attributes": _put_study_attribute(system=True),
    "trials": _put_trial,
    "trial_user_attributes": _put_attribute(system=False),
    "trial_system_attributes": _put_attribute(system=True),
    "trial_params": _put_param,
    "trial_values": _put_value,
    "trial_intermediate_values": _put_step,
}
"""What to do with the rows of each table, whose columns follow."""


def _of_journal(file: Path) -> Found:
    """Return what can be read of a journal: every line that Optuna can apply, also after one that it cannot."""
    found = Found(unit="lines")
    replay = JournalStorageReplayResult("")
    for line in file.read_bytes().splitlines(keepends=True):
        whole = line.endswith(b"\n")
        for entry in _entries(line):
            if entry is None or not _applied(replay, entry):
                whole = False
                found.lost_rows = True
                _keep_count(replay, line)
        found.whole += whole
        found.damaged += not whole
    for number, study in replay._studies.items():
        found.studies[number] = FoundStudy(str(study.study_name), dict(study.user_attrs), dict(study.system_attrs))
    for number, one in replay._trials.items():
        if replay._trial_id_to_study_id[number] in replay._studies:  # the study was not deleted
            try:
                found.trials[number] = _trial_of(number, replay._trial_id_to_study_id[number], one)
            except _ERRORS:
                found.lost_rows = True
                found.faults.append(f"the trial with id {number} holds something that no run writes")
    if not found.whole:
        raise InputError(f"{file}: this is not a journal of Optuna, or no line of it is whole")
    return found


def _trial_of(number: int, study: int, trial: FrozenTrial) -> FoundTrial:
    return FoundTrial(
        number,
        study=study,
        state=TrialState(trial.state).name,
        start=trial.datetime_start,
        end=trial.datetime_complete,
        value=float(trial.values[0]) if trial.values else None,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        user=dict(trial.user_attrs),
        system=dict(trial.system_attrs),
        curve=dict(trial.intermediate_values),
    )


def _entries(line: bytes) -> Iterator[dict[str, Any] | None]:
    """Yield the entries on a line, and `None` for each that is damaged.

    A run that was killed while it wrote leaves the beginning of an entry, and the next entry follows on the same line.
    """
    begins = [found.start() for found in re.finditer(rb'\{"op_code"', line)] or [0]
    for begin, end in zip(begins, [*begins[1:], len(line)], strict=True):
        try:
            entry = json.loads(line[begin:end])
        except _ERRORS:
            yield None
        else:
            yield entry if isinstance(entry, dict) else None


def _applied(replay: JournalStorageReplayResult, entry: dict[str, Any]) -> bool:
    """Apply an entry as Optuna does, and return whether that worked."""
    try:
        if type(study := entry.get("study_id")) is int and study < replay._next_study_id + _MOST_LOST:
            while study >= replay._next_study_id:
                _create_study(replay, "")
        # Optuna raises errors for wrong entries of its own process, and passes over those of others.
        replay.apply_logs([{**entry, "worker_id": f"{entry['worker_id']} "}])
    except _ERRORS:
        return False
    return True


_MOST_LOST = 100
"""Largest number of studies in a row whose entries may be lost."""

_CREATES_STUDY = re.compile(rb'\{"op_code": ?0\b(?:.*"study_name": ?"([^"\\]+)")?')


def _keep_count(replay: JournalStorageReplayResult, line: bytes) -> None:
    """Create the study of a damaged entry, because later entries name studies by their ids."""
    if creates := _CREATES_STUDY.search(line):
        _create_study(replay, (creates[1] or b"").decode(errors="replace"))


def _create_study(replay: JournalStorageReplayResult, name: str) -> None:
    """Create a study, whose name is empty if it is lost."""
    number = replay._next_study_id
    entry = {"op_code": 0, "worker_id": " ", "directions": [2], "study_name": name or f"lost {number}"}
    replay.apply_logs([entry])
    if not name:
        replay._studies[number].study_name = ""

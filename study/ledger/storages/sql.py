"""Optuna studies in an SQL database: SQLite for one run, PostgreSQL or MySQL for several at once."""

from __future__ import annotations

import json
import logging
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from study.ledger.storages import DELETED, Board, Row, first_line, told

T = TypeVar("T")

PATIENCE_S = 300
"""Seconds that a server may not answer before a run gives up. A restart takes less time than that."""

_log = logging.getLogger(__name__)

_STUDIES = models.StudyModel.__table__
_TRIALS = models.TrialModel.__table__
_VALUES = models.TrialValueModel.__table__
_PARAMS = models.TrialParamModel.__table__
_ATTRIBUTES = models.TrialUserAttributeModel.__table__
_UNSEEN = models.TrialSystemAttributeModel.__table__
_STEPS = models.TrialIntermediateValueModel.__table__

_BOARDS = sa.Table(
    "cemobam_boards",
    sa.MetaData(),
    sa.Column("name", sa.String(512), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)

_ENDED = (TrialState.COMPLETE, TrialState.FAIL)


class SQLStorage:
    """Optuna studies in an SQL database.

    Args:
        url: URL of the database, as SQLAlchemy takes it.

    Raises:
        Exception: Any error of SQLAlchemy, Optuna or the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.shared = not url.startswith("sqlite")
        options: dict[str, Any] = {"pool_pre_ping": True} if self.shared else {}
        # If two runs open a new database at once, both create its tables, and one of them fails because they exist.
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((IntegrityError, sa.exc.ProgrammingError)),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_random(0.1, 1),
            reraise=True,
        ):
            with attempt:
                self.optuna = RDBStorage(url, engine_kwargs=dict(options))
                if self.shared:
                    _BOARDS.create(self.optuna.engine, checkfirst=True)
        weakref.finalize(self, self.optuna.engine.dispose)  # a server limits the number of connections

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id."""
        with self.optuna.engine.connect() as connection:
            return _Transaction(connection, study_id).read(after)

    @contextmanager
    def transaction(self, study_id: int) -> Iterator[_Transaction]:
        """Yield the study while its row is locked, so only this run writes to it. Optuna locks it in the same way."""
        with self.optuna.engine.begin() as connection:
            wanted = sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == study_id).with_for_update()
            if connection.scalar(wanted) is None:
                raise ValueError(DELETED)
            yield _Transaction(connection, study_id)

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Call ``change`` on a board while no other run changes it, and return its result."""

        def changed() -> T:
            with self.optuna.engine.begin() as connection:
                is_board = _BOARDS.c.name == board
                found = connection.scalar(sa.select(_BOARDS.c.content).where(is_board).with_for_update())
                content: Board = json.loads(found) if found else {}
                result = change(content)
                written = {"content": json.dumps(content)}
                if found is None:
                    connection.execute(sa.insert(_BOARDS).values(name=board, **written))
                else:
                    connection.execute(sa.update(_BOARDS).where(is_board).values(written))
                return result

        return self.retried(changed)

    def retried(self, action: Callable[[], T]) -> T:
        """Run ``action``, retrying for up to five minutes if the server does not answer.

        It must be safe to run ``action`` twice: if the connection is lost during a commit, nobody knows whether the
        commit succeeded.

        Raises:
            LedgerFailed: If the database refuses, or holds something that cannot be read.
        """
        # SQLite answers or refuses at once. If two runs insert the same row, one fails; its retry finds the row.
        temporary = (OperationalError, InterfaceError, StorageInternalError, IntegrityError) if self.shared else ()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(temporary),
            stop=tenacity.stop_after_delay(PATIENCE_S),
            wait=tenacity.wait_exponential(multiplier=0.1, max=10),
            before_sleep=_warn,
            reraise=True,
        )
        with told(self._url):
            return retrying(action)


class _Transaction:
    """One study on one connection."""

    def __init__(self, connection: sa.Connection, study_id: int) -> None:
        self._connection = connection
        self._study_id = study_id

    def read(self, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id.

        Trials of one study are added one after another, so none with a smaller id can appear later.
        """
        wanted = sa.and_(_TRIALS.c.study_id == self._study_id, _TRIALS.c.trial_id > after)
        execute = self._connection.execute
        trials = execute(sa.select(_TRIALS.c.trial_id, _TRIALS.c.state).where(wanted).order_by(_TRIALS.c.trial_id))
        states = {trial_id: state for trial_id, state in trials if state in _ENDED}
        if not states:
            return [], after
        attributes: dict[int, dict[str, Any]] = defaultdict(dict)
        unseen: dict[int, dict[str, Any]] = defaultdict(dict)
        for table, found in ((_ATTRIBUTES, attributes), (_UNSEEN, unseen)):
            columns = (table.c.trial_id, table.c.key, table.c.value_json)
            for trial_id, key, value in execute(sa.select(*columns).join(_TRIALS).where(wanted)):
                found[trial_id][key] = _decoded(value, trial_id, key)
        curves: dict[int, dict[int, float]] = defaultdict(dict)
        steps = sa.select(_STEPS.c.trial_id, _STEPS.c.step, _STEPS.c.intermediate_value)
        for trial_id, step, value in execute(steps.join(_TRIALS).where(wanted).order_by(_STEPS.c.step)):
            curves[trial_id][step] = value
        rows = [
            Row(i, state == TrialState.COMPLETE, attributes[i], curves[i], unseen[i]) for i, state in states.items()
        ]
        return rows, max(states)

    def add(self, trial: FrozenTrial) -> int:
        """Add an ended trial to Optuna's tables, with one statement per table, and return its id."""
        execute = self._connection.execute
        assert trial.datetime_start
        assert trial.datetime_complete
        inserted = execute(
            sa.insert(_TRIALS).values(
                study_id=self._study_id,
                state=trial.state,
                datetime_start=_utc(trial.datetime_start),
                datetime_complete=_utc(trial.datetime_complete),
            )
        )
        assert inserted.inserted_primary_key
        trial_id: int = inserted.inserted_primary_key[0]
        # Optuna numbers the trials of a study from 0, so the number of a trial is that of the one before it plus 1.
        others = sa.select(_TRIALS.c.number).where(_TRIALS.c.study_id == self._study_id, _TRIALS.c.trial_id < trial_id)
        last = self._connection.scalar(others.order_by(_TRIALS.c.trial_id.desc()).limit(1))
        execute(sa.update(_TRIALS).where(_TRIALS.c.trial_id == trial_id).values(number=0 if last is None else last + 1))
        finite = models.TrialValueModel.TrialValueType.FINITE
        if trial.value is not None:
            execute(sa.insert(_VALUES).values(trial_id=trial_id, objective=0, value=trial.value, value_type=finite))
        params = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in trial.distributions.items()
        ]
        attributes, unseen = (
            [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in kept.items()]
            for kept in (trial.user_attrs, trial.system_attrs)
        )
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        steps = [
            {"trial_id": trial_id, "step": step, "intermediate_value": number, "intermediate_value_type": kind}
            for step, (number, kind) in ((step, stored(value)) for step, value in trial.intermediate_values.items())
        ]
        for table, rows in ((_PARAMS, params), (_ATTRIBUTES, attributes), (_UNSEEN, unseen), (_STEPS, steps)):
            if rows:
                execute(sa.insert(table), rows)
        return trial_id


def _decoded(value: Any, trial_id: int, key: str) -> Any:
    """Return the value of an attribute, or raise an error that names the trial and the attribute."""
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"attribute {str(key)[:40]!r} of the trial with id {trial_id} is not JSON: {error}") from None


def _utc(local: datetime) -> datetime:
    """Return a local time in UTC without a time zone, as Optuna stores it."""
    return local.astimezone(UTC).replace(tzinfo=None)


def _warn(state: tenacity.RetryCallState) -> None:
    if (error := state.outcome and state.outcome.exception()) and not isinstance(error, IntegrityError):
        _log.warning("the server of the ledger does not answer (%s); trying again", first_line(error))

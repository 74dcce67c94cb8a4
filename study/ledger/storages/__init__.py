"""Storages of a ledger: Optuna's SQL databases and its journal file, behind one narrow interface.

Optuna's own calls take about 35 ms to add a trial and a millisecond to read one, because they run a statement for
every attribute. They also have no way to add a trial on the condition that it is missing. This package does both on
Optuna's own tables and journal, so Optuna and its dashboard can read the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

T = TypeVar("T")

Board = dict[str, Any]
"""Messages that runs leave for one another, as JSON data."""

_SECRETS = re.compile(r"(?<=://)([^:/@\s]*):\S*@|([?&](?:password|passwd|pwd|sslpassword)=)[^&\s]*")


@dataclass(frozen=True)
class Row:
    """One ended trial in the storage.

    Attributes:
        done: Whether the trial completed. If not, it failed.
        attributes: User attributes of the trial.
        curve: Intermediate values of the trial.
        unseen: System attributes of the trial, which no page of the dashboard shows.
    """

    done: bool
    attributes: Mapping[str, Any]
    curve: Mapping[int, float]
    unseen: Mapping[str, Any]


class Transaction(Protocol):
    """One Optuna study during a transaction, while no other run writes to it."""

    def read(self, after: int) -> tuple[list[Row], int]:
        """Return the ended trials whose id is larger than ``after``, and the largest id."""
        ...

    def add(self, trial: FrozenTrial) -> int:
        """Add an ended trial and return its id. If the transaction fails, nothing is added."""
        ...


class Storage(Protocol):
    """A storage of Optuna studies.

    Attributes:
        optuna: The same storage as an Optuna object.
        shared: Whether several runs may write to the storage at once.
    """

    @property
    def optuna(self) -> BaseStorage:  # noqa: D102
        ...

    @property
    def shared(self) -> bool:  # noqa: D102
        ...

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """Read like :meth:`Transaction.read`, but without a transaction, so other runs may write meanwhile."""
        ...

    def transaction(self, study_id: int) -> AbstractContextManager[Transaction]:
        """Return a context in which only this run writes to the study."""
        ...

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Call ``change`` on a board while no other run changes it, and return its result."""
        ...

    def retried(self, action: Callable[[], T]) -> T:
        """Run ``action``, retrying for up to five minutes if the server does not answer.

        Raises:
            LedgerFailed: If the storage refuses.
        """
        ...


class LedgerFailed(Exception):
    """The storage cannot be read or written, for example because of a full disk or a lost connection."""


def open_storage(url: str) -> Storage:
    """Open the storage at a URL: a URL of SQLAlchemy, or ``journal:///path/to/file``.

    Raises:
        Exception: Any error of the database or the file system.
    """
    if url.startswith("journal:///"):
        from study.ledger.storages.journal import JournalStorage  # noqa: PLC0415

        return JournalStorage(url.removeprefix("journal:///"))
    from study.ledger.storages.sql import SQLStorage  # noqa: PLC0415

    return SQLStorage(url)


def ledger_file(url: str) -> Path | None:
    """Return the path of a storage that is a file, or `None` for a server or a database in memory."""
    path = re.fullmatch(r"(?:sqlite|journal):///(.+)", url)
    return Path(path[1]) if path and path[1] != ":memory:" else None


def masked(text: str) -> str:
    """Return a text with the passwords in its storage URLs masked, so that it can be printed."""
    return _SECRETS.sub(lambda found: f"{found[1]}:***@" if found[1] is not None else f"{found[2]}***", text)


def first_line(error: BaseException) -> str:
    """Return the first line of the database's own message for the original error, without passwords."""
    while error.__cause__ is not None:
        error = error.__cause__
    return masked(str(error).strip().partition("\n")[0])

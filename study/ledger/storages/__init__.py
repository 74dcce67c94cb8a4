"""Storages of a ledger: Optuna's SQL databases and its journal file, behind one narrow interface.

Optuna's own calls take about 35 ms to add a trial and a millisecond to read one, because they run a statement for
every attribute. They also have no way to add a trial on the condition that it is missing. This package does both on
Optuna's own tables and journal, so Optuna and its dashboard can read the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from study.ledger.storages.faults import LedgerFailed, first_line, ledger_file, masked, place_of, to_save, told

__all__ = [
    "DELETED",
    "Board",
    "LedgerFailed",
    "Row",
    "Storage",
    "Transaction",
    "first_line",
    "ledger_file",
    "masked",
    "open_storage",
    "place_of",
    "to_save",
    "told",
]

T = TypeVar("T")

Board = dict[str, Any]
"""Messages that runs leave for one another, as JSON data."""

DELETED = "a study in it was deleted while this run was using it"
"""The error of a transaction on a study that is not there any more."""


@dataclass(frozen=True)
class Row:
    """One ended trial in the storage.

    Attributes:
        id: Id of the trial in the storage.
        done: Whether the trial completed. If not, it failed.
        attributes: User attributes of the trial.
        curve: Intermediate values of the trial.
        unseen: System attributes of the trial, which no page of the dashboard shows.
    """

    id: int
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
            LedgerFailed: If the storage refuses, or holds something that cannot be read.
        """
        ...


def open_storage(url: str) -> Storage:
    """Open the storage at a URL: a URL of SQLAlchemy, or ``journal:///path/to/file``.

    Raises:
        LedgerFailed: If the URL is not valid, nothing can be stored there, or what is there is damaged.
    """
    with told(url, opening=True):
        if url.startswith("journal:///"):
            from study.ledger.storages.journal import JournalStorage  # noqa: PLC0415

            return JournalStorage(url.removeprefix("journal:///"))
        from study.ledger.storages.sql import SQLStorage  # noqa: PLC0415

        return SQLStorage(url)

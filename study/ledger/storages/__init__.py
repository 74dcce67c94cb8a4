"""Where a ledger is kept: Optuna's SQL databases and its journal file, behind one narrow interface.

Optuna's own calls take some 35 ms to add a trial and a millisecond to read one, a statement for every attribute; and
they cannot add a trial only where it is missing. Both are done here, on the same tables and the same journal, so that
Optuna and its dashboard read what they always did.
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
"""What runs tell one another: JSON."""

_SECRETS = re.compile(r"(?<=://)([^:/@\s]*):\S*@|([?&](?:password|passwd|pwd|sslpassword)=)[^&\s]*")


@dataclass(frozen=True)
class Row:
    """One ended trial, as the storage has it.

    Attributes:
        done: whether it completed; if not, it failed.
        attributes: its user attributes.
        curve: its intermediate values.
        unseen: its system attributes, which no page of the dashboard shows.
    """

    done: bool
    attributes: Mapping[str, Any]
    curve: Mapping[int, float]
    unseen: Mapping[str, Any]


class Transaction(Protocol):
    """One Optuna study while nobody else writes to it."""

    def read(self, after: int) -> tuple[list[Row], int]:
        """The trials that ended after the one of this id, and the last one's id."""
        ...

    def add(self, trial: FrozenTrial) -> int:
        """Add an ended trial, whole or, where the transaction fails, not at all; gives its id."""
        ...


class Storage(Protocol):
    """A place for Optuna studies.

    Attributes:
        optuna: the same place as Optuna knows it.
        shared: whether several runs may write to it at once.
    """

    @property
    def optuna(self) -> BaseStorage:  # noqa: D102
        ...

    @property
    def shared(self) -> bool:  # noqa: D102
        ...

    def read(self, study_id: int, after: int) -> tuple[list[Row], int]:
        """As :meth:`Transaction.read`, while others write."""
        ...

    def transaction(self, study_id: int) -> AbstractContextManager[Transaction]:
        """The study for this run alone, until the context is left."""
        ...

    def change(self, board: str, change: Callable[[Board], T]) -> T:
        """Change what stands on a board, while nobody else does; gives what ``change`` gives."""
        ...

    def lasting(self, action: Callable[[], T]) -> T:
        """Do it, and where a server does not answer, again, until it does or minutes have gone by.

        Raises:
            LedgerFailed: the storage refuses.
        """
        ...


class LedgerFailed(Exception):
    """The storage refused to be read or written: a full disk, a lost connection."""


def open_storage(url: str) -> Storage:
    """The storage at a URL: one of SQLAlchemy's, or ``journal:///path/to/file``.

    Raises:
        Exception: whatever the database or the file system says against it.
    """
    if url.startswith("journal:///"):
        from study.ledger.storages.journal import JournalStorage  # noqa: PLC0415

        return JournalStorage(url.removeprefix("journal:///"))
    from study.ledger.storages.sql import SQLStorage  # noqa: PLC0415

    return SQLStorage(url)


def ledger_file(url: str) -> Path | None:
    """The file of a storage that is one."""
    path = re.fullmatch(r"(?:sqlite|journal):///(.+)", url)
    return Path(path[1]) if path and path[1] != ":memory:" else None


def masked(text: str) -> str:
    """A text without the passwords of the storage URLs in it, to be printed."""
    return _SECRETS.sub(lambda found: f"{found[1]}:***@" if found[1] is not None else f"{found[2]}***", text)


def first_line(error: BaseException) -> str:
    """What was the matter in the first place, in the database's own words, without passwords."""
    while error.__cause__ is not None:
        error = error.__cause__
    return masked(str(error).strip().partition("\n")[0])

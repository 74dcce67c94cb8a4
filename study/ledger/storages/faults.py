"""One line for every error that Optuna, SQLAlchemy, SQLite or the file system raise while a ledger is used."""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import OptunaError
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from cemobam_core.errors import InputError

_SECRETS = re.compile(r"(?<=://)([^:/@\s]*):\S*@|([?&](?:password|passwd|pwd|sslpassword)=)[^&\s]*")

_ERRORS = (
    *(SQLAlchemyError, sqlite3.Error, OptunaError, OSError, ImportError, RuntimeError),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, UnicodeError),
)
"""What a storage raises. Optuna trusts what it reads, so rows that nobody wrote raise errors such as TypeError."""

_DAMAGE = {
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR),
    *(sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH),
}
"""SQLite's error codes of a damaged file. The others are of a place that cannot be read or written now."""

_LONGEST = 160
"""Largest number of characters of another library's message in ours."""


class LedgerFailed(InputError):
    """The storage cannot be read or written: it is damaged, its disk is full, its server does not answer."""


def ledger_file(url: str) -> Path | None:
    """Return the path of a storage that is a file, or `None` for a server or a database in memory."""
    path = re.fullmatch(r"(?:sqlite|journal):///(.+)", url)
    return Path(path[1]) if path and path[1] != ":memory:" else None


def masked(text: str) -> str:
    """Return a text with the passwords in its storage URLs masked, so that it can be printed."""
    return _SECRETS.sub(lambda found: f"{found[1]}:***@" if found[1] is not None else f"{found[2]}***", text)


def first_line(error: BaseException) -> str:
    """Return the first line of the database's own message for the original error, without passwords."""
    error = _original(error)
    text = masked(str(error).strip().partition("\n")[0])
    if not text or isinstance(error, LookupError | AttributeError | TypeError | AssertionError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def place_of(url: str) -> str:
    """Return how messages name a ledger: by its file, or by its URL without the password."""
    return str(ledger_file(url) or masked(url))


def to_save(url: str) -> str:
    """Return the remedy for a damaged ledger."""
    return f"to save what is whole: {shlex.join(['cemobam', 'doctor', '--storage', masked(url), '--to', 'NEW.db'])}"


@contextmanager
def told(url: str, *, opening: bool = False) -> Iterator[None]:
    """Turn every error of a storage into one line: the ledger, what is wrong with it, and what to do.

    Args:
        url: URL of the storage.
        opening: Whether the storage is being opened, so that its URL may be wrong.

    Raises:
        LedgerFailed: If the block raises an error of a storage.
    """
    try:
        yield
    except InputError:
        raise
    except _ERRORS as error:
        raise LedgerFailed(_line(url, error, opening=opening)) from error


def _line(url: str, error: BaseException, *, opening: bool) -> str:
    if _is_damage(error):
        return f"{place_of(url)}: this ledger is damaged ({first_line(error)}); {to_save(url)}"
    if opening:
        return (
            f"--storage {masked(url)}: cannot be opened as an Optuna storage ({first_line(error)}); "
            "give a URL such as sqlite:///results/study.db, journal:///results/study.journal or "
            "postgresql://user@host/database (with pip install 'cemobam-study[postgresql]'), and make sure that "
            "you may write there"
        )
    file = ledger_file(url)
    if file and not file.exists():
        return (
            f"{file}: the ledger's file is gone; put it back, or run the same command again to begin a new ledger there"
        )
    return (
        f"{place_of(url)}: the ledger cannot be used now ({first_line(error)}); free some space, or make sure that it "
        "can be reached and written to; recorded trials are kept: run the same command again to continue"
    )


def _is_damage(error: BaseException) -> bool:
    """Return whether an error is about the content of a ledger. If not, it is about the place where the ledger is."""
    original = _original(error)
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # Python's own errors have none
        return (code & 0xFF) in _DAMAGE
    if isinstance(original, OSError | ImportError | ArgumentError | NoSuchModuleError):
        return False
    return not any(isinstance(one, OperationalError | InterfaceError) for one in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors behind it."""
    yield error
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


def _original(error: BaseException) -> BaseException:
    *_, original = _causes(error)
    return original

"""The log of a run: a file of JSON lines, one for each event, so that a single trial can be found in it."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter
from tqdm import tqdm

from study.ledger.storages import masked

_LOGGERS = tuple(map(logging.getLogger, ("study", "cemobam_core")))


@contextmanager
def logged(folder: Path, *, verbose: bool) -> Iterator[Path]:
    """Log the events in the block, and how it ended.

    Args:
        folder: Folder of the log file, which is named after the time, the machine and the process.
        verbose: Whether to print the log on standard error too, above the progress bar.

    Yields:
        The path of the log file.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC)
    path = folder / f"{moment:%Y%m%dT%H%M%SZ}-{platform.node()}-{os.getpid()}.jsonl"
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(
        _Masking(
            ["asctime", "levelname", "name", "message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "from", "exc_info": "traceback"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            json_ensure_ascii=False,
        )
    )
    handlers: list[logging.Handler] = [file]
    if verbose:
        handlers.append(_AboveTheBar())
        handlers[-1].setFormatter(_Plain("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    before = [logger.level for logger in _LOGGERS]
    for logger in _LOGGERS:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield path
    except BaseException as error:
        _LOGGERS[0].error("ended by %s", type(error).__name__, exc_info=error)
        raise
    finally:
        for logger, level in zip(_LOGGERS, before, strict=True):
            logger.setLevel(level)
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


class _Masking(JsonFormatter):
    """A formatter that writes JSON without passwords in the message, the fields or a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class _Plain(logging.Formatter):
    """A formatter for people: the message and the fields that they look for, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        shown = " ".join(f"{name}={getattr(record, name)}" for name in _FOR_PEOPLE if hasattr(record, name))
        record.exc_info, record.exc_text = None, None
        return masked(f"{super().format(record)} {shown}".rstrip())


_FOR_PEOPLE = (
    *("profile", "k_audio", "k_text", "fusion", "modules", "fold", "seed", "val_wa", "seconds", "device", "signature"),
)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)

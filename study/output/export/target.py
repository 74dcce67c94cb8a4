"""What every target does: hold runs in a folder, and say which it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from study.output.export.runs import Run


class Target(AbstractContextManager["Target"], ABC):
    """A folder of runs in the format of a tracker; leaving its context ends what it has started.

    Args:
        folder: Absolute path of the folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: most targets start nothing."""

    @property
    @abstractmethod
    def open_with(self) -> tuple[str, ...]:
        """How to look at the folder, a line each."""

    @abstractmethod
    def has(self, run: Run) -> bool:
        """Return whether the folder holds the run, whole and in this version."""

    @abstractmethod
    def write(self, run: Run) -> None:
        """Write a run, in place of an older version of it and of what an interrupted export left."""

"""The interface of a target: a folder that stores runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from study.output.export.runs import Run


class Target(AbstractContextManager["Target"], ABC):
    """A folder of runs in the format of a tracker, and a context that ends what the target started.

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
        """The lines that tell the user how to open the folder."""

    @abstractmethod
    def has(self, run: Run) -> bool:
        """Return whether the folder has the complete run in this version."""

    @abstractmethod
    def write(self, run: Run) -> None:
        """Write a run, and replace an older or unfinished version of it."""

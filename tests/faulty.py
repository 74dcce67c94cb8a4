"""Study data that harms the worker that trains certain trials."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.design.configuration import Trial
from study.engines.execution import StudyData


@dataclass(frozen=True, eq=False)
class Faulty:
    """Study data that does a harm when a worker reads its folds to execute a trial.

    Attributes:
        data: The study data without the harm.
        marks: Folder in which each harm leaves a file ``<harm>=<when>``.
        harms: Harms by trial.
    """

    data: StudyData
    marks: Path
    harms: Mapping[Trial, str]
    keeping: None = None
    probabilities: None = None

    def tensors(self) -> Any:
        return self.data.tensors()

    def stored(self) -> Any:
        return self.data.stored()

    def graph(self, *arguments: Any) -> Any:
        return self.data.graph(*arguments)

    def done(self, harm: str) -> int:
        """Return how many times a harm was done."""
        return len(list(self.marks.glob(f"{harm}=*")))

    @property
    def folds(self) -> Any:
        asking = sys._getframe(1)
        trials = asking.f_locals["trials"] if asking.f_code.co_name == "execute" else ()
        for harm in (self.harms[trial] for trial in trials if trial in self.harms):
            (self.marks / f"{harm}={time.monotonic_ns()}").touch()
            first = self.done(harm) == 1
            if harm == "killed" or (harm == "killed once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if harm == "exits":
                os._exit(3)
            if harm == "hangs":
                time.sleep(10_000)
            if harm == "raises":
                raise ValueError("no such\nthing")
            if harm == "out of memory once" and first:
                raise MemoryError
        return self.data.folds

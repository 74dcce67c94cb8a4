"""Engines execute trials: each takes trials and gives their outcomes as they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from study.design import Trial
from study.ledger import Outcome


class Engine(AbstractContextManager["Engine"], Protocol):
    """What the driver asks of an engine; leaving its context ends whatever it started."""

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials, giving each with its outcome once, in the order in which they end."""
        ...

"""Engines, which execute trials and return their outcomes as the trials end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from study.design.configuration import Trial
from study.ledger.outcomes import Outcome


class Engine(AbstractContextManager["Engine"], Protocol):
    """The interface between the driver and an engine. Leaving its context ends everything that it started.

    Attributes:
        stacks: Whether the engine trains several trials as one stack. If so, give trials that can share a stack one
            after another.
    """

    @property
    def stacks(self) -> bool:  # noqa: D102
        ...

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials and yield each with its outcome once, in the order in which they end.

        The engine takes a trial only when a worker is free for it, on the thread that asks for the outcomes. Other
        runs may take trials from the same study, and a trial that is taken early is not available to them.
        """
        ...

    def rest(self) -> None:
        """Release resources that another run may need, while this run waits for the others.

        It is called again and again while the run waits, and the engine may get new trials afterwards.
        """
        ...

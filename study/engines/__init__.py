"""Engines execute trials: each takes trials and gives their outcomes as they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from study.design.configuration import Trial
from study.ledger.outcomes import Outcome


class Engine(AbstractContextManager["Engine"], Protocol):
    """What the driver asks of an engine; leaving its context ends whatever it started.

    Attributes:
        stacks: whether it trains several trials as one stack, so that those that can be should come together.
    """

    @property
    def stacks(self) -> bool:  # noqa: D102
        ...

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials, giving each with its outcome once, in the order in which they end.

        The trials are asked for as workers become free for them, on the thread that asks for the outcomes: others may
        be taking from the same study, so what is asked for early is kept from them.
        """
        ...

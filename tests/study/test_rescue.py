"""A run whose ledger fails: what it keeps, and what the next run does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from invented import FakeEngine

from study.design.configuration import Trial
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.storages import LedgerFailed

Make = Callable[..., Ledger]


class Eager(FakeEngine):
    """An engine with two workers, each of which gets its next trial before its outcome is recorded."""

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        trials = iter(trials)
        running = [trial for trial in (next(trials, None), next(trials, None)) if trial]
        while running:
            done = running.pop(0)
            if following := next(trials, None):
                running.append(following)
            yield from super().run([done])


def breaks(ledger: Ledger, after: int) -> None:
    """Let a ledger fail after some trials."""
    record, recorded = ledger.record, iter(range(after))

    def records(*about: object) -> dict[str, Outcome]:
        if next(recorded, None) is None:
            raise LedgerFailed("the disk is broken")
        return record(*about)  # type: ignore[arg-type]

    ledger.record = records  # type: ignore[method-assign]


def test_what_is_running_when_the_ledger_fails_is_finished_and_kept(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    run = StudyRun(plan, make_ledger(), facts)
    breaks(run.ledger, after=4)
    told: list[LedgerFailed] = []
    engine = Eager()
    with pytest.raises(LedgerFailed, match="the disk is broken"):
        run.run(engine, lambda *_: None, on_failure=told.append)
    assert len(told) == 1
    assert len(engine.ran) == 7  # four recorded, one refused, two that were running
    assert run.unrecorded == 3
    url = f"sqlite:///{tmp_path / 'rescued.db'}"
    assert run.rescue(url) == 7

    again = StudyRun(plan, make_ledger(), facts)
    assert len(again.take_up(Ledger(url, name="demo"))) == 7
    rest = FakeEngine()
    again.run(rest, lambda *_: None)
    assert len(rest.ran) == 24 - 7
    assert again.counts() == (24, 24)
    assert len(make_ledger().new_outcomes("grid")) == 12  # also those of the rescue are in the ledger now


def test_a_trial_that_a_run_does_not_ask_for_stays_where_it_was_kept(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    first = StudyRun(plan, make_ledger(), facts)
    breaks(first.ledger, after=14)
    with pytest.raises(LedgerFailed):
        first.run(FakeEngine(), lambda *_: None)
    url = f"sqlite:///{tmp_path / 'rescued.db'}"
    first.rescue(url)
    (tmp_path / "study.db").unlink()
    grid = StudyRun(replace(plan, blocks=("grid",)), make_ledger(), facts)
    taken = grid.take_up(Ledger(url, name="demo"))
    grid.run(engine := FakeEngine(), lambda *_: None)
    assert engine.ran == []
    assert sum(map(grid.ledger.has, taken)) == 12
    assert len(taken) > 12


def test_a_failure_of_the_engine_rescues_nothing(make_ledger: Make, plan: Plan, facts: StudyFacts) -> None:
    run = StudyRun(plan, make_ledger(), facts)
    with pytest.raises(KeyboardInterrupt):
        run.run(FakeEngine(stop_after=2), lambda *_: None)
    assert (run.failure, run.unrecorded) == (None, 0)

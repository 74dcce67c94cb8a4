"""Storages, and a ledger for a study that is invented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented import demo_facts, demo_plan, demo_utterances

from study.driver import Plan
from study.ledger.ledger import Ledger
from study.ledger.outcomes import StudyFacts


@pytest.fixture
def facts() -> StudyFacts:
    return demo_facts()


@pytest.fixture
def plan() -> Plan:
    return demo_plan()


SHARED = ("journal", pytest.param("postgresql", marks=pytest.mark.postgres))
"""Kinds of storage that several runs may use at once; SQLite is for one."""


@pytest.fixture(params=["sqlite", *SHARED])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a ledger, of every kind."""
    return _empty_storage(request, tmp_path)


@pytest.fixture(params=SHARED)
def shared_storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a ledger that several runs may use at once."""
    return _empty_storage(request, tmp_path)


def _empty_storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").new_database()
    return f"{request.param}:///{tmp_path / 'study'}.{'db' if request.param == 'sqlite' else 'journal'}"


@pytest.fixture
def make_ledger(tmp_path: Path, facts: StudyFacts) -> Callable[..., Ledger]:
    def make(storage: str = f"sqlite:///{tmp_path / 'study.db'}", **changes: Any) -> Ledger:
        ledger = Ledger(storage, **{"name": "demo", **changes})
        ledger.open(facts, demo_utterances(facts.folds))
        return ledger

    return make

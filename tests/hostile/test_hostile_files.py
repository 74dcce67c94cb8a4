"""Whatever a file holds, reading it gives its content or a refusal in one line, and hurts nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile.harness import Judge, Warm, readers

from cemobam_core import wall

pytestmark = pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")

QUICK, FULL = 10, 200
"""Mutations of a good file."""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Return what reads files, with less time than users have."""
    with Warm(tmp_path_factory.mktemp("reading") / "run", seconds=1) as reading:
        yield reading


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Return what reads files, within the limits that users have."""
    with Warm(tmp_path_factory.mktemp("reading") / "run") as reading:
        yield reading


@pytest.mark.parametrize("name", readers())
def test_hostile_files_are_read_or_refused_in_one_line(name: str, warm: Warm, tmp_path: Path) -> None:
    judge = Judge(warm, readers()[name], tmp_path)
    good = judge.good()
    judge.cases()
    judge.mutations(good, QUICK, seed=1)
    assert not judge.wrong, "\n".join(judge.wrong[:20])


@pytest.mark.hostile
@pytest.mark.parametrize("name", readers())
def test_hostile_files_stay_within_the_limits_of_users(name: str, patient: Warm, tmp_path: Path) -> None:
    judge = Judge(patient, readers()[name], tmp_path)
    good = judge.good()
    judge.cases()
    judge.mutations(good, FULL, seed=2)
    assert not judge.wrong, "\n".join(judge.wrong[:20])

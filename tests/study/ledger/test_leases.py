from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.ledger.leases import PATIENCE, Leases
from study.ledger.storages import Board, Storage, open_storage


@pytest.fixture
def place(shared_storage: str) -> Storage:
    return open_storage(shared_storage)


def run(place: Storage, name: str, *, study: str = "demo", beat_s: float = 1000.0) -> Leases:
    """Return the leases of a run on another machine, whose heartbeat the test controls."""
    leases = Leases(place, study, beat_s=beat_s)
    leases._me = f"{name} 1 x"
    return leases


def beat(*runs: Leases, times: int = 1) -> None:
    for _ in range(times):
        for one in runs:
            one._change(one._add_beat)


def test_what_one_has_another_has_not(place: Storage) -> None:
    with run(place, "a") as a, run(place, "b") as b:
        assert a.take(["t0", "t1", "t2", "t3"], 2) == ["t0", "t1"]
        assert b.take(["t0", "t1", "t2", "t3"], 3) == ["t2", "t3"]
        assert a.take(["t0", "t3"], 1) == []
        b.give_back(["t3"])
        assert a.take(["t0", "t3"], 1) == ["t3"]
        with run(place, "c", study="other") as c:
            assert c.take(["t0"], 1) == ["t0"]
    with run(place, "d") as d:
        assert d.take(["t0", "t1", "t2", "t3"], 9) == ["t0", "t1", "t2", "t3"]


def test_a_run_whose_heart_stands_still_is_dead_and_one_that_beats_is_not(place: Storage) -> None:
    with run(place, "a") as a, run(place, "b") as b, run(place, "c") as c:
        assert a.take(["t0"], 1) == ["t0"]
        assert b.take(["t1"], 1) == ["t1"]
        beat(b, c, times=PATIENCE - 1)
        assert c.take(["t0", "t1"], 2) == []
        beat(c)
        assert c.take(["t0", "t1"], 2) == ["t0"]


def test_a_run_that_was_taken_for_dead_lives_on(place: Storage, caplog: pytest.LogCaptureFixture) -> None:
    with run(place, "a") as a, run(place, "b") as b:
        beat(a)
        a.take(["t0"], 1)
        beat(b, times=PATIENCE + 1)
        assert b.take(["t0"], 1) == ["t0"]
        a.give_back(["t0"])  # this does not change b's lease
        assert "took this run for dead" in caplog.text
        assert a.take(["t0", "t1"], 2) == ["t1"]


def test_while_the_server_is_away_nobody_dies(place: Storage) -> None:
    with run(place, "a") as a, run(place, "b") as b:
        a.take(["t0"], 1)
        b.take([], 1)
        # For hours, neither run can write a heartbeat; then b comes back first.
        beat(b, times=2)
        assert b.take(["t0"], 1) == []
        beat(a, b, times=3 * PATIENCE)
        assert b.take(["t0"], 1) == []


def test_the_heart_beats_by_itself(place: Storage) -> None:
    with Leases(place, "demo", beat_s=0.02) as a:
        before = place.change("demo", dict)[a._me]["beat"]
        for _ in range(500):
            if place.change("demo", dict)[a._me]["beat"] > before + 2:
                break
            a._over.wait(0.02)
        else:
            pytest.fail("it does not beat")
    assert place.change("demo", dict) == {}


@pytest.mark.process
def test_a_process_that_was_killed_is_dead_at_once(shared_storage: str, place: Storage, in_folder: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from study.ledger.leases import Leases\n"
        "from study.ledger.storages import open_storage\n"
        "with Leases(open_storage(sys.argv[1]), 'demo') as leases:\n"
        "    assert leases.take(['t0', 't1'], 1) == ['t0']\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, shared_storage]) as process:
        process.wait()
        with run(place, "b") as b:
            assert b.take(["t0", "t1"], 2) == ["t0", "t1"]


class _Boards:
    """Boards in memory."""

    def __init__(self) -> None:
        self.boards: dict[str, Board] = {}

    def change(self, board: str, change: Callable[[Board], object]) -> object:
        return change(self.boards.setdefault(board, {}))


@contextmanager
def _many(n: int) -> Iterator[list[Leases]]:
    place = _Boards()
    runs = [run(place, f"m{i}") for i in range(n)]  # type: ignore[arg-type]
    for one in runs:
        one._change(lambda _: None)
    yield runs


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["take", "give_back", "beat"]),
            st.lists(st.integers(0, 5), max_size=4),
            st.integers(1, 3),
        ),
        max_size=60,
    )
)
def test_whatever_living_runs_do_no_trial_is_ever_held_twice(steps: list[tuple[int, str, list[int], int]]) -> None:
    with _many(3) as runs:
        held: list[set[str]] = [set() for _ in runs]
        for i, what, which, n in steps:
            trials = [f"t{k}" for k in which]
            if what == "take":
                taken = runs[i].take(trials, n)
                others = set().union(*(held[j] for j in range(3) if j != i))
                assert not others & set(taken)
                assert not held[i] & set(taken)
                assert len(taken) == min(n, len(set(trials) - others - held[i]))
                held[i] |= set(taken)
            elif what == "give_back":
                runs[i].give_back(trials)
                held[i] -= set(trials)
            else:
                beat(*runs)  # all live

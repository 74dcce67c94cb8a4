"""The judgement of the soak test: what is lost, doubled or different, and which ends of a driver are bad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import TRIALS
from soaking.results import (
    Row,
    Sent,
    complaint,
    differing,
    differing_cells,
    doubled,
    leases,
    lost,
    rows,
    vanished,
)

from study.ledger.leases import Leases
from study.ledger.storages import open_storage

DONE = [Row(block, f"signature {n}", n, True) for block in ("grid", "fusion") for n in range(3)]


def test_lost_trials_are_those_that_are_not_done_in_their_block() -> None:
    assert lost(DONE, DONE) == 0
    assert lost(DONE, DONE[1:]) == 1
    assert lost(DONE, [replace(DONE[0], done=False), *DONE[1:]]) == 1
    assert lost(DONE, [replace(DONE[0], block="fusion"), *DONE[1:]]) == 1
    assert lost([replace(DONE[0], done=False)], []) == 0


def test_a_trial_is_doubled_if_its_block_has_it_done_twice() -> None:
    assert doubled(DONE) == 0  # both blocks have the same signatures
    assert doubled([*DONE, replace(DONE[0], number=9, done=False)]) == 0
    assert doubled([*DONE, replace(DONE[0], number=9), replace(DONE[0], number=10)]) == 2


def test_a_row_that_was_seen_must_stay() -> None:
    assert vanished(DONE[:2], DONE) == 0
    assert vanished(DONE, DONE[2:]) == 2
    assert vanished(DONE, [replace(DONE[0], number=7), *DONE[1:]]) == 1


def test_cells_are_compared_but_for_seconds_and_device() -> None:
    table = pd.DataFrame({"seed": ["0", "1"], "wa": ["0.5", ""], "seconds": ["1", "2"], "device": ["cpu", "cpu"]})
    assert differing_cells(table, table.assign(seconds=["3", "4"], device=["cuda:0", "cpu"])) == 0
    assert differing_cells(table, table.assign(wa=["0.5", "0.1"])) == 1
    assert differing_cells(table, table[:1]) == 2
    assert differing_cells(table, table.drop(columns="wa")) == 2
    assert differing_cells(table, table.assign(wa=["", "0.5"], seed=["1", "0"])) == 4


def test_all_tables_of_two_studies_are_compared(tmp_path: Path) -> None:
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "trials.csv").write_text(f"seed,wa,seconds\n0,0.5,{len(name)}\n")
        (folder / "table1.md").write_text("a\nb\n")
        (folder / "report.md").write_text(name)
        np.savez(folder / "predictions.npz", labels=[1, 2])
    one, other = tmp_path / "one", tmp_path / "other"
    assert differing(one, other) == 0
    (other / "table1.md").write_text("a\nc\nd\n")
    (other / "trials.csv").write_text("seed,wa,seconds\n0,0.50,1\n")
    np.savez(other / "predictions.npz", labels=[1, 3])
    (other / "grid.csv").touch()
    assert differing(one, other) == 2 + 1 + 1 + 1


@pytest.mark.parametrize(
    ("status", "sent", "disturbed", "err", "wrong"),
    [
        (0, [], "", "", ""),
        (0, [], "", "Traceback (most recent call last):\n", "a traceback"),
        (1, [], "", "", "exit status 1"),
        (1, [], "workers", "", ""),
        (2, [], "workers", "run_grid.py: error: x", "exit status 2"),
        (2, [], "servers", "50%|\rrun_grid.py: error: x\n", ""),
        (2, [], "servers", "", "exit status 2 without one line"),
        (130, [Sent("TERM", handled=True)], "", "", ""),
        (130, [Sent("KILL", handled=True)], "", "", "exit status 130"),
        (-9, [Sent("KILL", handled=True)], "", "", ""),
        (-9, [Sent("TERM", handled=True)], "", "", "exit status -9"),
        (-15, [Sent("TERM", handled=False)], "", "", ""),
        (-15, [Sent("TERM", handled=True)], "", "", "exit status -15"),
        (-11, [], "workers servers", "", "exit status -11"),
    ],
)
def test_the_end_of_a_driver_is_judged(status: int, sent: list[Sent], disturbed: str, err: str, wrong: str) -> None:
    known = {name: name in disturbed for name in ("workers", "servers")}
    assert complaint(status, sent, known, err) == wrong


def test_trials_are_read_from_the_storage(small_study: Path) -> None:
    found = rows(f"sqlite:///{small_study}/results/demo/study.db", "demo")
    assert lost(found, found) == doubled(found) == 0
    assert len(found) == TRIALS + 2  # the fusion and the ablation have the configuration of the paper in common
    assert rows(f"sqlite:///{small_study}/results/demo/study.db", "dem") == []


def test_leases_that_are_held_are_counted(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/ledger"
    with Leases(open_storage(url), "demo") as held:
        held.take(["signature"], 1)
        assert leases(url) == 1
    assert leases(url) == 0

"""Whole runs on Ray, as a user types them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from test_runs import done_in_ledger

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["--k-audio", "1,3", "--k-text", "1:2", "--seeds", "2", "--epochs", "2", "--workers", "2"]

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time, with tests/study/test_ray_engine.py


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_grid.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(*arguments: str) -> tuple[str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, out + err
    return out, err


def trials(name: str) -> pd.DataFrame:
    return pd.read_csv(f"results/{name}/trials.csv").drop(columns=["seconds", "device"])


def test_ray_gives_the_local_engines_numbers_and_the_local_engines_words(in_folder: Path) -> None:
    run(*SMALL, "--name", "local")
    before = set(Path.home().iterdir())
    out, err = run(*SMALL, "--name", "ray", "--engine", "ray", "--trial-timeout", "300", "--keep-models", "best")
    pd.testing.assert_frame_equal(trials("ray"), trials("local"))
    said = out.splitlines()
    assert sum(line.startswith("Ray's dashboard: http://127.0.0.1:") for line in said) == 2  # of trials, of models
    assert len(list(Path("results/ray/models").iterdir())) == 2
    spoken = (out + err).lower().replace("ray's dashboard", "").replace("results/ray", "").replace("plots/ray", "")
    for word in ("warning", "traceback", "tune", "raylet", "usage stats"):
        assert word not in spoken
    assert set(Path.home().iterdir()) == before


def test_interrupted_it_keeps_what_was_done_and_leaves_no_process(in_folder: Path) -> None:
    process = start(*SMALL, "--seeds", "500", "--blocks", "grid", "--engine", "ray")
    family: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + 240
    while process.poll() is None and done_in_ledger() < 3 and time.monotonic() < deadline:
        family |= {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted; what was done is kept" in err
    assert "Traceback" not in err
    assert [process for process in family.values() if alive(process)] == []
    assert done_in_ledger() >= 3


def alive(process: psutil.Process) -> bool:
    """Not a zombie either, which is one only until somebody asks for its exit status."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

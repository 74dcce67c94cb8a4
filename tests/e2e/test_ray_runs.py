"""Whole runs on Ray, as a user types them, each on a cluster that it starts and ends."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pandas as pd
import psutil
import pytest
from runs import SMALL, alive, ended, recorded, run_here, start, trials, until

pytestmark = [pytest.mark.ray, pytest.mark.process]


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_ray_gives_the_local_engines_numbers_and_the_local_engines_words(in_folder: Path) -> None:
    arguments = [*SMALL, "--blocks", "grid"]
    run_here(*arguments, "--name", "local")
    Path("home").mkdir()
    environment = {**os.environ, "HOME": str(in_folder / "home")}
    out, err = ended(start(*arguments, "--name", "ray", "--engine", "ray", "--trial-timeout", "300", env=environment))
    pd.testing.assert_frame_equal(trials("results/ray"), trials("results/local"))
    assert sum(line.startswith("Ray's dashboard: http://127.0.0.1:") for line in out.splitlines()) == 1
    spoken = (out + err).lower().replace("ray's dashboard", "").replace("results/ray", "").replace("plots/ray", "")
    for word in ("warning", "traceback", "tune", "raylet", "usage stats"):
        assert word not in spoken
    assert not Path("home/ray_results").exists()  # Ray Tune writes there by default


@pytest.mark.slow
@pytest.mark.parametrize("sent", [["SIGINT"], ["SIGTERM", "SIGTERM"], ["SIGHUP"]], ids="+".join)
def test_interrupted_it_keeps_what_was_done_and_leaves_no_process(in_folder: Path, sent: list[str]) -> None:
    process = start(*SMALL, "--seeds", "500", "--blocks", "grid", "--engine", "ray", start_new_session=True)
    family: dict[int, psutil.Process] = {}

    def three_are_recorded() -> bool:
        family.update({child.pid: child for child in psutil.Process(process.pid).children(recursive=True)})
        return recorded() >= 3

    until(three_are_recorded, "three trials are recorded", process)
    signalled = [one.name() for one in family.values() if alive(one) and os.getpgid(one.pid) == process.pid]
    assert "raylet" not in signalled  # if it ended first, Ray would end the run at once
    assert "gcs_server" not in signalled
    for name in sent:
        os.killpg(process.pid, getattr(signal, name))
    _, err = ended(process, status=130)
    assert "interrupted; finished trials are kept" in err
    assert "Traceback" not in err
    assert [process for process in family.values() if alive(process)] == []
    assert recorded() >= 3


@pytest.mark.slow
def test_a_cluster_that_loses_its_main_process_is_told_and_leaves_nothing(in_folder: Path) -> None:
    Path("tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(in_folder / "tmp")}
    process = start(*SMALL, "--seeds", "500", "--blocks", "grid", "--engine", "ray", env=environment)
    until(lambda: recorded() >= 3, "three trials are recorded", process)
    family = psutil.Process(process.pid).children(recursive=True)
    (raylet,) = [one for one in family if one.name() == "raylet"]
    raylet.kill()
    out, err = ended(process, status=2)
    assert "the connection to the Ray cluster started here is lost (Ray's process on this machine has ended)" in err
    assert "Traceback" not in err
    assert [one for one in family if alive(one)] == []
    assert [path.name for path in Path("tmp").glob("*") if not path.name.startswith("torchinductor")] == []
    token = re.search(r"its token: (\S+)\)", out)
    assert token
    assert not Path(token[1]).parent.exists()

"""The Ray engine on a cluster of two nodes on this machine, with workers and nodes that die.

Whatever joins or starts a cluster here is a process of its own: Ray ends one, a minute later, whose cluster went away.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import psutil
import pytest
import ray
import torch
from faulty import Faulty
from invented import small_design
from own_systems import FILES
from ray.util import placement_group, remove_placement_group
from runs import PATIENCE_S, ROOT, SMALL, ended, run_here, start, start_python, trials, until

from cemobam_core import Fold, InputError, TrainingConfig, train
from cemobam_core.corpora.splits import load_folds
from study import Block, Factor, load_results
from study.design.configuration import Trial
from study.design.design import ANY_PAIR
from study.design.factors import Pair
from study.engines import ray as ray_engine
from study.engines.execution import StudyData, batches_of, execute
from study.engines.ray import RayEngine, cluster_devices, environment
from study.ledger.outcomes import Outcome

DESIGN = small_design(k_audio=(1, 2, 3), hidden_dim=8, heads=2, epochs=2)
TRIALS = DESIGN.trials("grid", ANY_PAIR)
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Yield a process that starts the cluster and joins it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield process


@pytest.fixture(scope="module")
def cluster(process: ProcessPoolExecutor) -> Iterator[str]:
    """Yield the address of a cluster: a head without cores and two nodes with one core each."""
    yield process.submit(start_cluster).result()
    process.submit(stop_cluster).result()


def start_cluster(head_cores: int = 0, nodes: int = 2) -> str:
    from ray.cluster_utils import (
        Cluster,
    )  # after the engine, which sets the environment variables that Ray reads when it is imported

    # workers import Faulty
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    with environment():
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": head_cores, "num_gpus": 0, "include_dashboard": False}
        )
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, num_gpus=0)
    CLUSTERS.append(cluster)
    return str(cluster.address)


def stop_cluster() -> None:
    CLUSTERS.pop().shutdown()


CLUSTERS: list[Any] = []
"""Of this process."""


@pytest.fixture
def data(small_fold: Fold) -> StudyData:
    return StudyData.prepare((small_fold,), 3)


HARMS = dict(zip(TRIALS[1::2], ("killed", "killed once", "out of memory once", "raises", "hangs"), strict=False))


def by_trial(outcomes: list[tuple[Trial, Outcome]]) -> dict[Trial, Outcome]:
    assert len({trial for trial, _ in outcomes}) == len(outcomes)
    return dict(outcomes)


@pytest.mark.parametrize(("bundle", "in_group"), [(0.0, 1), (1000.0, 1), (1000.0, 3)])
def test_the_numbers_are_those_of_a_trial_alone_whatever_the_bundles(
    process: ProcessPoolExecutor, cluster: str, data: StudyData, bundle: float, in_group: int
) -> None:
    """The CPU runs groups of three here, like a worker on a GPU. The numbers agree except for rounding."""
    found, again, ahead = process.submit(run_lazily, cluster, data, bundle=bundle, in_group=in_group).result()
    assert max(ahead) <= 2 * in_group + in_group - 1  # only the running trials and the group of this one
    assert found.keys() == set(TRIALS)
    for trial in TRIALS:
        (alone,) = execute((trial,), data, "cpu")
        assert found[trial].metrics["val_loss"] == pytest.approx(alone.metrics["val_loss"], rel=1e-4)
        if in_group == 1:
            assert replace(found[trial], seconds=0) == replace(alone, seconds=0)
    assert again.keys() == set(TRIALS[:3])
    if in_group == 1:
        assert all(again[trial].metrics == found[trial].metrics for trial in again)


def run_lazily(
    address: str, data: StudyData, *, bundle: float, in_group: int
) -> tuple[dict[Trial, Outcome], dict[Trial, Outcome], list[int]]:
    """Return all outcomes, those of some trials run again, and the number of trials taken before each outcome."""
    asked: list[Trial] = []

    def lazily() -> Iterator[Trial]:
        for trial in TRIALS:
            asked.append(trial)
            yield trial

    outcomes = []
    ahead = []
    with (
        patch.multiple(ray_engine, _BUNDLE_SECONDS=bundle, at_once=lambda _: in_group),
        RayEngine(data, ["cpu"] * 2, address=address) as engine,
    ):
        assert list(engine.run([])) == []
        for pair in engine.run(lazily()):
            outcomes.append(pair)
            ahead.append(len(asked) - len(outcomes))
        again = by_trial(list(engine.run(TRIALS[:3])))  # by the same workers
    return by_trial(outcomes), again, ahead


def test_while_it_rests_another_run_has_the_cores(process: ProcessPoolExecutor, cluster: str, data: StudyData) -> None:
    before, free, after = process.submit(rest_between, cluster, data).result()
    assert free
    assert before.keys() == after.keys() == set(TRIALS[:3])
    assert all(before[trial].metrics == after[trial].metrics for trial in before)


def rest_between(address: str, data: StudyData) -> tuple[dict[Trial, Outcome], bool, dict[Trial, Outcome]]:
    """Return the outcomes before and after a rest, and whether another could reserve both cores meanwhile."""
    with RayEngine(data, ["cpu"] * 2, address=address) as engine:
        before = by_trial(list(engine.run(TRIALS[:3])))
        engine.rest()
        reserved = placement_group([{"CPU": 1.0}] * 2)
        free = reserved.wait(60)
        remove_placement_group(reserved)
        return before, free, by_trial(list(engine.run(TRIALS[:3])))


def test_systems_in_users_files_run_on_workers_that_have_not_the_files(
    process: ProcessPoolExecutor, cluster: str, data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name.partition(":")[0]).write_text(content)
    block = Block("own", systems=[*FILES], factors=[Factor("width", [3, 5])])
    trials = replace(DESIGN, blocks={"own": block}).trials("own", ANY_PAIR)
    for name in FILES:
        Path(name.partition(":")[0]).unlink()
    found = process.submit(run_trials, cluster, data, trials).result()
    assert found.keys() == set(trials)
    for trial in trials:
        (alone,) = execute((trial,), data, "cpu")
        assert replace(found[trial], seconds=0) == replace(alone, seconds=0)
        training = trial.configuration.training or TrainingConfig()
        direct = train(trial.configuration.system, batches_of(trial, data), training=training, seed=trial.seed)
        assert found[trial].metrics["test_loss"] == direct.metrics["test"].loss


def run_trials(address: str, data: StudyData, trials: list[Trial]) -> dict[Trial, Outcome]:
    with RayEngine(data, ["cpu"] * 2, address=address) as engine:
        return by_trial(list(engine.run(trials)))


@pytest.mark.parametrize("seen", [True, False])
def test_features_in_files_are_read_on_the_nodes_or_come_through_the_object_store(
    process: ProcessPoolExecutor, cluster: str, data: StudyData, tmp_path: Path, seen: bool
) -> None:
    for name, part in data.folds[0].splits.items():
        part.save(tmp_path / f"{name}.safetensors", shard_bytes=2000, dtype=torch.float16)
    ours = replace(data, folds=load_folds(tmp_path))
    alone = [execute((trial,), ours, "cpu")[0] for trial in TRIALS[:3]]
    held, found = process.submit(run_on_files, cluster, ours, tmp_path, seen=seen).result()
    assert held is not seen
    for trial, one in zip(TRIALS[:3], alone, strict=True):
        assert replace(found[trial], seconds=0) == replace(one, seconds=0)


def run_on_files(address: str, data: StudyData, folder: Path, *, seen: bool) -> tuple[bool, dict[Trial, Outcome]]:
    """Return whether the numbers went through the object store, and the outcomes of some trials.

    Args:
        address: Address of the cluster.
        data: Features in files.
        folder: Folder of the files.
        seen: Whether the nodes see the files. If not, they are only open in this process.
    """
    for part in data.stored():
        assert part.array.size
    if not seen:
        shutil.rmtree(folder)
    with RayEngine(data, ["cpu"] * 2, address=address) as engine:
        return not engine._data.stored(), by_trial(list(engine.run(TRIALS[:3])))


@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
def test_a_run_that_joins_the_cluster_keeps_everything_where_it_was_started(cluster: str, in_folder: Path) -> None:
    keeping = ["--keep-models", "best", "--keep-probabilities"]
    out, _ = ended(start(*SMALL, "--engine", "ray", "--ray-address", cluster, *keeping))
    assert "2 models are kept, such as results/demo/models/" in out
    assert len(list(Path("results/demo/models").glob("*/model.safetensors"))) == 2
    assert "the probabilities of 20 of 20 trials are kept under results/demo/probabilities" in out
    joined = trials()
    run_here(*SMALL, "--results", "local")
    pd.testing.assert_frame_equal(joined, trials("local/demo"))
    assert len(load_results("results/demo").predictions) == 20
    pd.testing.assert_frame_equal(load_results("results/demo").predictions, load_results("local/demo").predictions)


def test_whatever_a_trial_does_to_its_worker_the_others_go_on(
    process: ProcessPoolExecutor, cluster: str, data: StudyData, tmp_path: Path
) -> None:
    faulty: Any = Faulty(data, tmp_path, HARMS)
    found = process.submit(run_with_a_timeout, cluster, faulty).result()
    assert found.keys() == set(TRIALS)
    harmed = {HARMS[trial]: outcome for trial, outcome in found.items() if trial in HARMS}
    assert {harm: outcome.reason for harm, outcome in harmed.items()} == {
        "killed": "its worker died 2 times (killed, or crashed; often out of memory: try fewer --workers)",
        "killed once": "",
        "out of memory once": "",
        "raises": "ValueError: no such",
        "hangs": "took longer than --trial-timeout 15 s",
    }
    assert "in folds" in harmed["raises"].traceback
    assert {outcome.status for trial, outcome in found.items() if trial not in HARMS} == {"done"}
    tries = {harm: faulty.done(harm) for harm in HARMS.values()}
    assert tries == {"killed": 2, "killed once": 2, "out of memory once": 2, "raises": 1, "hangs": 1}


def run_with_a_timeout(address: str, data: StudyData) -> dict[Trial, Outcome]:
    with RayEngine(data, ["cpu"] * 2, address=address, trial_timeout=15) as engine:
        return by_trial(list(engine.run(TRIALS)))


def test_a_node_taken_away_costs_nothing_and_a_cluster_gone_is_told(data: StudyData) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(lose_a_node_and_then_the_head, data).result()


def lose_a_node_and_then_the_head(data: StudyData) -> None:
    ray_engine._LOOK = 1.0
    address = start_cluster(head_cores=1, nodes=1)
    (cluster,) = CLUSTERS
    try:
        slow = replace(DESIGN, settings={**DESIGN.settings, "epochs": 60}, seeds=tuple(range(4)))
        trials = slow.trials("grid", Pair(1, 1))
        with RayEngine(data, ["cpu"] * 2, address=address) as engine:
            outcomes = []
            for pair in engine.run(trials):
                outcomes.append(pair)
                if len(outcomes) == 8:
                    (other,) = cluster.worker_nodes
                    cluster.remove_node(other, allow_graceful=False)
            assert by_trial(outcomes).keys() == set(trials)
            assert {outcome.status for _, outcome in outcomes} == {"done"}
            endless = replace(slow, settings={**slow.settings, "epochs": 20_000})
            rest = engine.run([*slow.trials("fusion", Pair(1, 1))[:1], *endless.trials("fusion", Pair(1, 1))])
            next(rest)
            cluster.head_node.kill_gcs_server()
            with pytest.raises(
                InputError, match=r"connection to the Ray cluster at [\d.:]+ is lost .*; recorded trials are kept"
            ):
                list(rest)
    finally:
        stop_cluster()


def test_what_cannot_be_joined_or_lacks_what_is_asked_for_is_told_at_once(
    process: ProcessPoolExecutor, cluster: str, data: StudyData
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(
            InputError, match=rf"--ray-address {address}: no Ray cluster can be joined there .*: ray start"
        ):
            RayEngine(data, ["cpu"], address=address).__enter__()
    asked: dict[str, Any] = {"workers": None, "gpus_per_trial": 0.5}
    with pytest.raises(InputError, match=r"ray://.*run this command on a node of the cluster"):
        cluster_devices("ray://127.0.0.1:10001", device="cpu", **asked)
    with pytest.raises(InputError, match=r"--device cuda: no node of the Ray cluster at .* has 0.5 GPUs"):
        process.submit(cluster_devices, cluster, device="cuda", **asked).result()
    assert process.submit(cluster_devices, cluster, device="auto", **asked).result() == ["cpu"] * 2


def test_ray_that_does_not_start_is_told_and_its_sockets_have_short_paths(
    data: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []

    def fail(**options: Any) -> str:
        folders.append(options["_temp_dir"])
        raise Exception("The last 20 lines of dashboard.log:\nRuntimeError")  # Ray raises such errors

    monkeypatch.setattr(ray_engine, "_init", fail)
    monkeypatch.setattr("tempfile.tempdir", "/tmp/of15chars_")
    with pytest.raises(InputError, match=r"--engine ray: Ray does not start here \(The last 20 lines of dash"):
        RayEngine(data, ["cpu"]).__enter__()
    longest = "session_2026-11-26_17-17-39_873679_4194304/sockets/dash_MetricsHead"
    assert len(f"{folders[0]}/{longest}") <= 107
    assert not Path(folders[0]).parent.exists()


@pytest.mark.process
def test_a_cluster_of_its_own_is_for_this_machine_and_its_token_alone_and_ends_with_the_driver(in_folder: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.path[:0] = [sys.argv[1]]
        from invented import Pair, small_design
        from cemobam_core.corpora.synthetic import demo_fold
        from study.engines.ray import RayEngine
        from study.engines.execution import StudyData
        design = small_design(k_audio=(1,), seeds=range(2_000), hidden_dim=8, heads=2, epochs=2)
        with RayEngine(StudyData.prepare((demo_fold(),), 2), ["cpu"] * 2) as engine:
            for _ in engine.run(design.trials("grid", Pair(1, 1))):
                Path("begun").touch()
    """)
    Path("endless.py").write_text(program)
    (in_folder / "home").mkdir()
    (in_folder / "tmp").mkdir()
    environment = {**os.environ, "HOME": str(in_folder / "home"), "TMPDIR": str(in_folder / "tmp")}
    driver = start_python("endless.py", str(ROOT / "tests"), env=environment)
    family: list[psutil.Process] = []

    def begun() -> bool:
        family[:] = psutil.Process(driver.pid).children(recursive=True)
        return Path("begun").exists()

    until(begun, "a trial is done", driver)
    assert len(family) >= 4
    listening = [
        connection.laddr
        for process in (*family, psutil.Process(driver.pid))
        for connection in told(lambda p=process: p.net_connections(kind="inet"), [])
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert driver.stdout
    said = re.search(r"http://(\S+)  \(its token: (\S+)\)", driver.stdout.readline())
    assert said
    token = Path(said[2])
    assert token.stat().st_mode & 0o077 == 0
    assert token.parent.stat().st_mode & 0o077 == 0
    assert not (in_folder / "home/.ray").exists()
    if hasattr(ray._raylet, "AuthenticationTokenLoader"):
        asked = urllib.request.Request(f"http://{said[1]}/api/v0/nodes")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asked, timeout=PATIENCE_S)
        asked.add_header("Authorization", f"Bearer {token.read_text()}")
        assert urllib.request.urlopen(asked, timeout=PATIENCE_S).status == 200
    driver.kill()
    driver.communicate()
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    until(lambda: not token.parent.exists(), "the folder is removed")
    kept = ("torchinductor", "cemobam-tmp")  # torch's cache, and folders that the next run removes
    assert [path.name for path in Path("tmp").glob("*") if not path.name.startswith(kept)] == []


def told(question: Callable[[], Any], otherwise: Any) -> Any:
    """Return an answer about a process that may have ended."""
    try:
        return question()
    except psutil.Error:
        return otherwise

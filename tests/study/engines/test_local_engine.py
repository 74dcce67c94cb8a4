"""The local engine with real worker processes, and with workers that die."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from faulty import Faulty
from invented import small_design
from own_systems import FILES
from runs import PATIENCE_S, ROOT, start_python, until

from cemobam_core import Fold, InputError, TrainingConfig, train
from cemobam_core.corpora.splits import load_folds
from cemobam_core.files import remove_leftovers
from study import Block, Factor
from study.design.design import ANY_PAIR
from study.engines import local
from study.engines.execution import StudyData, batches_of, execute
from study.engines.local import LocalEngine

DESIGN = small_design(k_audio=(1, 3), k_text=(2,), seeds=(0, 1, 2), hidden_dim=8, heads=2, epochs=2)
TRIALS = DESIGN.trials("grid", ANY_PAIR)


@pytest.fixture
def data(small_fold: Fold) -> StudyData:
    return StudyData.prepare((small_fold,), 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_numbers_are_those_of_a_trial_alone(data: StudyData, workers: int) -> None:
    with LocalEngine(data, ["cpu"] * workers) as engine:
        outcomes = dict(engine.run(TRIALS))
        assert list(engine.run([])) == []
        again = dict(engine.run(TRIALS[:1]))  # by the same workers
    assert outcomes.keys() == set(TRIALS)
    for trial in TRIALS:
        (alone,) = execute((trial,), data, "cpu")
        assert replace(outcomes[trial], seconds=0) == replace(alone, seconds=0)
    assert again[TRIALS[0]].metrics == outcomes[TRIALS[0]].metrics
    assert psutil.Process().children(recursive=True) == [] or not _workers()


def _workers() -> list[psutil.Process]:
    """Return the living grandchildren, because workers are children of the fork server."""
    return [
        child
        for server in psutil.Process().children()
        if any("forkserver" in word for word in told(server.cmdline, []))
        for child in told(server.children, [])
        if told(child.status, psutil.STATUS_ZOMBIE) != psutil.STATUS_ZOMBIE
    ]


def told(ask: Callable[[], Any], otherwise: Any) -> Any:
    """Return an answer of the system about a process, or ``otherwise`` if the process has just ended."""
    try:
        return ask()
    except psutil.Error:
        return otherwise


def in_files(fold: Fold, folder: Path) -> Fold:
    """Return the same utterances as features that stay in their files."""
    for name, part in fold.splits.items():
        part.save(folder / f"{name}.safetensors", shard_bytes=2000)
    return load_folds(folder)[0]


def test_features_in_files_are_read_there_by_workers(
    small_fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = StudyData.prepare((in_files(small_fold, tmp_path),), 3)
    assert len(ours.stored()) > 6
    shared: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "share_memory_", lambda x: shared.append(x.shape))
    with LocalEngine(ours, ["cpu"] * 2) as engine:
        outcomes = dict(engine.run(TRIALS[:3]))
    assert all(x.numel() < 1000 for x in shared)  # labels and graphs
    for trial in TRIALS[:3]:
        (alone,) = execute((trial,), StudyData.prepare((small_fold,), 3), "cpu")
        assert replace(outcomes[trial], seconds=0) == replace(alone, seconds=0)


def test_a_file_that_changes_during_a_run_is_named_by_the_trial(small_fold: Fold, tmp_path: Path) -> None:
    ours = StudyData.prepare((in_files(small_fold, tmp_path),), 3)
    changed = sorted(tmp_path.glob("val-*"))[1]
    changed.unlink()
    with LocalEngine(ours, ["cpu"]) as engine:
        ((_, outcome),) = engine.run(TRIALS[:1])
    assert outcome.status == "failed"
    assert str(outcome.reason).startswith(
        f"InputError: {changed}: cannot be read (No such file or directory); features"
    )


HARMED = next(t for t in TRIALS if t.seed == 1 and t.configuration.get("k_audio") == 3)


@pytest.mark.parametrize("harm", ["killed once", "out of memory once"])
def test_a_worker_that_dies_once_costs_nothing(data: StudyData, tmp_path: Path, harm: str) -> None:
    faulty: Any = Faulty(data, tmp_path, {HARMED: harm})
    with LocalEngine(faulty, ["cpu"] * 2) as engine:
        outcomes = list(engine.run(TRIALS))
    assert sorted(t.signature("") for t, _ in outcomes) == sorted(t.signature("") for t in TRIALS)
    assert {o.status for _, o in outcomes} == {"done"}
    assert faulty.done(harm) == 2


FAILURES = [
    ("killed", 2, r"its worker was killed 2 times (SIGKILL: often out of memory; try fewer --workers)"),
    ("exits", 2, "its worker died 2 times (exit status 3)"),
    ("raises", 1, "ValueError: no such"),
    ("hangs", 1, "took longer than --trial-timeout 10 s"),
]


@pytest.mark.parametrize(("harm", "tries", "reason"), FAILURES)
def test_a_trial_that_cannot_be_run_fails_alone_with_its_reason(
    data: StudyData, tmp_path: Path, harm: str, tries: int, reason: str
) -> None:
    faulty: Any = Faulty(data, tmp_path, {HARMED: harm})
    with LocalEngine(faulty, ["cpu"] * 2, trial_timeout=10 if harm == "hangs" else None) as engine:
        outcomes = list(engine.run(TRIALS))
    assert len(outcomes) == len(TRIALS)
    assert [(t, o.reason) for t, o in outcomes if o.status == "failed"] == [(HARMED, reason)]
    assert faulty.done(harm) == tries


@pytest.mark.parametrize(
    ("harm", "tries", "reason"),
    [
        *(pytest.param(*failure, marks=pytest.mark.slow) for failure in FAILURES),
        ("killed once", 1, ""),
        ("out of memory once", 1, ""),
    ],
)
def test_a_group_of_which_one_does_harm_is_done_but_for_that_one(
    data: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, tries: int, reason: str
) -> None:
    """The CPU runs groups here like those of a worker on a GPU."""
    monkeypatch.setattr(local, "at_once", lambda device: 3)
    faulty: Any = Faulty(data, tmp_path, {HARMED: harm})
    with LocalEngine(faulty, ["cpu"] * 2, trial_timeout=10 if harm == "hangs" else None) as engine:
        outcomes = list(engine.run(TRIALS))
    assert sorted(t.signature("") for t, _ in outcomes) == sorted(t.signature("") for t in TRIALS)
    assert [(t, o.reason) for t, o in outcomes if o.status == "failed"] == ([(HARMED, reason)] if reason else [])
    assert faulty.done(harm) == 1 + tries  # with its group, and alone
    for trial, outcome in outcomes:
        if outcome.status == "done":
            (alone,) = execute((trial,), data, "cpu")
            assert outcome.metrics["val_loss"] == pytest.approx(alone.metrics["val_loss"], rel=1e-4)


def test_too_little_shared_memory_is_told(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(InputError, match=r"do not fit into shared memory, which needs 0 MB .*--shm-size"):
        LocalEngine(data, ["cpu"]).__enter__()


def test_leaving_early_ends_the_workers(data: StudyData) -> None:
    with LocalEngine(data, ["cpu"] * 2) as engine:
        next(iter(engine.run(TRIALS)))
        assert len(_workers()) == 2
    assert _workers() == []


@pytest.mark.slow
@pytest.mark.process
def test_when_the_driver_is_killed_its_workers_end(in_folder: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cemobam_core.corpora.synthetic import demo_fold
        from study.engines.local import LocalEngine
        from study.engines.execution import StudyData
        if __name__ == "__main__":
            sys.path[:0] = [sys.argv[1]]
            from invented import Pair, small_design
            design = small_design(k_audio=(1,), seeds=(0,), epochs=100_000)
            with LocalEngine(StudyData.prepare((demo_fold(),), 2), ["cpu"] * 2) as engine:
                for _ in engine.run(design.trials("grid", Pair(1, 1))):
                    pass
    """)
    Path("endless.py").write_text(program)
    driver = start_python("endless.py", str(ROOT / "tests"))
    family: list[psutil.Process] = []

    def both_work() -> bool:
        family[:] = psutil.Process(driver.pid).children(recursive=True)
        return sum(told(lambda p=p: p.cpu_times().user, 0.0) > 0.5 for p in family) >= 2

    until(both_work, "both workers are at work", driver)
    assert len(family) >= 3
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.process
@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["ends", "is killed"])
@pytest.mark.parametrize("short", [True, False], ids=["short path", "long path"])
def test_no_temporary_folder_outlives_the_driver_and_the_next_run(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, short: bool, end: str
) -> None:
    temporary = Path(tempfile.mkdtemp(dir="/tmp")) if short else in_folder / ("long" * 20)
    temporary.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    Path("driver.py").write_text(
        textwrap.dedent(f"""
            import os, signal
            from multiprocessing.util import get_temp_dir
            from study.engines.server import start_server
            start_server()
            print(get_temp_dir(), flush=True)
            {end}
        """)
    )
    driver = start_python("driver.py")
    out, said = driver.communicate()
    folder = Path(out.strip())
    assert folder.parent == (temporary if short else Path("/tmp")), said
    if short:  # the runs of other tests look for leftovers in /tmp
        assert folder.exists() == bool(end)
    remove_leftovers()
    assert not folder.exists()
    temporary.rmdir()


def test_systems_in_users_files_run_on_workers_that_have_not_the_files(
    small_fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name.partition(":")[0]).write_text(content)
    block = Block("own", systems=[*FILES, "logistic"], factors=[Factor("width", [3, 5])])
    design = small_design(epochs=2)
    trials = replace(design, blocks={"own": block}).trials("own", ANY_PAIR)
    assert len(trials) == 2 * (2 + 1 + 1)
    for name in FILES:
        Path(name.partition(":")[0]).write_text("raise RuntimeError('edited')\n")
    data = StudyData.prepare((small_fold,), 0)
    with LocalEngine(data, ["cpu"] * 2) as engine:
        outcomes = dict(engine.run(trials))
    assert outcomes.keys() == set(trials)
    for trial in trials:
        (alone,) = execute((trial,), data, "cpu")
        assert replace(outcomes[trial], seconds=0) == replace(alone, seconds=0)
        one = trial.configuration
        training = one.training or TrainingConfig()
        direct = train(one.system, batches_of(trial, data), training=training, seed=trial.seed)
        assert outcomes[trial].metrics["test_loss"] == direct.metrics["test"].loss
    assert len({outcome.metrics["val_loss"] for outcome in outcomes.values()}) == 4 + 1 + 1  # seeds change no fit

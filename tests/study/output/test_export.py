"""Exports to MLflow, W&B and TensorBoard, read back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from exported import READERS, ReadRun
from runs import TRIALS, cemobam_here

from cemobam_core.errors import InputError
from study import load_results
from study.ledger.outcomes import METRICS
from study.output import export as exports
from study.output.export import TARGETS, export
from study.output.export.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
"""Those of the libraries that are tested against."""

EACH = pytest.mark.parametrize("to", TARGETS)

RUNS = TRIALS + 2 + 1
"""Of the small study: one configuration is in two blocks, with two seeds, and there is the summary."""

RUN = Run(
    study="demo",
    group="grid",
    name="k_audio 1, k_text 2, seed 0",
    key="0123456789abcdef",
    version="done",
    parameters={"k_audio": 1, "fusion": "min", "lr": 1e-4, "gat_first_dropout": True, "seed": 0, "fold": 0},
    metrics={"test_wa": 0.75, "val_wa": 0.5},
    curve={1: 0.25, 2: 0.5},
    tags={"block": "grid", "status": "done", "dataset": "demo", "profile": "paper", "system": "cemobam"},
    seconds=1.5,
)
FAILED = replace(
    RUN,
    version="failed",
    metrics={"seconds": 1.5},
    curve={},
    tags={**RUN.tags, "status": "failed"},
    reason="ValueError: told to",
)
OTHER = replace(
    RUN, key="fedcba9876543210", name="k_audio 1, k_text 2, seed 1", parameters={**RUN.parameters, "seed": 1}
)


@EACH
@pytest.mark.slow
def test_every_trial_is_a_run_with_the_metrics_of_trials_csv(small_study: Path, to: str) -> None:
    out, _ = cemobam_here("export", "--to", to, "exported")
    trials = load_results("results/demo").trials
    assert len(trials) == TRIALS
    assert f"{RUNS} runs written" in out
    *of_trials, summary = sorted(READERS[to](Path("exported")), key=lambda run: run.tags["block"])
    assert summary.tags["block"] == "summary epochs=2"
    blocks = [run.tags["block"] for run in of_trials]
    assert {block: blocks.count(block) for block in blocks} == {
        "ablation epochs=2": 6,
        "fusion epochs=2": 8,
        "grid epochs=2": 8,
    }
    by_key = trials.set_index(["k_audio", "k_text", "fusion", "modules", "seed"])
    seen = set()
    for run in of_trials:
        numbers = [int(float(run.parameters[name])) for name in ("k_audio", "k_text", "seed")]
        key = (*numbers[:2], run.parameters["fusion"], run.parameters["modules"], numbers[2])
        row = by_key.loc[key]
        seen.add(key)
        assert run.status == row["status"] == "done"
        for name in (*METRICS, "seconds", "parameters"):
            assert run.metrics[name] == pytest.approx(row[name], rel=1e-6), name
        assert run.curve[max(run.curve)] == pytest.approx(row["val_wa"], rel=1e-6)
        assert run.tags["dataset"] == "demo"
        assert len(run.tags["signature"]) == 16
        assert run.tags["version.torch"]
    assert seen == set(by_key.index)
    own = load_results("results/demo").own.iloc[0]
    assert summary.metrics["test_wa_mean"] == pytest.approx(own["test_wa_mean"], rel=1e-6)
    assert any("fig2_topk" in name for name in summary.files)
    if to != "tensorboard":
        assert any("table1" in name for name in summary.files)

    before = _content(Path("exported"))
    out, _ = cemobam_here("export", "--to", to, "exported")
    assert f"0 runs written; {RUNS} were there already" in out
    assert len(READERS[to](Path("exported"))) == RUNS
    assert _content(Path("exported")) == before


def _content(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix not in {".db-wal", ".db-shm"}}


@EACH
def test_a_run_is_written_once_and_a_failed_one_again_when_it_is_done(tmp_path: Path, to: str) -> None:
    assert export([FAILED], to, tmp_path).written == 1
    (failed,) = READERS[to](tmp_path)
    assert (failed.status, failed.reason) == ("failed", "ValueError: told to")
    assert export([FAILED], to, tmp_path).written == 0
    exported = export([RUN, OTHER], to, tmp_path)
    assert (exported.written, exported.held) == (2, 0)
    one, other = sorted(READERS[to](tmp_path), key=lambda run: float(run.parameters["seed"]))
    assert {run.status for run in (one, other)} == {"done"}
    assert one.metrics == pytest.approx(dict(RUN.metrics))
    assert one.curve == pytest.approx(dict(RUN.curve))
    assert {name: str(value) for name, value in one.parameters.items()}.keys() == RUN.parameters.keys()
    assert not one.reason
    exported = export([RUN, OTHER], to, tmp_path)
    assert (exported.written, exported.held) == (0, 2)


@EACH
def test_what_an_interruption_leaves_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    interruptions = {
        "mlflow": "mlflow.MlflowClient.set_terminated",
        "wandb": "wandb.Run.finish",
        "tensorboard": "study.output.export.tensorboard.RecordWriter.flush",
    }

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    export([RUN], to, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(interruptions[to], interrupted)
        export([RUN, OTHER], to, tmp_path)
    exported = export([RUN, OTHER], to, tmp_path)
    assert (exported.written, exported.held) == (1, 1)
    seeds = sorted(float(run.parameters["seed"]) for run in _whole(READERS[to](tmp_path)))
    assert seeds == [0, 1]


def _whole(runs: Iterable[ReadRun]) -> list[ReadRun]:
    return [run for run in runs if run.status]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("file", "is a file; give a folder"),
        ("other content", r"holds something else \(notes.txt\); give a new or an empty folder"),
        ("other target", "holds an export to wandb; give --to tensorboard another folder"),
        ("unreadable", "holds an export to something that cannot be read"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, made: str, message: str) -> None:
    folder = tmp_path / "there"
    if made == "file":
        folder.touch()
    else:
        folder.mkdir()
        name, said = {
            "other content": ("notes.txt", "mine"),
            "other target": (exports.MARKER, '{"to": "wandb"}'),
            "unreadable": (exports.MARKER, "{"),
        }[made]
        (folder / name).write_text(said)
    before = _content(tmp_path)
    with pytest.raises(InputError, match=message):
        export([RUN], "tensorboard", folder)
    assert _content(tmp_path) == before


@EACH
def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    monkeypatch.setattr("cemobam_core.extras.installed", lambda module: module != to)
    with pytest.raises(InputError, match=rf"--to {to} needs {to}, .*pip install 'cemobam-study\[{to}\]'"):
        export([RUN], to, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_is_missing(in_folder: Path) -> None:
    for words in ([], ["--to", "mlflow"], ["exported"]):
        _, err = cemobam_here("export", *words, status=2)
        assert err.strip() == "cemobam export: error: say what to write and where, as: cemobam export --to mlflow DIR"
    _, err = cemobam_here("export", "--to", "mlflow", "exported", status=2)
    assert "there is no ledger; run the study first" in err
    assert not Path("exported").exists()


def test_it_says_how_to_open_an_export(tmp_path: Path) -> None:
    places = {to: export([RUN], to, tmp_path / to).open_with[0] for to in TARGETS}
    assert places["mlflow"] == f"mlflow ui --backend-store-uri sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert places["wandb"] == f"wandb sync {tmp_path / 'wandb' / 'wandb'}/offline-run-*"
    assert places["tensorboard"] == f"tensorboard --logdir {tmp_path / 'tensorboard'}"

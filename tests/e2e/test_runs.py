"""Whole runs of the study, as a user types them.

A process of its own is for what a process alone can show: kills, signals, exit statuses, full disks. Everything else
runs here.
"""

from __future__ import annotations

import json
import pickle
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pandas as pd
import pytest
import torch
from runs import ROOT, SMALL, TRIALS, ended, interrupt, recorded, run, run_here, start, start_python, trials, until

from cemobam_core import FeatureSet


@pytest.mark.process
def test_the_demo_from_nothing_to_tables_and_again(in_folder: Path) -> None:
    out = run(*SMALL)
    assert f"{TRIALS} trials, 0 done, {TRIALS} to run" in out
    assert "synthetic" in out
    (log,) = (in_folder / "results/demo/logs").iterdir()
    assert f"log of this run:\n  {log.relative_to(in_folder)}" in out
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line["message"] == "trial done" for line in logged) == TRIALS
    written = {path.name for path in in_folder.glob("*/demo/*") if path.suffix != ".lock"} - {"logs"}
    figures = ("fig2_topk", "fig2_topk_sd", "marginal", "fusion", "ablation", "curves", "confusion")
    figures += ("confusion_difference", "errors")
    tables = ("table1", "table2", "variance", "comparisons", "agreement", "selection", "errors")
    assert written - {f"hard.{form}" for form in ("csv", "md", "tex")} == {  # written only if there are hard utterances
        *("study.db", "study.json", "trials.csv", "predictions.npz", "utterances.csv", "grid.csv", "claims.csv"),
        *("report.md", "report.html"),
        *(f"{name}.{form}" for name in figures for form in ("png", "pdf")),
        *(f"{name}.{form}" for name in tables for form in ("csv", "md", "tex")),
    }
    first = trials()
    assert len(first) == TRIALS
    assert set(first["status"]) == {"done"}
    assert set(first["dataset"]) == {"demo"}
    metrics = first.filter(regex="_(wa|ua|wf1)$")
    assert ((metrics >= 0) & (metrics <= 1)).all(axis=None)
    grid = pd.read_csv("results/demo/grid.csv")
    assert grid["n_seeds"].tolist() == [2] * 4
    chose = first[first["seed"] < 2]
    full = chose[(chose["fusion"] == "min") & (chose["modules"] == "full")]
    assert len(full) == len(chose) == 8
    by_hand = full.groupby(["k_audio", "k_text"])["test_ua"].agg(["mean", "std"]).reset_index()
    pd.testing.assert_series_equal(grid["test_ua_mean"], by_hand["mean"], check_names=False)
    pd.testing.assert_series_equal(grid["test_ua_std"], by_hand["std"], check_names=False)
    chosen = first[first["fusion"] == "max"].iloc[0][["k_audio", "k_text"]].tolist()
    best = grid.sort_values("val_wa_mean", ascending=False, kind="stable").iloc[0]
    assert [best["k_audio"], best["k_text"]] == chosen
    confirmed = first[first["seed"] >= 2]
    assert confirmed.groupby("seed").size().to_dict() == {2: 6, 3: 6}
    assert confirmed[["k_audio", "k_text"]].drop_duplicates().to_numpy().tolist() == [chosen]

    out = run(*SMALL)
    assert f"{TRIALS} trials, {TRIALS} done, 0 to run" in out
    pd.testing.assert_frame_equal(trials(), first)
    names = optuna.get_all_study_names("sqlite:///results/demo/study.db")
    assert names == ["demo/grid epochs=2", "demo/fusion epochs=2", "demo/ablation epochs=2"]

    kept = {
        path: path.read_bytes() for path in in_folder.glob("results/demo/*.*") if path.suffix not in (".db", ".lock")
    }
    for path in [*kept, *in_folder.glob("plots/demo/*")]:
        path.unlink()
    run_here("--report-only", *SMALL)
    assert {path: path.read_bytes() for path in kept} == kept
    assert "hold for the demo data alone" in out
    claims = pd.read_csv("results/demo/claims.csv").set_index("id")["verdict"]
    assert set(claims) <= {"confirmed", "equivalent", "undecided", "contradicted", "not tested"}
    assert claims["level"] == "not tested"
    assert Path("plots/demo/fig2_topk.pdf").exists()


@pytest.mark.usefixtures("without_figures")
def test_the_number_of_workers_changes_no_number(in_folder: Path) -> None:
    arguments = [*SMALL, "--blocks", "grid"]
    run_here(*arguments, "--workers", "1", "--name", "one")
    run_here(*arguments, "--workers", "2", "--name", "two")
    pd.testing.assert_frame_equal(trials("results/one"), trials("results/two"))


@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
def test_killed_it_ends_as_if_left_alone(in_folder: Path) -> None:
    process = start(*SMALL, "--seeds", "50")
    until(lambda: recorded() >= 3, "three trials are recorded", process)
    process.kill()
    process.communicate()
    assert 3 <= recorded() < TRIALS // 2 * 50
    few = max(2, recorded() // 4 + 1)  # one more seed than the grid has complete
    for name in ("demo", "undisturbed"):
        run_here(*SMALL, "--seeds", str(few), "--name", name)
    pd.testing.assert_frame_equal(trials(), trials("results/undisturbed"))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
def test_killed_again_and_again_it_ends_as_if_left_alone(in_folder: Path) -> None:
    """The run is killed between two trials, during a trial, and while the first one is prepared.

    Ten kills at random moments of a study whose trials cost nothing are in ``tests/study/test_driver.py``.
    """
    arguments = [*SMALL, "--epochs", "3"]
    lottery = random.Random(0)
    for more in (0, 1, 4):
        aim = recorded() + more
        process = start(*arguments, "--seeds", "200")
        until(lambda aim=aim: recorded() >= aim and Path("results/demo/study.db").exists(), f"{aim} trials", process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(lottery.random() / 10)
        process.kill()
        process.communicate()
    assert 5 <= recorded() < TRIALS // 2 * 200
    few = max(2, recorded() // 4 + 1)
    for name in ("demo", "undisturbed"):
        run_here(*arguments, "--seeds", str(few), "--name", name)
    pd.testing.assert_frame_equal(trials(), trials("results/undisturbed"))
    study = optuna.load_study(study_name="demo/grid epochs=3", storage="sqlite:///results/demo/study.db")
    assert len({t.user_attrs["signature"] for t in study.trials}) == len(study.trials) >= 4 * few


@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["ctrl-c", "kill"]
)
def test_interrupted_it_keeps_what_was_done_and_goes_on_from_there(in_folder: Path, sent: signal.Signals) -> None:
    process = start(*SMALL, "--seeds", "500", "--blocks", "grid")
    until(lambda: recorded() >= 3, "three trials are recorded", process)
    process.send_signal(sent)
    _, err = ended(process, status=130)
    assert "interrupted; finished trials are kept" in err
    assert "Traceback" not in err
    done = recorded()
    assert 3 <= done < 2000
    if sent == signal.SIGINT:
        few = max(2, done // 4 + 1)
        out, _ = run_here(*SMALL, "--seeds", str(few), "--blocks", "grid")
        assert f"{4 * few} trials, {min(done, 4 * few)} done" in out
        assert len(trials()) == 4 * few


MOMENTS: dict[str, Callable[[int], bool]] = {
    "modules are being imported": lambda process: "psutil" in Path(f"/proc/{process}/maps").read_text(),
    "the results folder is made": lambda _: Path("results").exists(),
    "the log is begun": lambda _: any(Path("results/demo/logs").glob("*")),
    "the first trial is recorded": lambda _: recorded() > 0,
    "the report is begun": lambda _: Path("results/demo/trials.csv").exists(),
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_at_any_moment_it_says_no_more_than_that(in_folder: Path, moment: str) -> None:
    if "imported" in moment and not Path("/proc/self/maps").exists():
        pytest.skip("Linux alone tells what a process has loaded")
    process = start(*SMALL, "--seeds", "5" if "report" in moment else "500", start_new_session=True)
    until(lambda: MOMENTS[moment](process.pid), moment, process)
    interrupt(process)
    _, err = ended(process, status=130)
    assert "Traceback" not in err


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="no such limit on Windows")
def test_a_disk_that_is_full_leaves_every_file_whole(small_study: Path) -> None:
    """As on a full disk, files cannot grow beyond the size of a table, but the report and the figures are larger."""
    before = {path: path.read_bytes() for path in small_study.glob("*/demo/*") if path.is_file()}
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
    limited += f"sys.argv[1:] = {[*SMALL, '--report-only']!r}; "
    limited += f"runpy.run_path({str(ROOT / 'run_grid.py')!r}, run_name='__main__')"
    _, err = ended(start_python("-c", limited), status=2)
    assert "free some space or give a place that can be written to" in err
    after = {path: path.read_bytes() for path in small_study.glob("*/demo/*") if path.is_file()}
    assert after.keys() == before.keys()
    for path, content in after.items():
        if path.suffix == ".csv":
            assert content == before[path]
        if path.suffix == ".png":
            assert content.endswith(b"IEND\xaeB`\x82")  # whole
    run_here(*SMALL, "--report-only")
    for path, content in before.items():
        if path.suffix in {".csv", ".md"}:
            assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.process
def test_a_reader_that_leaves_is_no_mistake(small_study: Path) -> None:
    with start(*SMALL, "--report-only") as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.wait()
        assert process.stderr.read() == ""


def test_a_plan_tells_and_leaves_nothing_behind(in_folder: Path) -> None:
    out, _ = run_here("--dry-run")
    assert "530 trials, 0 done, 530 to run" in out
    assert "grid        500 trials" in out
    assert re.search("at the K pair that (the )?grid chooses", out)
    assert "s a trial" in out
    assert list(in_folder.iterdir()) == []


def test_a_plan_counts_what_is_done(small_study: Path) -> None:
    assert f"{TRIALS} trials, {TRIALS} done, 0 to run" in run_here(*SMALL, "--dry-run")[0]
    # three seeds would choose again, but the ledger has only the trials of two of them and one pair of the third
    assert "30 trials, 9 done, 21 to run" in run_here(*SMALL, "--seeds", "3", "--dry-run")[0]


def test_trials_that_fail_are_told_recorded_and_tried_again(in_folder: Path) -> None:
    arguments = [*SMALL, "--lr", "1e30", "--seeds", "1"]
    out, err = run_here(*arguments, status=1)
    assert "failed: k_audio 1, k_text 1, fusion min, modules full, fold 0, seed 0: TrainingDiverged: the train" in err
    assert "4 failed" in out
    assert "No K pair is chosen yet" in out
    assert "Traceback" not in err
    table = pd.read_csv("results/demo/trials.csv")
    assert table["status"].tolist() == ["failed"] * 4
    assert table["test_wa"].isna().all()
    (log,) = set(table["log"])
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    (failure,) = [line for line in lines if line.get("k_audio") == 3 and line.get("k_text") == 2]
    assert "TrainingDiverged" in failure["reason"]
    assert failure["traceback"].startswith("Traceback")
    assert "TrainingDiverged: the training loss is nan" in failure["traceback"]
    assert log in Path("results/demo/report.html").read_text()
    assert "10 trials, 0 done, 10 to run" in run_here(*arguments, status=1)[0]


@pytest.mark.usefixtures("without_figures")
def test_one_file_of_the_authors_by_a_protocol(in_folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    made = [
        {
            "text_embed": torch.randn(20, generator=generator) + 2 * (i % 4),
            "audio_embed": torch.randn(20, generator=generator),
            "label": torch.tensor(i % 4),
        }
        for i in range(120)
    ]
    Path("ours.pkl").write_bytes(pickle.dumps(made))
    arguments = ["--dataset", "iemocap", "--features", "ours.pkl", *SMALL, "--hidden-dim", "8"]
    out, _ = run_here(*arguments, "--at", "paper", "--k-text", "1,7")
    assert "The given pair is K_audio = 8, K_text = 7." in out
    assert "82.17" in Path("results/iemocap/table1.md").read_text()
    assert "may be swapped" in Path("results/iemocap/table1.tex").read_text()
    _, err = run_here(*arguments, "--split-seed", "1", status=2)
    assert "was made from other features or another split" in err


@pytest.mark.slow
def test_the_gaps_between_text_and_code(in_folder: Path) -> None:
    small = ["--at", "2,3", "--seeds", "2", "--epochs", "2", "--workers", "2"]
    out, _ = run_here("--blocks", "gaps", *small)
    assert "demo (synthetic): 44 of 44 trials done" in out
    table = pd.read_csv("results/demo/gaps.csv")
    assert table["n_seeds"].tolist() == [2] * 22
    assert {path.stem for path in Path("plots/demo").iterdir()} == {"gaps", "confusion", "errors"}
    assert not Path("results/demo/grid.csv").exists()
    profiles = set(trials()["profile"])
    assert len(profiles) == 22
    assert {"paper", "released", "paper+schedule", "released+graph direction"} <= profiles
    # every switch changes the numbers of its side, if two epochs are enough to show it
    silent = {"schedule"}
    results = trials().pivot(index="profile", columns="seed", values="train_loss")
    for profile in profiles - {"paper", "released"}:
        side, _, gap = profile.partition("+")
        assert (results.loc[profile] != results.loc[side]).all() or gap in silent, profile
    # trials that blocks share are not trained again
    assert "12 trials, 2 done, 10 to run" in run_here("--blocks", "fusion,ablation", *small, "--dry-run")[0]


@pytest.mark.usefixtures("without_figures")
def test_the_released_profile_chooses_as_the_released_code_does(in_folder: Path) -> None:
    out, _ = run_here(*SMALL, "--profile", "released", "--seeds", "1")
    assert "which has the best mean w-F1 on the test split, as in the released code" in out
    grid = pd.read_csv("results/demo/grid.csv")
    best = grid.sort_values("test_wf1_mean", ascending=False, kind="stable").iloc[0]
    assert f"K_audio = {best['k_audio']:.0f}, K_text = {best['k_text']:.0f}" in out
    assert set(trials()["profile"]) == {"released"}
    names = optuna.get_all_study_names("sqlite:///results/demo/study.db")
    assert names[0] == "demo/grid profile=released,epochs=2"


@pytest.mark.usefixtures("without_figures")
def test_leave_one_session_out_is_averaged_over_folds(
    in_folder: Path, make_features: Callable[..., FeatureSet]
) -> None:
    sessions = tuple(f"Ses0{1 + i // 4 % 5}" for i in range(100))
    make_features(100, sessions=sessions).save(in_folder / "all.safetensors")
    arguments = [*SMALL, "--hidden-dim", "8", "--epochs", "1", "--blocks", "grid"]
    run_here("--dataset", "mine", "--features", "all.safetensors", "--split-protocol", "session", *arguments)
    table = trials("results/mine")
    assert len(table) == 4 * 2 * 5
    grid = pd.read_csv("results/mine/grid.csv")
    assert grid["n_seeds"].tolist() == [2] * 4
    one = table[(table["k_audio"] == 1) & (table["k_text"] == 1)]
    assert grid.at[0, "test_wa_mean"] == pytest.approx(one["test_wa"].mean())
    assert grid.at[0, "test_wa_std"] == pytest.approx(one.groupby("seed")["test_wa"].mean().std())


@pytest.mark.usefixtures("without_figures")
def test_padded_sequences_run_through_the_study(in_folder: Path, make_features: Callable[..., FeatureSet]) -> None:
    for i, name in enumerate(("train", "val", "test")):
        make_features(32, seed=i, name=name, steps=5).save(in_folder / f"f/{name}.safetensors")
    run_here("--dataset", "mine", "--features", "f", *SMALL, "--hidden-dim", "8")
    assert len(trials("results/mine")) == TRIALS


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_real_features_run_to_the_end(in_folder: Path, real_pickle: Path) -> None:
    out, _ = run_here(
        "--dataset", "iemocap", "--features", str(real_pickle), *SMALL, "--hidden-dim", "16", "--lr", "3e-3",
        "--epochs", "20", "--blocks", "grid,ablation",
    )  # fmt: skip
    assert "IEMOCAP: 14 of 14 trials done" in out
    table = trials("results/iemocap")
    assert table["train_wa"].min() > 0.5
    without_graph = table[table["modules"] == "no_chgat"]
    assert (
        without_graph["test_wa"].mean() > 0.45
    )  # there are four classes, and logistic regression gets about 0.6 to 0.7


def test_the_dashboard_reads_the_ledger(small_study: Path) -> None:
    app = optuna_dashboard.wsgi("sqlite:///results/demo/study.db")

    def get(path: str) -> str:
        environ = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
        setup_testing_defaults(environ)
        statuses: list[str] = []
        body = b"".join(app(environ, lambda status, *_: statuses.append(status))).decode()
        assert statuses == ["200 OK"], body
        return body

    assert "demo/grid epochs=2" in get("/api/studies")
    detail = get("/api/studies/1")
    for part in ("k_audio", "test_ua", "validation WA"):
        assert part in detail

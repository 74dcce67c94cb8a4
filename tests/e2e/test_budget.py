"""Tuning with one budget, as a user types it."""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.importance import get_param_importances
from own_systems import FILES, GRU
from runs import run_here, trials

from cemobam_core.systems import system_class
from study import load_results

SYSTEMS = ["--systems", "cemobam,concat_mlp,logistic", "--epochs", "2", "--workers", "2", "--seeds", "2"]


@pytest.mark.usefixtures("without_figures")
def test_systems_are_tuned_and_compared_and_a_larger_budget_goes_on(in_folder: Path) -> None:
    out, _ = run_here(*SYSTEMS, "--budget", "3", "--dry-run")
    assert "3 systems, at most 3 configurations each, seed 0" in out
    assert "tuned       what validation chooses, seeds 2" in out
    out, _ = run_here(*SYSTEMS, "--budget", "3")
    assert "of 3 configurations" in out or "tuned over 3 configurations" in out
    table = trials()
    tuning = table[table["seed"] == 0]
    assert set(table["seed"]) == {0, 2, 3}  # validation chose with seed 0; 2 and 3 are fresh
    assert set(table["status"]) == {"done"}
    found = pd.read_csv("results/demo/tuning.csv")
    for system, of in found.groupby("system"):
        best = tuning[tuning["system"] == system]["val_wa"].max()
        assert of[of["chosen"]]["val_wa"].item() == pytest.approx(100 * best)
    names = optuna.get_all_study_names("sqlite:///results/demo/study.db")
    assert "demo/tune-cemobam epochs=2" in names
    assert "demo/tuned epochs=2" in names
    # --report-only knows the options of the run, and changes nothing
    before = {path: path.read_bytes() for path in Path("results/demo").glob("t*.csv")}
    run_here("--report-only")
    assert {path: path.read_bytes() for path in Path("results/demo").glob("t*.csv")} == before
    results = load_results("results/demo")
    assert results.tuned["profile"].tolist() == ["cemobam", "concat_mlp", "logistic"]
    out, _ = run_here(*SYSTEMS, "--budget", "5")
    assert "done" in out
    assert len(pd.read_csv("results/demo/tuning.csv").query("system == 'concat_mlp'")) == 5
    # a run without a budget does not tune
    out, _ = run_here(*SYSTEMS, "--dry-run")
    assert "tuning  " not in out


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_optuna_understands_the_tuning_of_a_system(in_folder: Path) -> None:
    run_here("--systems", "concat_mlp,gcn", *SYSTEMS[2:], "--budget", "12", "--search", "tpe")
    study = optuna.load_study(study_name="demo/tpe-gcn epochs=2", storage="sqlite:///results/demo/study.db")
    ones = study.get_trials()
    assert len(ones) == 12
    searched = set(system_class("gcn").search) or {"lr", "weight_decay", "k_audio", "k_text"}
    assert all(one.params.keys() == searched for one in ones)  # the dashboard also rates constant parameters
    assert {(one.user_attrs["system"], one.user_attrs["seed"]) for one in ones} == {("gcn", 0)}
    for name in searched:
        assert len({str(one.distributions[name]) for one in ones}) == 1  # otherwise the dashboard leaves it out
    importances = get_param_importances(study, params=sorted(searched))
    assert set(importances) == searched
    assert sum(importances.values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_users_system_is_tuned(in_folder: Path) -> None:
    searching = GRU.replace("    width: int = 6", '    search = {"width": OneOf(4, 8)}\n    width: int = 6')
    Path("gru.py").write_text(searching.replace("NeuralSystem, Sizes", "NeuralSystem, OneOf, Sizes"))
    Path("nearest.py").write_text(FILES["nearest.py:Nearest"])
    run_here("--systems", ",".join(FILES), *SYSTEMS[2:], "--budget", "4")
    found = pd.read_csv("results/demo/tuning.csv").groupby("system").size().to_dict()
    assert found == {"gru.py:GRU": 3, "nearest.py:Nearest": 1}
    assert "nothing to tune" in Path("results/demo/tuning.md").read_text()
    run_here("--system", "gru.py:GRU", *SYSTEMS[2:], "--budget", "3", "--name", "one")
    assert pd.read_csv("results/one/tuned.csv")["n_seeds"].tolist()[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--search", "tpe"], "--search tpe without --budget"),
        (["--budget", "0"], "not a whole number of at least 1"),
        (["--systems", "grahps", "--budget", "2"], "no system is called 'grahps'"),
    ],
)
def test_mistakes_are_told_in_one_line(in_folder: Path, arguments: list[str], said: str) -> None:
    _, err = run_here(*arguments, status=2)
    assert said in err
    assert err.count("\n") == 1

"""``--confirm``, ``--until-clear`` and ``--rope``, as a user gives them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from runs import SMALL, run_here

from study import load_results
from study.commands.retyped import as_asked, as_typed
from study.commands.run import build_parser

FRESH = [*SMALL, "--report-only"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--confirm 5 --until-clear",
            "--confirm with --until-clear: --until-clear decides how many seeds to add; leave",
        ),
        ("--confirm 0", "argument --confirm: '0' is not a whole number of at least 1"),
        ("--confirm 2.5", "argument --confirm: '2.5' is not a whole number"),
        ("--confirm 5,6", "argument --confirm: '5,6' is not a whole number"),
        ("--rope 0", "argument --rope: '0' is not a number above 0"),
        ("--rope -1", "argument --rope"),
        ("--rope nan", "argument --rope: 'nan' is not a number above 0"),
        ("--rope 100", "argument --rope: '100' is not below 100 percentage points"),
        ("--rope one", "argument --rope: 'one'"),
        (f"--seeds {2**32 - 1},", "--seeds: 4294967295 leaves no room for fresh seeds after it; give smaller seeds"),
        (f"--seeds {2**32 - 9}, --confirm 9", "--seeds: 4294967287 leaves no room for fresh seeds after it"),
    ],
)
def test_a_mistake_is_told_in_a_line(in_folder: Path, given: str, message: str) -> None:
    _, err = run_here(*given.split(), status=2)
    (line,) = err.strip().splitlines()
    assert line.startswith(f"run_grid.py: error: {message}")
    assert list(in_folder.iterdir()) == []


def test_a_plan_names_the_fresh_seeds(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.commands.dry_run._print_time", lambda *_, **__: print("  timed"))

    def plan(arguments: str) -> list[str]:
        out, _ = run_here("--dry-run", "--k-audio", "1,2", "--k-text", "1", *arguments.split())
        return [" ".join(line.split()) for line in out.splitlines()]

    lines = plan("")
    assert "demo (synthetic): 40 trials, 0 done, 40 to run" in lines
    assert "grid 10 trials" in lines
    assert "fusion 20 trials at the K pair that grid chooses, seeds 5 to 9" in lines
    assert "ablation 15 trials at the K pair that grid chooses, seeds 5 to 9" in lines
    lines = plan("--seeds 0,1,7 --confirm 2")
    assert "fusion 8 trials at the K pair that grid chooses, seeds 8, 9" in lines
    assert "demo (synthetic): 18 trials, 0 done, 18 to run" in lines
    lines = plan("--seeds 2 --until-clear")
    assert "fusion 20 trials at the K pair that grid chooses, seeds 2 to 6" in lines
    lines = plan("--blocks fusion --at 3,3")
    assert "fusion 20 trials at K 3,3" in lines
    lines = plan("--at 2,1")
    assert "fusion 20 trials at K 2,1, seeds 5 to 9" in lines


def test_the_papers_pair_stands_beside_the_chosen_one_where_it_names_one(in_folder: Path) -> None:
    """The paper names none for the demo; without features at hand, unknown blocks tell what there is."""
    for dataset, known in (("demo", False), ("iemocap", True), ("esd", True), ("mine", False)):
        _, err = run_here("--dataset", dataset, "--blocks", "nothing", status=2)
        assert ("grid, confirm, fusion" in err) == known, err


@pytest.mark.usefixtures("without_figures")
def test_fewer_fresh_seeds_are_reported_alone(small_study: Path) -> None:
    run_here(*FRESH, "--confirm", "1")
    results = load_results("results/demo")
    assert (results.about.seeds, results.about.confirm) == ((0, 1), (2,))
    assert set(results.fusion["n_seeds"]) == {1}
    assert set(results.grid["n_seeds"]) == {2}
    markdown = Path("results/demo/report.md").read_text()
    assert "--confirm 1" in markdown.rpartition("How to reproduce this")[2]
    assert "(1 fresh seed). Fresh seeds had no part in the choice." in markdown.replace("\n", " ")


@pytest.mark.usefixtures("without_figures")
def test_a_wider_rope_changes_verdicts_and_no_number(small_study: Path) -> None:
    before = pd.read_csv("results/demo/comparisons.csv")
    run_here(*FRESH, "--rope", "99")
    after = pd.read_csv("results/demo/comparisons.csv")
    same = ["difference", "seed_low", "seed_high", "utterances_low", "utterances_high", "p", "p_holm", "d_z"]
    pd.testing.assert_frame_equal(after[same], before[same])
    assert (after["chance_same"] > before["chance_same"]).all()
    assert after["chance_same"].min() > 0.8
    # two one-sided tests: 99 points are more than enough where the error is some points
    assert "equivalent" in set(after["verdict"])
    assert "99 points" in Path("results/demo/comparisons.md").read_text()
    assert load_results("results/demo").about.rope == 99.0


@pytest.mark.parametrize("given", ["--confirm 7 --rope 2.5", "--until-clear", "--until-clear --rope 0.5"])
def test_the_options_are_kept_and_typed_again(given: str) -> None:
    args = build_parser().parse_args(given.split())
    assert as_typed(args) == f"cemobam run {given}"
    assert as_asked(args) == given.split()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_until_clear_runs_and_is_reported_from_the_ledger(in_folder: Path) -> None:
    arguments = ["--k-audio", "1", "--k-text", "1", "--seeds", "2", "--epochs", "2", "--workers", "2", "--until-clear"]
    out, _ = run_here(*arguments)
    assert "32 trials, 0 done, 32 to run" in out  # two seeds choose; six configurations have five fresh ones
    results = load_results("results/demo")
    assert results.about.looks
    counts = {n for block in results.about.blocks if block.compared for n in block.n_seeds}
    assert counts <= {5, 10, 20}
    if max(counts) > 5:
        assert "more trials, because some differences are not clear yet" in out
    kept = {path: path.read_bytes() for path in Path("results/demo").glob("*.csv")}
    for path in kept:
        path.unlink()
    run_here(*arguments, "--report-only")
    assert {path: path.read_bytes() for path in kept} == kept
    out, _ = run_here(*arguments)
    assert ", 0 to run" in out
    assert "0 to run" in run_here(*arguments, "--dry-run")[0]

"""Whole runs of a user's own studies, as a user types them: a study file, a system in a file, other values."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest
from own_systems import FILES, GRU
from runs import cemobam_here, recorded, run_here, start, trials, until

FEW = ["--seeds", "2", "--epochs", "2", "--workers", "2"]

STUDY = """\
from study import Block, Factor, papers

grid, fusion, _ = papers.cemobam.blocks
blocks = [
    grid,
    Block("width", question="How wide must it be?", factors=[Factor("hidden_dim", [8, 16])]),
    Block("rate", question="How fast may it learn?", factors=[Factor("lr", [1e-2, 1e-4])]),
    Block("plane", factors=[Factor("hidden_dim", [8, 16]), Factor("dropout", [0, 0.1])]),
    Block("systems", systems=["cemobam", "gru.py:GRU", "nearest.py:Nearest"], reference="cemobam"),
]
"""

TRIALS = {"grid": 2 * 1, "width": 2, "rate": 2, "plane": 2 * 2, "systems": 3}
"""Trials for each seed, with the pairs of :data:`PAIRS`."""

PAIRS = ["--k-audio", "1,2", "--k-text", "1"]

ONCE = 2 + 2 + 2 + 2 + 2
"""Trained trials for each seed. Blocks share some of them, but only the grid runs with the seeds that choose."""


@pytest.fixture
def study(in_folder: Path) -> list[str]:
    """Write a study file and the systems that it names to a folder, and return the options for it."""
    folder = in_folder / "studies"
    folder.mkdir()
    (folder / "own.py").write_text(STUDY)
    for name, content in FILES.items():
        (folder / name.partition(":")[0]).write_text(content)
    return ["--study", "studies/own.py", *PAIRS, *FEW]


def whole_files() -> dict[str, bytes]:
    """Return the tables of a study: all files of a report except its text, which names the command."""
    paths = [path for form in ("csv", "md", "tex") for path in Path("results").glob(f"*/*.{form}")]
    return {str(path): path.read_bytes() for path in paths if path.name != "report.md"}


def recorded_trials(study: str, name: str = "demo") -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a block as Optuna reads them, in an order that does not depend on their ends."""
    read = optuna.load_study(study_name=study, storage=f"sqlite:///results/{name}/study.db").trials
    return sorted(read, key=lambda one: (one.params["seed"], str(sorted(one.params.items()))))


def params(study: str, name: str = "demo") -> list[dict[str, object]]:
    return [one.params for one in recorded_trials(study, name)]


@pytest.mark.slow
def test_a_study_file_from_nothing_to_tables_and_again(study: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = run_here(*study)
    assert "trying studies/gru.py:GRU" in out
    assert f"{2 * ONCE} trials, 0 done, {2 * ONCE} to run" in out
    assert f"demo (synthetic): {2 * ONCE} of {2 * ONCE} trials done" in out
    table = trials()
    assert len(table) == 2 * ONCE
    assert set(table["status"]) == {"done"}
    assert {"system", "hidden_dim", "lr", "dropout", "fold", "seed"} <= set(table.columns)
    assert table["system"].value_counts().to_dict() == {
        **{"cemobam": 2 * (ONCE - 2), "gru.py:GRU": 2, "nearest.py:Nearest": 2}
    }
    own = table[table["system"] != "cemobam"]
    assert own[["k_audio", "k_text", "fusion", "modules", "hidden_dim", "dropout"]].isna().all(axis=None)
    assert own["lr"].isna().tolist() == [False, False, True, True]  # a fitted system has no learning rate
    raw = Path("results/demo/trials.csv").read_text()
    assert ",8,0.012,0.1," in raw  # whole numbers and others, in their own form
    (pair,) = {(a, t) for a, t in zip(*(table[table["lr"] == 1e-4][k] for k in ("k_audio", "k_text")), strict=True)}
    grid = pd.read_csv("results/demo/grid.csv").sort_values("val_wa_mean", ascending=False, kind="stable")
    assert pair == tuple(grid.iloc[0][["k_audio", "k_text"]])
    for block, count in TRIALS.items():
        rows = pd.read_csv(f"results/demo/{block}.csv")
        assert len(rows) == count, block
        assert rows["n_seeds"].tolist() == [2] * count
        assert len(params(f"demo/{block} epochs=2")) == 2 * count
        figure = "fig2_topk" if block == "grid" else block
        assert Path(f"plots/demo/{figure}.pdf").stat().st_size > 1000
        if block != "grid":
            assert Path(f"results/demo/{block}.md").exists()
    by_hand = table[table["system"] == "gru.py:GRU"]["test_wa"].mean()
    systems = pd.read_csv("results/demo/systems.csv").set_index("system")
    assert systems.at["gru.py:GRU", "wa_mean"] == pytest.approx(100 * by_hand, rel=1e-4)
    assert {type(one["hidden_dim"]) for one in params("demo/width epochs=2")} == {int}
    assert {one["lr"] for one in params("demo/rate epochs=2")} == {1e-2, 1e-4}
    assert {(type(one["hidden_dim"]), one["dropout"]) for one in params("demo/plane epochs=2")} == {
        (int, 0.0),
        (int, 0.1),
    }
    assert {one["system"] for one in params("demo/systems epochs=2")} == {"cemobam", *FILES}

    monkeypatch.setattr("study.output.report.drawings", lambda _: {})  # once is enough
    before = whole_files()
    assert f"{2 * ONCE} trials, {2 * ONCE} done, 0 to run" in run_here(*study)[0]
    assert whole_files() == before
    for path in before:
        Path(path).unlink()
    run_here("--report-only")  # it knows the options of the run
    assert whole_files() == before
    # seed 1 confirms now, but it chose before, so it has only those trials of other blocks that the grid has too
    out, _ = run_here("--report-only", "--seeds", "1", "--at", f"{pair[0]:.0f},{pair[1]:.0f}")
    assert f"3 of {ONCE} trials done" in out


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_blocks_of_a_study_file_are_run_one_by_one_and_share_what_they_have(study: list[str]) -> None:
    run_here(*study, "--blocks", "width", "--at", "2,1")
    out, _ = run_here(*study, "--blocks", "plane", "--at", "2,1")
    assert "8 trials, 4 done, 4 to run" in out
    out, _ = run_here(*study, "--blocks", "systems", "--at", "2,1")
    assert "6 trials, 2 done, 4 to run" in out
    assert len(pd.read_csv("results/demo/width.csv")) == 2  # blocks that were run before stay in the study
    out, _ = run_here(*study, "--blocks", "rate")  # no grid was run, so this is the usual pair
    assert "K_audio = 5, K_text = 5" in Path("results/demo/report.md").read_text()
    run_here(*study, "--blocks", "fusion", status=2)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.slow
def test_a_system_in_a_file_with_other_settings_and_over_several(study: list[str]) -> None:
    own = ["--system", "studies/gru.py:GRU", *FEW]
    out, _ = run_here(*own)
    assert "2 trials, 0 done, 2 to run" in out  # the system uses no graph, so it runs once, not for each K
    run_here(*own, "--set", "scale=2")
    out, _ = run_here(*own, "--set", "scale=2", "--set", "lr=1")
    assert "2 trials, 0 done, 2 to run" in out
    assert set(trials()["system"]) == {"gru.py:GRU"}
    names = optuna.get_all_study_names("sqlite:///results/demo/study.db")
    assert names == [
        "demo/grid system=gru.py:GRU,epochs=2",
        "demo/grid system=gru.py:GRU,epochs=2,scale=2",
        "demo/grid system=gru.py:GRU,epochs=2,scale=2,lr=1",
    ]
    out, _ = run_here(*own, "--vary", "scale=1,0.5", "--name", "varied")
    assert "4 trials, 0 done" in out
    assert [one["scale"] for one in params("varied/scale system=gru.py:GRU,epochs=2", "varied")] == [0.5, 1.0] * 2
    assert pd.read_csv("results/varied/scale.csv")["scale"].tolist() == [1.0, 0.5]
    varied, plain = trials("results/varied"), trials()
    assert set(varied["test_loss"]).isdisjoint(plain["test_loss"])
    for mistake, said in {
        "scale=-1": "scale=-1",
        "depth=2": "has no setting 'depth'; did you mean width?",
    }.items():
        _, err = run_here(*own, "--set", mistake, status=2)
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_systems_are_compared_and_more_of_them_are_added(study: list[str]) -> None:
    out, _ = run_here("--systems", "cemobam,studies/gru.py:GRU", *FEW)
    assert "4 trials, 0 done" in out
    out, _ = run_here("--systems", "logistic,studies/gru.py:GRU,cemobam,concat_mlp", *FEW)
    assert "8 trials, 4 done, 4 to run" in out
    names = ["logistic", "gru.py:GRU", "cemobam", "concat_mlp"]
    assert pd.read_csv("results/demo/systems.csv")["system"].tolist() == names
    assert sorted(str(one["system"]) for one in params("demo/systems epochs=2")) == sorted(2 * names)
    Path("studies/gru.py").write_text(f"{GRU}# edited\n")
    out, _ = run_here("--systems", "cemobam,studies/gru.py:GRU", *FEW, "--dry-run")
    assert "4 trials, 2 done, 2 to run" in out  # a file with another content is another system
    Path("studies/copy").mkdir()
    Path("studies/copy/gru.py").write_text(GRU)
    out, _ = run_here("--systems", "cemobam,studies/copy/gru.py:GRU", *FEW, "--dry-run")
    assert "4 trials, 4 done, 0 to run" in out  # the same content is the same system, in any folder


@pytest.mark.usefixtures("without_figures")
def test_values_are_added_to_a_variation(in_folder: Path) -> None:
    run_here("--vary", "lr=1e-4,1", *FEW)
    out, _ = run_here("--vary", "lr=1e-4,1,1e-6,20", *FEW)
    assert "8 trials, 4 done, 4 to run" in out
    assert sorted(map(str, (one["lr"] for one in params("demo/lr epochs=2")))) == sorted(
        2 * ["0.0001", "1.0", "1e-06", "20.0"]
    )
    out, _ = run_here("--vary", "lr=1e-4,1", "--vary", "fusion=min,max", *FEW)
    assert "8 trials, 4 done, 4 to run" in out
    frame = pd.read_csv("results/demo/lr-fusion.csv")
    assert frame[["lr", "fusion"]].to_numpy().tolist() == [[lr, f] for lr in (1e-4, 1.0) for f in ("min", "max")]
    assert len(pd.read_csv("results/demo/lr.csv")) == 4


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
def test_killed_it_ends_as_if_left_alone(study: list[str]) -> None:
    study = [*study, "--blocks", "width,rate,systems", "--at", "2,1"]
    Path("studies/own.py").write_text(STUDY.replace(', "nearest.py:Nearest"', ""))
    once = 2 + 2 + 1
    process = start(*study, "--seeds", "100")
    until(lambda: recorded() >= 3, "three trials are recorded", process)
    process.kill()
    process.communicate()
    done = recorded()
    assert 3 <= done < 100 * once
    few = max(2, done // once + 1)
    for name in ("demo", "undisturbed"):
        run_here(*study, "--seeds", str(few), "--name", name)
    pd.testing.assert_frame_equal(trials(), trials("results/undisturbed"))
    for block in ("width", "rate", "systems"):
        signatures = [one.user_attrs["signature"] for one in recorded_trials(f"demo/{block} epochs=2")]
        assert len(set(signatures)) == len(signatures) >= 2 * few


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("system", ["gru.py:GRU", pytest.param("nearest.py:Nearest", marks=pytest.mark.slow)])
def test_models_of_a_users_system_are_kept_and_label_utterances(study: list[str], system: str) -> None:
    few = FEW if "GRU" in system else ["--seeds", "2", "--workers", "2"]  # a fitted system has no epochs
    run_here("--system", f"studies/{system}", *few, "--keep-models", "best")
    first, second = sorted(Path("results/demo/models").iterdir())
    assert json.loads((first / "config.json").read_text())["system"] == system
    from cemobam_core.corpora.synthetic import demo_fold

    demo_fold().test.save(Path("test.safetensors"))
    asked = ["predict", "--model", str(second), "--features", "test.safetensors", "--to", "out.csv"]
    _, err = cemobam_here(*asked, status=2)
    assert f"add --system {second}/{system}" in err
    out, _ = cemobam_here(*asked, "--system", f"{second}/{system}")
    row = trials().set_index("seed").loc[1]
    assert f"{100 * row['test_wa']:.2f}" in out
    assert len(pd.read_csv("out.csv")) == len(demo_fold().test)


OWN = ('"gru.py:GRU", "nearest.py:Nearest"', '"gcn"')
"""The study file's own systems, which take a moment to try out, and a system that takes none."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blocks = [\n", "studies/own.py, line 1: '[' was never closed"),
        ("x = 1\nx / 0\n", "studies/own.py, line 2: ZeroDivisionError"),
        (
            "from study import Block\n\nblocks = [Block('a')]\n",
            "studies/own.py, line 3: block 'a': give either factors",
        ),
        ("x = 1\n", "studies/own.py: the file defines no blocks"),
        ("raise SystemExit\n", "studies/own.py: the file ends the program"),
        (
            STUDY.replace("hidden_dim", "hiden_dim").replace(*OWN),
            "cemobam has no setting 'hiden_dim'; did you mean hidden_dim?",
        ),
        (STUDY.replace(*OWN).replace("gcn", "gru.py:Gru"), "it has no system 'Gru'; its system is GRU"),
        (STUDY.replace(*OWN).replace("gcn", "nowhere.py:GRU"), "nowhere.py: no such file"),
    ],
    ids=["syntax", "exception", "block", "no blocks", "exit", "setting", "class", "file"],
)
def test_a_mistake_in_a_study_file_is_told_in_one_line(study: list[str], text: str, said: str) -> None:
    Path("studies/own.py").write_text(text)
    for more in ([], ["--dry-run"]):
        _, err = run_here(*study, *more, status=2)
        assert said in err
        assert err.count("\n") == 1
    assert not Path("results").exists()

"""What a user can get wrong is told in one line on standard error that says what to do, with exit status 2."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import ended, start_python

from cemobam_core import FeatureSet
from study import load_results
from study.commands import COMMANDS, cemobam, main
from study.commands.retyped import as_asked, as_typed
from study.commands.run import build_parser as run_parser
from study.design.factors import Pair

QUICK = ["--k-audio", "1", "--k-text", "1,2", "--seeds", "1", "--epochs", "1", "--workers", "1"]


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    """The one line that a mistake is told in; checks status and form."""
    try:
        assert main(arguments) == status
    except SystemExit as stop:  # argparse's own way out
        assert stop.code == status
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("run_grid.py: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k-audio", "0:10"], "argument --k-audio: '0:10' is not a list of whole numbers of at least 1; write 1:10"),
        (["--k-text", "5:4"], "--k-text: '5:4' runs backwards; write 4:5"),
        (["--k-audio", "1,3,1"], "--k-audio: '1,3,1' names 1 twice; write each value once"),
        (["--seeds", "1,1"], "--seeds: '1,1' names 1 twice"),
        (["--k-text", "1,x"], "--k-text: '1,x'"),
        (["--k-text", "-3"], "--k-text"),
        (["--seeds", "0"], "--seeds: '0' is not a number or list of seeds; write 5 for seeds 0 to 4"),
        (["--seeds", "1.5"], "--seeds: '1.5'"),
        (["--seeds", f"1,{2**32}"], "--seeds"),
        (["--blocks", "grid,all"], "unknown block 'all'; choose from grid, fusion, ablation"),
        (["--epochs", "0"], "--epochs: '0' is not a whole number of at least 1"),
        (["--lr", "nan"], "--lr: 'nan' is not a number above 0"),
        (["--lr", "-1"], "--lr"),
        (["--hidden-dim", "10"], "hidden_dim=10 must be a multiple of heads=4"),
        (["--fusion", "sum"], "invalid choice: 'sum'"),
        (["--profile", "mine"], "invalid choice: 'mine'"),
        (["--name", "a/b"], "'a/b' is not a name; use letters"),
        (["--at", "8"], "--at 8 is not a K pair; write K_audio,K_text"),
        (["--at", "0,3"], "--at 0,3"),
        (["--at", "paper"], "--at paper: the paper reports no best K pair for demo"),
        (["--device", "cuda"], "--device cuda: no CUDA device"),
        (["--precision", "tf32"], "--precision tf32"),
        (["--trial-timeout", "0"], "--trial-timeout: '0' is not a number above 0"),
        (["--engine", "dask"], "invalid choice: 'dask'"),
        (["--ray-address", "auto"], "--ray-address auto: has no effect without --engine ray"),
        (["--engine", "ray", "--ray-address", "here"], "'here' is not the address of a Ray cluster; write HOST:6379"),
        (["--engine", "ray", "--ray-address", "127.0.0.1:1"], "127.0.0.1:1: no Ray cluster can be joined there"),
        (["--split-protocol", "speaker"], "--split-protocol: the demo has its own"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag (see"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3; did you mean --epochs? (see python run_grid.py --help)"),
        (["--k_audio=1"], "unrecognized arguments: --k_audio=1; did you mean --k-audio?"),
        (
            ["--k-text", "5:600"],
            "demo (synthetic) has 240 utterances in the val split, so K can be 239 at most",
        ),
        (["--report-only"], "there is no ledger; run the study first"),
        (["--blocks", "fusion"], "fusion needs a K pair"),
        (["--storage", "nonsense"], "cannot be opened as an Optuna storage"),
        (["--dry-run", "--report-only"], "not allowed with argument"),
        (["--features", "x"], "--features without --dataset"),
        (["--dataset", "iemocap", "--features", "nowhere"], "nowhere: no such file or folder"),
        (["--dataset", "mine"], "--dataset mine: no data given"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    in_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # two of these are mistakes only without a GPU
    assert message in said(arguments, capsys)
    assert not list(in_folder.glob("**/*.csv"))
    late = ("nonsense", "fusion")  # these are known only when the ledger is opened
    if not any(word in arguments for word in late):
        assert list(in_folder.iterdir()) == []


def test_iemocap_without_features_says_what_it_is_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(["--dataset", "iemocap"], capsys)
    for part in ("IEMOCAP is", "https://sail.usc.edu/iemocap/", "licence", "--features DIR", "--features FILE", "demo"):
        assert part in line


def save_splits(folder: Path, make: Callable[..., FeatureSet], **spoil: FeatureSet) -> None:
    for i, name in enumerate(("train", "val", "test")):
        spoil.get(name, make(32, seed=i, name=name)).save(folder / f"{name}.safetensors")


def test_a_k_too_large_for_a_split_names_it(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    make_features(551).save(in_folder / "all.safetensors")
    line = said(["--dataset", "iemocap", "--features", "all.safetensors", "--k-text", "5:600"], capsys)
    assert "all.safetensors (random:80/10/10) has 55 utterances in the val split, so K can be 54 at most" in line


def test_spoilt_features_are_named(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", "mine", "--features", str(in_folder)]
    save_splits(in_folder, make_features)
    (in_folder / "val.safetensors").write_text("audio,text,label\n1,2,3\n")
    assert "val.safetensors: cannot be read as safetensors" in said(arguments, capsys)
    (in_folder / "features.csv").write_text("audio,text,label\n1,2,3\n")
    assert "features.csv: not a feature file" in said([*arguments[:-1], "features.csv"], capsys)
    labels = torch.where(torch.arange(32) % 4 == 1, 0, torch.arange(32) % 4)
    save_splits(in_folder, make_features, test=make_features(32, name="test", labels=labels))
    assert "no utterance of class 'happiness' in the test split" in said(arguments, capsys)
    assert not (in_folder / "results").exists()


@pytest.mark.usefixtures("without_figures")
def test_a_ledger_of_other_features_is_refused(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *QUICK,
        "--dataset",
        "mine",
        "--features",
        str(in_folder / "f"),
        "--blocks",
        "grid",
        "--hidden-dim",
        "8",
    ]
    save_splits(in_folder / "f", make_features)
    assert main(arguments) == 0
    capsys.readouterr()
    before = (in_folder / "results/mine/trials.csv").read_text()
    save_splits(in_folder / "f", make_features, train=make_features(32, seed=9, name="train"))
    line = said(arguments, capsys)
    assert "'mine/grid hidden_dim=8,epochs=1'" in line or "'mine/grid epochs=1,hidden_dim=8'" in line
    assert "other features" in line
    assert "--name" in line
    assert (in_folder / "results/mine/trials.csv").read_text() == before
    assert main([*arguments, "--name", "mine2"]) == 0


def test_results_that_cannot_be_written_are_told_before_anything_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "file").write_text("")
    line = said(["--results", "file/below"], capsys)
    assert "file/below" in line
    assert "give a place that can be written to" in line


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="needs a folder that nobody can write to")
def test_a_read_only_place_is_told(capsys: pytest.CaptureFixture[str], in_folder: Path) -> None:
    line = said(["--results", "/proc/sys/results"], capsys)
    assert "/proc/sys/results" in line


@pytest.mark.usefixtures("without_figures")
def test_a_full_disk_leaves_the_old_tables_whole(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*QUICK, "--blocks", "grid"]
    assert main(arguments) == 0
    before = {path: path.read_bytes() for path in in_folder.glob("results/demo/*.csv")}
    capsys.readouterr()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "results/demo/.trials.csv")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    assert "No space left on device; free some space" in said([*arguments, "--report-only"], capsys)
    assert {path: path.read_bytes() for path in in_folder.glob("results/demo/*.csv")} == before
    assert not [path.name for path in Path("results/demo").iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("without_figures")
def test_one_run_at_a_time_writes_into_a_place(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    (in_folder / "results/demo").mkdir(parents=True)
    with FileLock("results/demo/study.lock"):
        assert "another run is writing to this ledger" in said(QUICK, capsys)
    assert main([*QUICK, "--blocks", "grid"]) == 0


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in (
        "examples:",
        "--dataset iemocap --features DIR",
        "1:10 is 1 to 10",
        "exit status:",
        "some trials failed",
    ):
        assert part in text


def test_a_password_is_never_printed(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = said([*QUICK, "--storage", "postgresql://user:secret@127.0.0.1:1/x"], capsys)
    assert "secret" not in line
    assert "user:***@127.0.0.1" in line


@pytest.mark.usefixtures("without_figures")
def test_a_password_after_a_mistyped_option_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(["--storge", "postgresql://me:secret@host/x"], capsys)
    assert "secret" not in line
    assert "did you mean --storage?" in line


def test_what_is_recorded_of_the_options_is_not_of_one_machine() -> None:
    given = "--seeds 2 --plots out --workers 3 --device cpu --trial-timeout 9 --storage postgresql://me:secret@host/x"
    assert as_asked(run_parser().parse_args(given.split())) == ["--seeds", "0,1", "--plots", "out"]


def test_a_report_of_something_else_leaves_the_files_alone(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    save_splits(in_folder / "f", make_features)
    settings = [*QUICK, "--blocks", "grid", "--hidden-dim", "8", "--name", "x"]
    assert main([*settings, "--dataset", "mine", "--features", "f"]) == 0
    before = {path: path.read_bytes() for path in in_folder.glob("results/x/*.csv")}
    capsys.readouterr()
    assert "give --dataset mine" in said(["--report-only", *settings, "--dataset", "yours"], capsys)
    other = ["--report-only", *settings, "--dataset", "mine", "--k-audio", "5"]
    assert "none of the trials asked for" in said(other, capsys)
    assert "has no study 'x' with these settings; it has: --epochs 1 --hidden-dim 8" in said(
        ["--report-only", "--name", "x", "--epochs", "7"], capsys
    )
    assert {path: path.read_bytes() for path in in_folder.glob("results/x/*.csv")} == before


def test_a_report_of_other_settings_is_moved_aside_and_comes_back(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(QUICK) == 0
    before = {path.name: path.read_bytes() for path in in_folder.glob("*/demo/*.*") if path.stem != "study"}
    assert "table1.csv" in before and "fig2_topk.png" in before
    assert main([*QUICK, "--epochs", "2", "--blocks", "grid"]) == 0
    aside = "epochs=1,k_audio=1,k_text=1-2,seeds=0"
    assert f"({aside}) is kept in results/demo/{aside}/ and plots/demo/{aside}/." in capsys.readouterr().out
    names = {path.name for path in Path("results/demo").iterdir()}
    assert not any(name.startswith("table") for name in names)
    assert {"study.db", "study.lock", "trials.csv", "study.json", "grid.csv", "claims.csv", "report.html"} <= names
    kept = {path.name: path.read_bytes() for path in in_folder.glob(f"*/demo/{aside}/*.*") if path.stem != "study"}
    links = kept.pop("report.md").decode()
    assert kept == {name: content for name, content in before.items() if name != "report.md"}
    assert f"](../../../plots/demo/{aside}/fig2_topk.png)" in links
    assert load_results(f"results/demo/{aside}").about.settings["epochs"] == 1
    # More seeds of the same settings replace the report; those settings again take their own back.
    assert main([*QUICK, "--epochs", "2", "--blocks", "grid", "--seeds", "2"]) == 0
    assert "is kept" not in capsys.readouterr().out
    assert main([*QUICK, "--report-only"]) == 0
    assert [path.name for path in Path("results/demo").iterdir() if path.is_dir() and path.name != "logs"] == [
        "epochs=2,k_audio=1,k_text=1-2,seeds=0-1"
    ]
    assert Path("results/demo/table1.csv").read_bytes() == before["table1.csv"]


def test_figures_of_other_settings_go_beside_those_of_the_report(in_folder: Path) -> None:
    assert main([*QUICK, "--blocks", "grid"]) == 0
    before = Path("plots/demo/fig2_topk.png").read_bytes()
    assert cemobam(["figures", "--k-text", "2", "--only", "topk"]) == 0
    assert Path("plots/demo/fig2_topk.png").read_bytes() == before
    assert Path("plots/demo/epochs=1,k_audio=1,k_text=2,seeds=0/fig2_topk.png").exists()


def test_two_runs_do_not_share_a_ledger_at_once(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    storage = ["--storage", f"sqlite:///{in_folder / 'shared.db'}"]
    with FileLock(in_folder / "shared.lock"):
        assert "another run is writing to this ledger" in said([*QUICK, *storage, "--results", "elsewhere"], capsys)


def test_a_plan_makes_no_ledger(in_folder: Path) -> None:
    assert main([*QUICK, "--storage", "sqlite:///new.db", "--dry-run"]) == 0
    assert list(in_folder.iterdir()) == []


@pytest.mark.usefixtures("without_figures")
def test_figures_are_drawn_alone_from_the_ledger(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(QUICK) == 0
    assert cemobam(["figures", *QUICK, "--only", "topk,curves"]) == 0
    assert {path.name for path in Path("plots/demo").iterdir()} == {
        "fig2_topk.png", "fig2_topk.pdf", "curves.png", "curves.pdf"
    }  # fmt: skip
    assert cemobam(["figures", *QUICK]) == 0
    assert "topk-sd: one seed has no standard deviation" in capsys.readouterr().out
    assert Path("plots/demo/confusion.png").exists()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "heatmap", "--name", "made"],
            "--only heatmap: no such figure; choose from topk, topk-sd, marginal",
        ),
        (["--only", "topk"], "there is no ledger"),
        (["--only", "topk-sd", "--name", "made"], "--only topk-sd: one seed has no standard deviation"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(
    in_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "made" in arguments:
        assert main([*QUICK, "--name", "made"]) == 0
    capsys.readouterr()
    try:
        assert cemobam(["figures", *QUICK, *arguments]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cemobam figures: error: ")
    assert message in line


@pytest.mark.usefixtures("without_figures")
def test_what_was_asked_for_is_not_typed_again(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    save_splits(in_folder / "f", make_features)
    settings = [*QUICK, "--blocks", "grid", "--hidden-dim", "8", "--fusion", "max", "--at", "1,2"]
    assert main([*settings, "--dataset", "mine", "--features", "f"]) == 0
    first = Path("results/mine/report.md").read_text()
    for path in in_folder.glob("*/mine/*.*"):
        if path.suffix not in (".db", ".lock"):
            path.unlink()
    assert main(["--report-only"]) == 0  # from the ledger alone
    # how many workers ran it is no part of what was asked for
    assert Path("results/mine/report.md").read_text() == first.replace(" --workers 1", "")
    assert cemobam(["figures", "--only", "topk"]) == 0
    assert main([*settings, "--dataset", "mine", "--features", "f", "--epochs", "2"]) == 0
    capsys.readouterr()
    several = said(["--report-only"], capsys)
    assert "has several studies named 'mine'; choose one by its settings: " in several
    assert several.endswith("--epochs 1 --hidden-dim 8; --epochs 2 --hidden-dim 8")
    assert main(["--report-only", "--epochs", "2"]) == 0
    assert load_results("results/mine").about.settings["epochs"] == 2
    assert main(["--report-only", "--epochs", "1", "--k-text", "2"]) == 0  # an option that is given wins
    about = load_results("results/mine").about
    assert (about.settings["epochs"], about.k_text, about.fusion, about.at) == (1, (2,), "max", Pair(1, 2))


@pytest.mark.usefixtures("without_figures")
def test_of_several_studies_one_is_to_be_named(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--storage", f"sqlite:///{in_folder / 'all.db'}"]
    for name in ("one", "two"):
        assert main([*QUICK, "--blocks", "grid", "--name", name]) == 0
        assert main([*QUICK, "--blocks", "grid", "--name", name, *shared]) == 0
    capsys.readouterr()
    assert "results: has several studies; choose one: --name one, --name two" in said(["--report-only"], capsys)
    assert "all.db: has several studies; choose one" in said(["--report-only", *shared], capsys)
    assert main(["--report-only", "--name", "two"]) == 0
    assert cemobam(["dashboard"]) == 2
    assert "cemobam dashboard: error: results: has several studies" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_a_command_in_full_means_the_same_study_when_it_only_reports(in_folder: Path) -> None:
    for more in ([], ["--name", "other"]):
        assert main([*QUICK, "--blocks", "grid", *more]) == 0
    Path("results/demo/grid.csv").unlink()
    assert main([*QUICK, "--blocks", "grid", "--report-only"]) == 0
    assert Path("results/demo/grid.csv").exists()


@pytest.mark.usefixtures("without_figures")
def test_features_that_say_nothing_are_warned_of(
    in_folder: Path, make_features: Callable[..., FeatureSet], capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_features(32, seed=2, name="test")
    save_splits(in_folder / "f", make_features, test=replace(good, text=good.text * (torch.arange(32) > 2)[:, None]))
    assert main([*QUICK, "--blocks", "grid", "--hidden-dim", "8", "--dataset", "mine", "--features", "f"]) == 0
    warning = "warning: the test split: 3 of 32 utterances: the text embedding is all zeros (the first is 'test_000')"
    assert warning in capsys.readouterr().err


def test_a_plan_says_first_what_it_does_and_then_how_long_a_run_takes(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "planning the study demo …"
    assert lines[-3] == "  time        measuring, about 15 s …"
    assert "s a trial, 1 at a time" in lines[-2]
    assert re.search(r"about \d+ \w+, between \d+ \w+ and \d+ \w+: ", lines[-2])
    assert lines[-1].strip() == "(epochs timed on the train split, 640 utterances, on cpu)"
    assert main([*QUICK]) == 0
    assert "\nopen results/demo/report.html\n\ndemo (synthetic): 8 of 8 trials done" in capsys.readouterr().out
    assert main([*QUICK, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("time        none: every trial is done\n")


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["figures", "--version"]])
def test_the_version_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cemobam(arguments)
    assert stop.value.code == 0
    assert re.fullmatch(r"cemobam-study \S.*, method \d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("start", "prog", "command"),
    [
        (main, "run_grid.py", "python run_grid.py"),
        (lambda words: cemobam(["run", *words]), "cemobam run", "cemobam run"),
    ],
    ids=["script", "installed"],
)
def test_help_and_errors_name_the_command_as_it_was_started(
    capsys: pytest.CaptureFixture[str], start: Callable[[list[str]], int], prog: str, command: str
) -> None:
    with pytest.raises(SystemExit):
        start(["--help"])
    text = capsys.readouterr().out
    assert f"usage: {prog} [-h]" in text
    assert f"\n  {command} --dataset iemocap --features DIR" in text
    assert ("cemobam run" in text, "run_grid" in text) == (prog == "cemobam run", prog == "run_grid.py")
    assert start(["--at", "8"]) == 2
    assert capsys.readouterr().err.startswith(f"{prog}: error: --at 8")
    with pytest.raises(SystemExit):
        start(["--att", "8"])
    assert f"(see {command} --help)" in capsys.readouterr().err
    assert start(["--dataset", "mine"]) == 2
    assert f"{command} without options runs the demo" in capsys.readouterr().err


@pytest.mark.process
def test_help_waits_for_nothing_that_is_slow_to_import() -> None:
    code = """
import sys
from importlib import import_module
from study.commands import COMMANDS, cemobam
cemobam(["--help"])
for name in COMMANDS:
    import_module(f"study.commands.{name}").build_parser().format_help()
print(*sorted({"torch", "numpy", "pandas", "matplotlib", "optuna", "ray"} & set(sys.modules)))
"""
    out, _ = ended(start_python("-c", code))
    assert out.splitlines()[-1] == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_calls_itself_as_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cemobam([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: cemobam {name} ")
    with pytest.raises(SystemExit):
        cemobam([name, "--helpp"])
    assert capsys.readouterr().err.startswith(f"cemobam {name}: error: ")
    assert cemobam(["--help"]) == 0
    assert f"\n  {name:<9} {COMMANDS[name]}\n" in capsys.readouterr().out


def test_an_unknown_command_is_told_what_it_is_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert cemobam(["dashbord"]) == 2
    assert "unknown command 'dashbord'; did you mean dashboard?; choose from run, demo," in capsys.readouterr().err


def test_the_package_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("study", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: cemobam COMMAND")


@pytest.mark.usefixtures("without_figures")
def test_the_report_says_how_to_make_it_again(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--name", "x", "--report-only"]) == 2
    assert main([*QUICK, "--name", "x"]) == 0
    again = Path("results/x/report.md").read_text().rpartition("How to reproduce this")[2].strip().splitlines()[0]
    assert again == "python run_grid.py --k-audio 1 --k-text 1,2 --seeds 0, --epochs 1 --workers 1 --name x"
    command = again.split()[2:]
    assert main([*command, "--report-only"]) == 0
    assert cemobam(["run", *command, "--report-only"]) == 0
    again = Path("results/x/report.md").read_text().rpartition("How to reproduce this")[2].strip().splitlines()[0]
    assert again == "cemobam run --k-audio 1 --k-text 1,2 --seeds 0, --epochs 1 --workers 1 --name x"
    url = as_typed(run_parser().parse_args(["--storage", "postgresql://me:secret@host/db"]))
    assert "secret" not in url

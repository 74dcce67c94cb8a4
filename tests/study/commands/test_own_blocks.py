"""--vary, --set, --systems, --system and --study: what they run, what is recorded, and what a user can get wrong."""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd
import pytest
from own_systems import GRU
from runs import cemobam_here, ended, run_here, start_python

from cemobam_core import systems
from study import load_results
from study.commands import main
from study.commands.request import _FILES, Request
from study.commands.retyped import as_asked, as_typed
from study.commands.run import build_parser
from study.output.report import ALWAYS, OTHERS

QUICK = ["--seeds", "1", "--epochs", "1", "--workers", "1"]
GRID = ["--k-audio", "1", "--k-text", "1,2"]

STUDY = """
from study import Block, Factor

blocks = [
    Block("width", question="How wide must it be?", factors=[Factor("hidden_dim", [8, 16])]),
    Block("tricks", configurations={"as it is": {}, "two layers": {"gat_layers": 2}}, reference="as it is"),
]
"""


def mistake(*arguments: str) -> str:
    """The one line that a mistake is told in."""
    out, err = run_here(*arguments, status=2)
    (line,) = err.strip().splitlines()
    assert line.startswith("run_grid.py: error: ")
    assert not out or out.startswith("trying ")
    return line


def names(database: str = "results/demo/study.db") -> list[str]:
    return sorted(optuna.get_all_study_names(f"sqlite:///{database}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--vary hiden_dim=8,16", "block 'hiden_dim': cemobam has no setting 'hiden_dim'; did you mean hidden_dim?"),
        ("--vary depth=1,2", "cemobam has no setting 'depth'; choose from batch, batch_norm, cbam_kernel,"),
        (
            "--vary hidden_dim",
            "--vary: 'hidden_dim' is not a setting with values; write KEY=V1,V2, such as hidden_dim=128,256",
        ),
        ("--vary hidden_dim=", "--vary: 'hidden_dim=' is not a setting with values"),
        ("--vary hidden_dim=8,,16", "--vary: 'hidden_dim=8,,16' is not a setting with values"),
        ("--vary hidden_dim=8,16,8", "--vary: 'hidden_dim=8,16,8' names 8 twice; write each value once"),
        ("--vary lr=0.001,1e-3", "factor lr: the value 0.001 is given twice"),
        ("--vary hidden_dim=8,wide", "its values must be all numbers, all names, or True and False, not [8, 'wide']"),
        ("--vary hidden_dim=0,8", "hidden_dim=0 must be a whole number of at least 1"),
        ("--vary hidden_dim=8,10", "hidden_dim=10 must be a multiple of heads=4"),
        ("--vary dropout=0.1,1.5", "dropout=1.5 must be less than 1"),
        ("--vary lr=1,2 --vary lr=3,4", "two of its factors have the same name"),
        ("--vary profile=paper,mine", "profile 'mine': choose from paper, released"),
        ("--set gat_layers", "--set: 'gat_layers' is not a setting; write KEY=VALUE, such as gat_layers=2"),
        ("--set gat_layer=2", "--set: cemobam has no setting 'gat_layer'; did you mean gat_layers?"),
        ("--set lr=nan", "lr=nan must be a finite number of at least 0"),
        ("--set k_audio=3", "--set k_audio=3: give the K pair with --at, or vary it with --k-audio and --k-text"),
        ("--epochs 2 --set epochs=3", "--set epochs=3: epochs is given twice; give it once"),
        ("--set lr=1 --set lr=2", "--set lr=2: lr is given twice; give it once"),
        ("--system concat", "no system is called 'concat'; choose from audio_mlp, cemobam, "),
        ("--system Concat-MLP", "--system: 'Concat-MLP' is not a system; write a name from cemobam systems"),
        ("--system mine.py:Mine", "mine.py: no such file"),
        ("--system concat_mlp --fusion max", "--fusion: concat_mlp has no setting 'fusion'"),
        ("--system logistic --epochs 3", "--epochs: logistic has no setting 'epochs'"),
        ("--system concat_mlp --blocks fusion", "--blocks: unknown block 'fusion'; choose from grid"),
        ("--systems cemobam,concat", "no system is called 'concat'"),
        ("--systems cemobam,cemobam", "--systems: 'cemobam,cemobam' names cemobam twice; write each value once"),
        ("--systems cemobam,", "--systems: '' is not a system"),
        ("--systems concat_mlp,logistic --vary layers=1,2", "block 'layers': cemobam has no setting 'layers'"),
        ("--systems concat_mlp,logistic --set gat_heads=2", "--set: cemobam, concat_mlp, logistic has no setting"),
        ("--blocks width", "--blocks: unknown block 'width'; choose from grid, fusion, ablation, gaps"),
        ("--evaluation-graph mine", "--evaluation-graph: invalid choice: 'mine'"),
        ("--ties first", "--ties: invalid choice: 'first'"),
        ("--ties all --set ties=index", "--set ties=index: ties is given twice; give it once"),
        ("--set evaluation_size=5 --k-audio 1 --k-text 1:5", "evaluation_size=5 is too small for K 1,5"),
        ("--blocks evaluation --at 20,3", "evaluation_size=20 is too small for K 20,3: it must be at least 21"),
        ("--evaluation-graph joint --set evaluation_size=20", "with evaluation_graph=joint, leave it out"),
        ("--study nowhere.py", "--study nowhere.py: there is no such file"),
        ("--study study.py --blocks grid", "--blocks: unknown block 'grid'; choose from width, tricks"),
        ("--study study.py --vary hidden_dim=8,16 --systems gcn,mine.py:X", "mine.py: no such file"),
    ],
)
def test_a_mistake_is_told_in_one_line(in_folder: Path, arguments: str, message: str) -> None:
    (in_folder / "study.py").write_text(STUDY)
    assert message in mistake(*arguments.split())
    assert [path.name for path in in_folder.iterdir()] == ["study.py"]


@pytest.mark.process
def test_a_value_of_another_type_is_told_in_one_line(in_folder: Path) -> None:
    """In a process of its own: in this one jaxtyping checks types before the program does."""
    code = """
import sys
from study.commands import main
for words in sys.argv[1:]:
    assert main(words.split()) == 2
"""
    wrong = {
        "--vary modules=full,half": "modules='half' is not one of full, no_xcbam, no_chgat",
        "--vary gat_first_dropout=maybe,never": "gat_first_dropout='maybe' must be true or false",
        "--set gat_layers=2.5": "gat_layers=2.5 must be a whole number of at least 1",
        "--set lr=fast": "lr='fast' must be a finite number of at least 0",
        "--vary evaluation_graph=own,mine": "evaluation_graph='mine' is not one of own, anchored, joint",
        "--set dropout=true": "dropout=True must be a finite number of at least 0",
    }
    _, err = ended(start_python("-c", code, *wrong))
    assert err.splitlines() == [f"run_grid.py: error: {message}" for message in wrong.values()]
    assert list(in_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks = 3", "study.py: the file defines no blocks; write: blocks = [Block(...), ...]"),
        ("import nothing_of_the_sort", "study.py, line 1: ModuleNotFoundError: No module named 'nothing_of_the_sort'"),
        (
            "from study import Block, Factor\nblocks = [Block('trials', factors=[Factor('lr', [1e-3])])]",
            "block 'trials': the report already has a file named 'trials'; give the block another name",
        ),
        (
            "from study import Block, Factor, papers\n"
            "blocks = [*papers.cemobam.blocks, Block('topk', factors=[Factor('lr', [1e-3])])]",
            "block 'topk': block 'grid' already has a file named 'topk'; give the block another name",
        ),
        (
            "from study import Block, Factor, papers\n"
            "blocks = [*papers.cemobam.blocks, Block('Table1', factors=[Factor('lr', [1e-3])])]",
            "block 'Table1': block 'fusion' already has a file named 'table1'; give the block another name",
        ),
    ],
)
def test_a_study_file_that_cannot_be_run_says_why(in_folder: Path, text: str, message: str) -> None:
    (in_folder / "study.py").write_text(text)
    assert message in mistake("--study", "study.py")


def test_the_names_that_a_report_takes_are_kept_from_blocks() -> None:
    assert {*ALWAYS, *(name.partition(".")[0] for name in OTHERS), "trials", "study"} <= _FILES


def test_options_that_repeat_are_typed_again_as_they_were() -> None:
    given = (
        "--study a.py --vary hidden_dim=128,256 --vary lr=0.0001,0.0003 --vary gat_first_dropout=True,False "
        "--systems cemobam,concat_mlp,mine.py:MyModel --seeds 0,1 --at 8,7 --system gcn --set layers=2 "
        "--set weight_decay=1e-05 --set schedule=plateau"
    )
    args = build_parser().parse_args(given.split())
    assert as_typed(args) == f"cemobam run {given}"
    assert as_asked(args) == given.split()
    assert build_parser().parse_args(as_asked(args)) == args
    assert vars(args)["vary"] == [
        ("hidden_dim", (128, 256)), ("lr", (1e-4, 3e-4)), ("gat_first_dropout", (True, False))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "tag", "blocks"),
    [
        ("", "", "grid fusion ablation"),
        ("--set gat_layers=3 --set dropout=0.1 --fusion max", "", "grid fusion ablation"),
        ("--set gat_layers=2", "gat_layers=2", "grid fusion ablation"),
        ("--epochs 3 --set weight_decay=0", "epochs=3,weight_decay=0", "grid fusion ablation"),
        ("--set epochs=3 --profile released", "profile=released,epochs=3", "grid fusion ablation"),
        ("--system gcn", "system=gcn", "grid confirm"),
        ("--vary hidden_dim=8,16", "", "hidden_dim"),
        ("--vary hidden_dim=8,16 --vary lr=1,2 --systems gcn,logistic", "", "hidden_dim-lr systems"),
        ("--vary hidden_dim=8,16 --blocks grid", "", "grid hidden_dim"),
        ("--vary layers=1,2 --systems gcn,logistic --system gcn", "system=gcn", "layers systems"),
        ("--systems gcn,concat_mlp --set layers=2", "layers=2", "systems"),
    ],
)
def test_settings_name_the_study_and_options_its_blocks(given: str, tag: str, blocks: str) -> None:
    request = Request.of(build_parser().parse_args(given.split()))
    assert (request.tag, " ".join(request.blocks)) == (tag, blocks)


@pytest.mark.usefixtures("without_figures")
def test_a_study_of_other_settings_is_another_one_and_is_recalled(in_folder: Path) -> None:
    run_here(*QUICK, *GRID, "--blocks", "grid")
    run_here(*QUICK, *GRID, "--blocks", "grid", "--set", "gat_layers=2", "--set", "dropout=0.3")
    assert names() == ["demo/grid epochs=1", "demo/grid epochs=1,gat_layers=2,dropout=0.3"]
    first, second = "--epochs 1 --set gat_layers=3 --set dropout=0.1", "--epochs 1 --set gat_layers=2 --set dropout=0.3"
    said = mistake("--report-only")
    assert f"has several studies named 'demo'; choose one by its settings: {first}; {second}" in said
    for options, layers in ((first, 3), (second, 2)):
        run_here("--report-only", *options.split())
        assert load_results("results/demo").about.settings["gat_layers"] == layers
    assert "has no study 'demo' with these settings; it has: " in mistake("--report-only", "--set", "gat_layers=4")
    run_here("--report-only", "--set", "gat_layers=2", "--set", "dropout=0.3")
    report = Path("results/demo/report.md").read_text()
    assert "--set gat_layers=2 --set dropout=0.3" in report.rpartition("How to reproduce this")[2]


@pytest.mark.usefixtures("without_figures")
def test_a_block_that_was_run_before_stays_in_the_report(in_folder: Path) -> None:
    (in_folder / "study.py").write_text(STUDY)
    at = ["--at", "1,2"]
    run_here(*QUICK, *at, "--study", "study.py", "--blocks", "width")
    alone = load_results("results/demo")
    out, _ = run_here(*QUICK, *at, "--vary", "lr=0.001,0.01")
    assert "is kept" not in out  # the report has all that the one before had
    assert "How wide must it be?" in out
    assert names() == ["demo/lr epochs=1", "demo/width epochs=1"]
    both = load_results("results/demo")
    assert [block.name for block in both.about.blocks] == ["lr", "width"]
    told = [column for column in alone.width if column != "profile"]
    pd.testing.assert_frame_equal(both.width[told], alone.width[told])
    assert both.lr["lr"].tolist() == [0.001, 0.01]
    run_here("--report-only")
    assert [block.name for block in load_results("results/demo").about.blocks] == ["lr", "width"]
    # one figure alone
    cemobam_here("figures", "--only", "width")
    assert {path.name for path in Path("plots/demo").iterdir()} == {"width.png", "width.pdf"}
    _, err = cemobam_here("figures", "--only", "depth", status=2)
    assert err.startswith("cemobam figures: error: --only depth: no such figure; choose from lr, width, curves")


@pytest.mark.usefixtures("without_figures")
def test_systems_are_compared_on_the_same_seeds(in_folder: Path) -> None:
    (in_folder / "mine.py").write_text(GRU)
    out, _ = run_here(*QUICK, "--seeds", "2", "--systems", "cemobam,concat_mlp,logistic,mine.py:GRU")
    assert "trying mine.py:GRU …" in out
    assert "Which system is best?" in out
    assert "The pair is K_audio = 5, K_text = 5, the usual one, because none was chosen." in out
    results = load_results("results/demo")
    assert results.systems["system"].tolist() == ["cemobam", "concat_mlp", "logistic", "mine.py:GRU"]
    assert results.systems["n_seeds"].tolist() == [2] * 4
    trials = results.trials.set_index("system")
    assert trials.loc["cemobam", "k_audio"].tolist() == [5, 5]
    assert trials.loc["mine.py:GRU", ["k_audio", "fusion"]].isna().all(axis=None)
    run_here("--report-only")
    assert load_results("results/demo").about == results.about


@pytest.mark.usefixtures("without_figures")
def test_a_system_in_a_file_keeps_its_label_and_may_be_the_reference(in_folder: Path) -> None:
    (in_folder / "models").mkdir()
    (in_folder / "models" / "mine.py").write_text(GRU)
    (in_folder / "models" / "study.py").write_text(
        "from study import Block\n"
        "blocks = [Block('systems', systems=['logistic', 'mine.py:GRU'], reference='mine.py:GRU',\n"
        "    labels={'mine.py:GRU': 'My GRU'})]"
    )
    run_here(*QUICK, "--study", "models/study.py")
    (block,) = load_results("results/demo").about.blocks
    assert [row[1] for row in block.rows] == ["logistic", "mine.py:GRU"]
    assert (block.reference, block.labels) == (1, {"mine.py:GRU": "My GRU"})
    assert "| My GRU " in Path("results/demo/systems.md").read_text()


def test_a_plan_of_blocks_of_ones_own(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "study.py").write_text(STUDY)
    monkeypatch.setattr("study.commands.dry_run._print_time", lambda *_, **__: print("  timed"))

    def plan(arguments: str) -> list[str]:
        out, _ = run_here("--dry-run", "--seeds", "2", *arguments.split())
        return [line.strip() for line in out.splitlines()]

    lines = plan("--vary hidden_dim=8,16 --vary lr=0.012,0.02 --systems cemobam,logistic")
    assert lines[1] == "demo (synthetic): 10 trials, 0 done, 10 to run"  # two of them are in both blocks
    assert "hidden_dim-lr 8 trials at K 5,5" in lines
    assert "systems     4 trials at K 5,5" in lines
    lines = plan("--vary hidden_dim=8,16 --blocks grid --k-audio 1 --k-text 1,2")
    assert "grid        4 trials" in lines
    assert "hidden_dim  4 trials at the K pair that grid chooses, seeds 2, 3" in lines
    lines = plan("--study study.py --at 3,2")
    assert "width       4 trials at K 3,2" in lines
    assert "tricks      4 trials at K 3,2" in lines
    lines = plan("--vary hidden_dim=8,16 --system concat_mlp")
    assert "hidden_dim  4 trials" in lines
    assert not Path("results").exists()


def test_systems_are_listed_and_told_of(in_folder: Path) -> None:
    out, _ = cemobam_here("systems")
    told = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert set(told) == set(systems.group("all"))
    assert told["cemobam"].endswith("(graph)")
    assert told["label_propagation"].endswith("(graph, transductive)")
    assert "graph" not in told["logistic"]
    baselines = out.partition("Baselines (--systems baselines):\n")[2].partition("\n\n")[0]
    assert {"prior", "svm"} < {line.split()[0] for line in baselines.splitlines()} < set(systems.group("baselines"))
    out, _ = cemobam_here("systems", "label_propagation")
    assert "Settings of its source, which replace the profile's:\n  evaluation_graph  joint\n" in out
    assert "  alpha    0.1 to 0.99" in out
    out, _ = cemobam_here("systems", "knn")
    assert "  metric      cosine, euclidean\n" in out
    out, _ = cemobam_here("systems", "prior")
    assert "It has no settings.\n\nIt has no search space, so --budget does not tune it." in out
    out, _ = cemobam_here("systems", "gcn")
    assert "uses the graph" in out.splitlines()[0]
    settings = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line and line[0].islower()}
    assert settings["hidden_dim"].endswith("a whole number of at least 1")
    assert settings["dropout"] == "0.3 a number of at least 0"
    (in_folder / "mine.py").write_text(GRU)
    out, _ = cemobam_here("systems", "mine.py:GRU")
    assert out.startswith("mine.py:GRU (GRU, version ")
    assert "The last states of two GRUs, scaled." in out
    assert "does not use the graph, so it is trained once and not for every K" in out
    for wrong, message in (
        ("nope", f"no system is called 'nope'; choose from {', '.join(systems.names())}, or give FILE.py:NAME"),
        ("mine.py:LSTM", "mine.py: it has no system 'LSTM'; its system is GRU"),
        ("a b", "argument NAME: 'a b' is not a system"),
    ):
        _, err = cemobam_here("systems", wrong, status=2)
        (line,) = err.strip().splitlines()
        assert line.startswith("cemobam systems: error: ")
        assert message in line


def test_a_user_is_told_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--vary KEY=V1,V2", "--set KEY=VALUE", "--systems A,B", "--system NAME", "--study FILE.py"):
        assert option in text

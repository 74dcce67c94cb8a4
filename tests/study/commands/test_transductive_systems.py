"""Systems that propagate labels: where a study tells that they are transductive, and what they cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import run_here, trials

from cemobam_core import InputError
from study import load_results
from study.findings.results import read_about
from study.output.figures import labels_of

BLOCK = ["--systems", "logistic,label_propagation,correct_and_smooth", "--blocks", "systems"]
QUICK = ["--seeds", "1", "--workers", "1", "--at", "3,2"]


def test_a_study_marks_its_transductive_systems(in_folder: Path) -> None:
    out, _ = run_here(*BLOCK, *QUICK, "--hidden-dim", "8", "--epochs", "1", "--set", "correct_layers=5")
    results = load_results("results/demo")
    (block,) = (block for block in results.about.blocks if block.name == "systems")
    named = {key[0]: marked for key, marked in zip(results.keys(block), results.marked(block), strict=True)}
    assert {name for name, marked in named.items() if marked} == {"label_propagation", "correct_and_smooth"}
    assert (trials()["status"] == "done").all()
    table = Path("results/demo/systems.md").read_text()
    assert "label_propagation§" in table
    assert "correct_and_smooth§" in table
    assert "logistic§" not in table
    assert "§ Evaluation graph joint: the evaluated utterances and the training utterances" in table
    assert r"label\_propagation$^{\mathsection}$" in Path("results/demo/systems.tex").read_text()
    assert "Evaluation graph joint: label_propagation" in out
    assert [label.endswith(" (transductive)") for label in labels_of(results, block)] == results.marked(block)
    # A study of an earlier release does not say which are.
    about = Path("results/demo/study.json")
    content = json.loads(about.read_text())
    for one in content["blocks"]:
        del one["transductive"]
    about.write_text(json.dumps(content))
    assert not any(any(one.transductive) for one in read_about(about).blocks)
    content["blocks"][0]["transductive"] = [True] * 99
    about.write_text(json.dumps(content))
    with pytest.raises(InputError, match="transductive of the block"):
        read_about(about)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--system label_propagation --evaluation-graph own", "evaluation_graph=own: LabelPropagation propagates"),
        (
            "--systems gcn,correct_and_smooth --blocks systems --evaluation-graph anchored",
            "so all utterances must be ranked together; give evaluation_graph=joint",
        ),
        (
            "--system label_propagation --at 3,2 --keep-models best --seeds 1",
            "--keep-models best: label_propagation cannot be kept, because it needs the labels of the training",
        ),
    ],
)
def test_what_they_cannot_do_is_told_in_one_line(in_folder: Path, arguments: str, message: str) -> None:
    _, err = run_here(*arguments.split(), status=2)
    (line,) = err.strip().splitlines()[-1:]
    assert message in line


def test_a_study_of_one_alone_says_so_in_its_captions(in_folder: Path) -> None:
    run_here("--system", "label_propagation", "--vary", "layers=1,3", *QUICK)
    table = Path("results/demo/layers.md").read_text()
    assert "evaluation graph joint (transductive)" in table
    assert "§" not in table

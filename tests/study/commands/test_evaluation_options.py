"""--evaluation-graph and --ties: what is recorded, and where a transductive graph is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from runs import run_here, trials

from cemobam_core import FeatureSet, Fold
from study import load_results

QUICK = ["--seeds", "1", "--epochs", "1", "--hidden-dim", "8", "--workers", "1", "--at", "3,2"]


def test_a_joint_graph_is_told_wherever_it_is_shown(in_folder: Path) -> None:
    out, _ = run_here("--blocks", "fusion", "--evaluation-graph", "joint", *QUICK)
    for text in (out, Path("results/demo/report.md").read_text(), Path("results/demo/report.html").read_text()):
        assert "This is transductive: the evaluated utterances change the graph of the training utterances" in text
    assert "evaluation graph joint (transductive)" in Path("results/demo/table1.md").read_text()
    assert load_results("results/demo").about.settings["evaluation_graph"] == "joint"
    assert {path.name for path in Path("results/demo").glob("defaults*")} == set()


def test_the_graphs_are_a_factor_like_any_other(in_folder: Path) -> None:
    out, _ = run_here("--vary", "evaluation_graph=own,anchored,joint", *QUICK)
    made = trials()
    assert set(made["evaluation_graph"]) == {"own", "anchored", "joint"}
    assert made["train_loss"].nunique() == 1  # the same training
    assert made["test_loss"].nunique() == 3
    assert "Joint: the evaluated utterances and the training utterances form one graph" in out
    run_here("--vary", "ties=index,random,all", *QUICK)
    run_here("--vary", "evaluation_size=0,30", *QUICK)


def test_the_block_measures_one_training_in_several_graphs(in_folder: Path) -> None:
    run_here("--blocks", "evaluation", *QUICK)
    made = trials()
    assert made["profile"].nunique() == 5
    assert made["train_loss"].nunique() == 1
    assert made["test_loss"].nunique() == 5
    assert "joint with train (transductive)" in Path("results/demo/evaluation.md").read_text()


def test_a_usual_graph_leaves_the_study_what_it_is(in_folder: Path) -> None:
    asked = ["--blocks", "ablation", *QUICK]
    run_here(*asked)
    out, _ = run_here(*asked, "--evaluation-graph", "own", "--ties", "index")
    assert "3 trials, 3 done, 0 to run" in out
    assert "evaluation graph" not in Path("results/demo/report.md").read_text()
    out, _ = run_here(*asked, "--evaluation-graph", "anchored")
    assert "3 trials, 0 done, 3 to run" in out
    report = Path("results/demo/report.md").read_text()
    assert "Evaluation graph anchored: each test utterance is linked to its nearest" in report


def test_with_few_to_test_neighbours_may_be_sought_in_train(in_folder: Path, small_fold: Fold) -> None:
    for name, features in small_fold.splits.items():
        few = features if name == "train" else features.select(range(8), source=name)
        few.save(in_folder / "features" / f"{name}.safetensors")
    data = ["--dataset", "mine", "--features", "features", "--seeds", "1", "--epochs", "1", "--workers", "1"]
    anchored = ["--evaluation-graph", "anchored"]
    _, err = run_here("--blocks", "fusion", "--at", "9,2", *data, status=2)
    assert "8 utterances in the val split, so K can be 7 at most; or give --evaluation-graph anchored" in err
    run_here("--blocks", "fusion", "--at", "9,2", *data, *anchored)
    assert (trials("results/mine")["status"] == "done").all()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_texts_that_are_read_many_times_are_told(
    in_folder: Path, make_features: Callable[..., FeatureSet], more: list[str]
) -> None:
    for i, name in enumerate(("train", "val", "test")):
        features = make_features(40, seed=i, name=name)
        text = features.text.clone()
        text[:25] = text[0]
        replace(features, text=text).save(in_folder / "features" / f"{name}.safetensors")
    out, _ = run_here(
        *("--blocks", "grid", "--k-audio", "1", "--k-text", "1,4", "--dataset", "mine", "--features", "features"),
        *("--seeds", "1", "--epochs", "1", "--workers", "1", *more),
    )
    assert (
        "25 of 40 train utterances have more than 4 others with the same text: every K_text up to 4 only picks" in out
    )
    assert "the same audio" not in out

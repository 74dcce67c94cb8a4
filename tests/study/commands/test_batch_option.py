"""``--batch``: a study in mini-batches, beside one with the full batch."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from runs import run_here

SMALL = ("--k-audio", "2", "--k-text", "1,2", "--seeds", "2", "--epochs", "3", "--workers", "2", "--blocks", "grid")


def test_a_study_in_mini_batches_is_another_study(in_folder: Path) -> None:
    out, _ = run_here(*SMALL, "--batch", "100", "--keep-models", "all")
    assert "4 trials, 0 done, 4 to run" in out
    first = pd.read_csv("results/demo/trials.csv")
    assert list(first["status"]) == ["done"] * 4
    assert "4 done, 0 to run" in run_here(*SMALL, "--batch", "100")[0]
    assert json.loads(Path("results/demo/study.json").read_text())["settings"]["batch"] == 100
    out, _ = run_here(*SMALL, "--results", "whole")
    assert "4 trials, 0 done, 4 to run" in out
    second = pd.read_csv("whole/demo/trials.csv")
    assert (first["test_loss"] != second["test_loss"]).all()
    assert "batch 100" in run_here(*SMALL, "--batch", "100", "--dry-run")[0].replace("\n", " ")


def test_every_system_trains_in_mini_batches(in_folder: Path) -> None:
    run_here("--systems", "all", "--batch", "200", "--seeds", "1", "--epochs", "2", "--at", "2,2")
    made = pd.read_csv("results/demo/trials.csv")
    assert len(made) > 15
    assert set(made["status"]) == {"done"}


@pytest.mark.parametrize("value", ["1", "0", "half", "-3"])
def test_a_mini_batch_has_at_least_two_utterances(in_folder: Path, value: str) -> None:
    _, err = run_here("--batch", value, status=2)
    assert f"{value!r} is not a whole number of at least 2" in err

"""Probabilities that are kept if a user asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from invented import small_design
from safetensors.torch import load_file

from cemobam_core import FeatureSet, Fold
from study import Block, load_results
from study.commands import main
from study.design.design import ANY_PAIR, Design
from study.engines.execution import Attempts, StudyData
from study.engines.local import LocalEngine
from study.engines.probabilities import KeptProbabilities

Make = Callable[..., FeatureSet]

DESIGN = small_design(k_audio=(1, 2), k_text=(2,), seeds=(0, 1), hidden_dim=8, heads=2, epochs=2)
GRID = DESIGN.trials("grid", ANY_PAIR)


@pytest.fixture
def kept(tmp_path: Path) -> KeptProbabilities:
    return KeptProbabilities(folder=tmp_path / "probabilities", fingerprint="abc")


@pytest.fixture
def data(small_fold: Fold, kept: KeptProbabilities) -> StudyData:
    return StudyData.prepare((small_fold,), 2, probabilities=kept)


def read(path: Path) -> torch.Tensor:
    (probabilities,) = load_file(path).values()
    assert probabilities.dtype == torch.float16
    return probabilities.double()


def chosen_by(probabilities: torch.Tensor, predicted: torch.Tensor) -> bool:
    """Whether each predicted class has the highest probability, as far as half precision tells."""
    of_predicted = probabilities[torch.arange(len(predicted)), predicted.long()]
    return bool((of_predicted >= probabilities.amax(dim=1) - 1e-3).all())


def test_they_are_a_softmax_in_half_precision(kept: KeptProbabilities) -> None:
    kept.keep(GRID[0], torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0], [100.0, -100.0]]))
    assert kept.place(GRID[0]) == kept.folder / f"{GRID[0].signature('abc')}.safetensors"
    assert load_file(kept.place(GRID[0])).keys() == {"probabilities"}
    found = read(kept.place(GRID[0]))
    assert found.tolist() == [[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]


@pytest.mark.parametrize("in_group", [1, 3])
def test_every_trial_has_those_that_it_was_measured_by(data: StudyData, kept: KeptProbabilities, in_group: int) -> None:
    trials = GRID[:in_group]
    outcomes = Attempts(data, "cpu").attempt(tuple(trials))
    for trial, outcome in zip(trials, outcomes, strict=True):
        found = read(kept.place(trial))
        assert found.shape == (24, 4)
        assert (found.sum(dim=1) - 1).abs().max() < 2e-3
        assert chosen_by(found, torch.tensor(list(outcome.predicted)))
        loss = -found[torch.arange(24), data.folds[0].test.labels].log().mean().item()
        assert loss == pytest.approx(outcome.metrics["test_loss"], rel=2e-3)
    assert len(list(kept.folder.iterdir())) == in_group


def test_scikit_learns_probabilities_are_its_own(data: StudyData, kept: KeptProbabilities) -> None:
    design = Design(blocks={"x": Block("x", systems=["logistic"])}, seeds=(0,))
    (trial,) = design.trials("x", ANY_PAIR)
    (outcome,) = Attempts(data, "cpu").attempt((trial,))
    found = read(kept.place(trial))
    assert chosen_by(found, torch.tensor(list(outcome.predicted)))
    assert (found.sum(dim=1) - 1).abs().max() < 2e-3


def test_numbers_are_the_same_with_and_without(data: StudyData, small_fold: Fold) -> None:
    (kept,) = Attempts(data, "cpu").attempt((GRID[0],))
    (plain,) = Attempts(StudyData.prepare((small_fold,), 2), "cpu").attempt((GRID[0],))
    assert (kept.metrics, kept.predicted, kept.curve) == (plain.metrics, plain.predicted, plain.curve)


def test_workers_write_them(data: StudyData, kept: KeptProbabilities) -> None:
    with LocalEngine(data, ["cpu"] * 2) as engine:
        outcomes = dict(engine.run(GRID))
    for trial in GRID:
        assert chosen_by(read(kept.place(trial)), torch.tensor(list(outcomes[trial].predicted)))


def test_a_folder_that_cannot_be_written_to_fails_the_trial_with_its_reason(
    data: StudyData, kept: KeptProbabilities
) -> None:
    kept.folder.write_text("a file where the folder should be")
    (outcome,) = Attempts(data, "cpu").attempt((GRID[0],))
    assert outcome.status == "failed"
    assert outcome.predicted == b""
    assert "FileExistsError" in outcome.reason


SMALL = ["--k-audio", "1,3", "--k-text", "2", "--seeds", "2", "--epochs", "2", "--workers", "1", "--blocks", "grid"]


@pytest.mark.usefixtures("without_figures")
def test_a_study_keeps_those_of_the_trials_that_it_runs(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--seeds", "1"]) == 0
    assert not Path("results/demo/probabilities").exists()
    capsys.readouterr()
    assert main([*SMALL, "--keep-probabilities"]) == 0
    said = "the probabilities of 2 of 4 trials are kept under results/demo/probabilities; the others were run without"
    assert said in capsys.readouterr().out
    files = list(Path("results/demo/probabilities").iterdir())
    results = load_results("results/demo")
    labels = torch.tensor(results.utterances["label"].tolist())
    second = results.predictions[results.trials["seed"] == 1].to_numpy(int)
    for predicted in map(torch.tensor, second):
        assert sum(chosen_by(read(path), predicted) for path in files) == 1
    found = sorted((read(path).argmax(dim=1) == labels).double().mean().item() for path in files)
    assert found == pytest.approx(sorted(results.trials.loc[results.trials["seed"] == 1, "test_wa"]), abs=0.02)
    before = pd.read_csv("results/demo/trials.csv")
    assert main([*SMALL, "--report-only"]) == 0  # the option applies only to its own run
    pd.testing.assert_frame_equal(pd.read_csv("results/demo/trials.csv"), before)


@pytest.mark.parametrize("other", ["--report-only", "--dry-run"])
def test_they_are_kept_by_running_alone(in_folder: Path, capsys: pytest.CaptureFixture[str], other: str) -> None:
    assert main([*SMALL, "--keep-probabilities", other]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--keep-probabilities: only a run keeps them; leave out --report-only and --dry-run" in line


def test_a_disk_too_small_is_told_before_anything_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 15_000})  # 4 trials of 480 utterances of 4 classes take 15,360 bytes
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert main([*SMALL, "--keep-probabilities"]) == 2
    assert "--keep-probabilities: 4 trials need" in capsys.readouterr().err
    assert not Path("results/demo/probabilities").exists()

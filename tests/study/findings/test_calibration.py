"""The calibration of probabilities."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from study.findings.calibration import BINS, calibration, measured

UTTERANCES = pd.DataFrame({"fold": [0, 0, 0, 0], "label": [0, 1, 0, 1]})
SURE = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.5, 0.5]])


def write(path: Path, values: np.ndarray, name: str = "probabilities") -> Path:
    save_file({name: values.astype(np.float16)}, path)
    return path


def test_by_hand() -> None:
    made = measured({3: (SURE, np.array([0, 1, 0, 1]))})
    (seed,) = made.seeds.to_dict("records")
    assert seed["seed"] == 3
    assert seed["accuracy"] == 0.5  # the first class wins the tie
    assert seed["confidence"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.5) / 4)
    # bins: 0.9 twice, one of them correct; 0.8 correct; 0.5 wrong
    assert seed["ece"] == pytest.approx((abs(1 - 1.8) + abs(1 - 0.8) + abs(0 - 0.5)) / 4)
    assert seed["brier"] == pytest.approx((2 * 0.01 + 2 * 0.04 + 2 * 0.81 + 2 * 0.25) / 4)
    assert len(made.bins) == BINS
    there = made.bins[made.bins["share"] > 0]
    assert there["share"].tolist() == [0.25, 0.25, 0.5]
    assert there["accuracy"].tolist() == [0, 1, 0.5]
    assert np.isnan(made.by_seed[0]).sum() == BINS - 3
    assert made.utterances == 4


@pytest.mark.parametrize(("confidence", "place"), [(1 / 15, 0), (1 / 3, 4), (0.34, 5), (1.0, 14)])
def test_a_bin_holds_its_upper_end(confidence: float, place: int) -> None:
    rest = np.full(20, (1 - confidence) / 20) if confidence < 1 else np.zeros(20)
    made = measured({0: (np.array([[confidence, *rest]]), np.array([0]))})
    assert int(made.bins["share"].argmax()) == place


def test_perfect_confidence_has_no_error() -> None:
    made = measured({seed: (np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])) for seed in range(2)})
    assert made.seeds[["ece", "brier"]].to_numpy().tolist() == [[0, 0]] * 2


def test_files_are_read_and_a_seed_needs_every_fold(tmp_path: Path) -> None:
    utterances = pd.concat([UTTERANCES, UTTERANCES.assign(fold=1)], ignore_index=True)
    files = {(s, f): tmp_path / f"{s}{f}.safetensors" for s in range(2) for f in range(2)}
    for (seed, fold), path in files.items():
        if (seed, fold) != (1, 1):
            write(path, SURE)
    made = calibration(files, utterances, 2)
    assert made
    assert made.seeds["seed"].tolist() == [0]
    assert made.utterances == 8
    assert made.seeds["accuracy"].tolist() == [0.5]
    assert calibration({}, utterances, 2) is None


@pytest.mark.parametrize(
    ("values", "name", "said"),
    [
        (SURE[:3], "probabilities", "4 utterances"),
        (SURE[:, :1], "probabilities", "4 utterances"),
        (SURE * 2, "probabilities", "not probabilities"),
        (SURE * np.nan, "probabilities", "not probabilities"),
        (SURE - 1, "probabilities", "not probabilities"),
        (SURE, "logits", "no tensor"),
        (SURE.ravel(), "probabilities", "4 utterances"),
        (None, "", ""),
        (np.zeros((0, 2)), "probabilities", "4 utterances"),
    ],
)
def test_a_broken_file_is_told_in_a_line_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, values: np.ndarray | None, name: str, said: str
) -> None:
    good, bad = write(tmp_path / "0.safetensors", SURE), tmp_path / "1.safetensors"
    if values is None:
        bad.write_bytes(b"\x80\x04 no safetensors")
    else:
        write(bad, values, name)
    with caplog.at_level(logging.WARNING):
        made = calibration({(0, 0): good, (1, 0): bad}, UTTERANCES, 1)
    assert made
    assert made.seeds["seed"].tolist() == [0]
    (record,) = caplog.records
    message = record.getMessage()
    assert "1.safetensors" in message
    assert said in message
    assert "\n" not in message

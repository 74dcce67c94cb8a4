from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from cemobam_core import FeatureSet, Sizes
from cemobam_core.released import _NAMES, RELEASED, our_name
from study.commands import cemobam

Make = Callable[..., FeatureSet]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint under the authors' names, with weights of ours."""
    torch.manual_seed(0)
    system = replace(RELEASED, hidden_dim=16, fusion="max", gat_layers=4)
    ours = system.build(Sizes(audio_dim=12, text_dim=12, num_classes=4)).state_dict()
    theirs = {name: ours[our] for name in candidates() if (our := our_name(name)) in ours}
    torch.save(theirs, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def candidates() -> list[str]:
    """Every name that the authors' modules could give their weights."""
    heads = ["audio_projection", "text_projection", "gnn.conv1", "gnn.convs.0", "gnn.convs.1", "gnn.conv_last"]
    heads += ["gnn.batch_norm", "mlp"]
    for name in ("audio", "text"):
        heads += [f"cross_fusion.{name}_{part}" for part in ("attention", "linear", "layer_norm")]
        heads += [f"cross_fusion.cbam_{name}.{part}" for part in ("channel_attention_mlp", "spatial_attention")]
    tails = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "in_proj_weight", "in_proj_bias"]
    tails += ["out_proj.weight", "out_proj.bias", "att_src", "att_dst", "lin.weight"]
    return [f"{h}.{i}{t}" for h in heads for i in ("", "0.", "1.", "2.", "4.") for t in tails]


def arguments(checkpoint: Path, features: Path, *more: str) -> list[str]:
    return [
        "predict", "--released-checkpoint", str(checkpoint), "--features", str(features), "--fusion", "max",
        "--k-audio", "3", "--k-text", "2", "--to", str(features.parent / "out.csv"), *more,
    ]  # fmt: skip


def test_a_label_and_probabilities_for_every_utterance(
    checkpoint: Path, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(_NAMES) == 16
    features = make_features(30)
    features.save(tmp_path / "test.safetensors")
    assert cemobam(arguments(checkpoint, tmp_path / "test.safetensors")) == 0
    out = pd.read_csv(tmp_path / "out.csv")
    assert list(out.columns) == ["id", "predicted", "p_anger", "p_happiness", "p_neutral", "p_sadness"]
    assert out["id"].tolist() == list(features.utterance_ids)
    probabilities = out.filter(like="p_")
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert (probabilities.idxmax(axis=1).str.removeprefix("p_") == out["predicted"]).all()
    right = (out["predicted"] == [features.class_names[i] for i in features.labels]).mean()
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert ["accuracy", "WA", "UA", f"{100 * right:.2f}"] in rows
    assert ["mean recall over classes", "UA", "WA"] in [row[:3] for row in rows]


def test_labels_may_be_missing(
    checkpoint: Path, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = make_features(30)
    save_file({"audio": features.audio, "text": features.text}, tmp_path / "new.safetensors")
    assert cemobam(arguments(checkpoint, tmp_path / "new.safetensors", "--dataset", "iemocap")) == 0
    assert "no labels to compare with" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "out.csv")["predicted"]) <= {"anger", "happiness", "neutral", "sadness"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (["--dataset", "esd"], "its classes are anger, happiness, neutral, sadness, but this data set's are neutral"),
        (["--k-audio", "30"], "holds 30 utterances, but a graph of K 30,2 needs at least 31"),
        (["--to", "/proc/sys/out.csv"], "/proc/sys"),
        (["--released-checkpoint", "nowhere.pt"], "nowhere.pt: cannot be read (No such file"),
        (["--graph", "anchored"], "does not hold its training utterances; leave the option out"),
        (["--fusion", "sum"], "invalid choice: 'sum'"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    checkpoint: Path,
    make_features: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: list[str],
    message: str,
) -> None:
    make_features(30).save(tmp_path / "test.safetensors")
    try:
        assert cemobam(arguments(checkpoint, tmp_path / "test.safetensors", *spoil)) == 2
    except SystemExit as stop:
        assert stop.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cemobam predict: error: ")
    assert message in line
    assert not (tmp_path / "out.csv").exists()


def test_the_installed_command_says_what_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cemobam(["--help"]) == 0
    assert "predict" in capsys.readouterr().out
    assert cemobam(["train"]) == 2
    assert "unknown command 'train'; choose from run, demo, features" in capsys.readouterr().err
    assert cemobam([]) == 2

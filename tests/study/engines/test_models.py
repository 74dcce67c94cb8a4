from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cemobam_core import FeatureSet, Fold, InputError
from study.commands import cemobam, main
from study.design import Design, Pair, Trial, readings
from study.engines.execution import StudyData, execute
from study.engines.models import Keeping, load_embedding, load_model
from study.ledger.outcomes import Outcome

Make = Callable[..., FeatureSet]


def kept(fold: Fold, folder: Path, profile: str = "paper", modules: str = "full") -> tuple[Path, Outcome]:
    design = Design(
        readings=readings(hidden_dim=8, epochs=3, lr=1e-2), profile=profile, k_audio=(3,), k_text=(2,), seeds=(1,)
    )
    trials = design.trials("ablation", Pair(3, 2))
    trial: Trial = next(trial for trial in trials if trial.configuration.model.modules == modules)
    keeping = Keeping(folder=folder / "models", dataset="demo", fingerprint="abc")
    (outcome,) = execute((trial,), StudyData.prepare((fold,), 3, keeping=keeping), "cpu")
    assert keeping.has(trial)
    return keeping.place(trial), outcome


@pytest.fixture
def model(small_fold: Fold, tmp_path: Path) -> Path:
    return kept(small_fold, tmp_path)[0]


def predict(model: Path, features: Path, *more: str) -> list[str]:
    return [
        "predict",
        "--model",
        str(model),
        "--features",
        str(features),
        "--to",
        str(features.parent / "out.csv"),
        *more,
    ]


@pytest.mark.parametrize(
    ("profile", "modules"), [("paper", "full"), ("released", "full"), ("paper", "no_xcbam"), ("released", "no_chgat")]
)
def test_a_kept_model_labels_as_it_was_measured(
    small_fold: Fold, tmp_path: Path, profile: str, modules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outcome = kept(small_fold, tmp_path, profile, modules)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "test_embedding.safetensors",
    }
    small_fold.test.save(tmp_path / "test.safetensors")
    assert cemobam(predict(folder, tmp_path / "test.safetensors")) == 0
    out = pd.read_csv(tmp_path / "out.csv")
    assert list(out.columns) == ["id", "predicted", *(f"p_{name}" for name in small_fold.test.class_names)]
    assert out["id"].tolist() == list(small_fold.test.utterance_ids)
    right = out["predicted"] == [small_fold.test.class_names[i] for i in small_fold.test.labels]
    assert right.mean() == pytest.approx(outcome.metrics["test_wa"])
    printed = capsys.readouterr().out
    assert f"{100 * outcome.metrics['test_ua']:.2f}" in printed
    assert "authors" not in printed
    embedding = load_embedding(folder)
    assert embedding
    width = 16 if modules == "full" else 8
    assert embedding[0].shape == (len(small_fold.test), width)
    assert embedding[1].tolist() == small_fold.test.labels.tolist()


def test_classes_in_another_order_are_told_by_their_names(
    small_fold: Fold, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = small_fold.test
    other = replace(test, class_names=test.class_names[::-1], labels=3 - test.labels)
    printed = []
    for name, features in (("a", test), ("b", other)):
        features.save(tmp_path / f"{name}.safetensors")
        assert cemobam(predict(model, tmp_path / f"{name}.safetensors")) == 0
        printed.append((capsys.readouterr().out, (tmp_path / "out.csv").read_text()))
    assert printed[0] == printed[1]


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cemobam(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cemobam predict: error: ")
    return str(line)


def test_features_that_do_not_fit_are_named(
    model: Path, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.safetensors"
    make_features(20, dim=10).save(path)
    assert "its audio embeddings have 10 numbers, the model in" in said(predict(model, path), capsys)
    make_features(20, class_names=("a", "b", "c", "d")).save(path)
    assert "its classes are a, b, c, d" in said(predict(model, path), capsys)
    make_features(3, labels=torch.tensor([0, 1, 2])).save(path)
    assert "holds 3 utterances, and a graph of K 3,2 takes 4 at least" in said(predict(model, path), capsys)
    assert "leave it out with --model" in said(predict(model, path, "--k-audio", "3"), capsys)
    assert "holds no kept model" in said(predict(tmp_path, path), capsys)
    assert not (tmp_path / "out.csv").exists()


def changed(content: Any, path: str, value: Any) -> Any:
    *parents, last = path.split(".")
    inner = content
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", 1, "format is 1, this release reads 2; keep the model again"),
        ("format", None, "format is None"),
        ("utterances", None, "utterances must say how many are in train, val, test"),
        ("utterances", 24, "utterances must say how many are in train, val, test"),
        ("utterances.test", None, "utterances must say how many are in train, val, test"),
        ("utterances.test", 0, "utterances of test are '0', not a whole number of at least 1"),
        ("utterances.val", True, "utterances of val are 'True'"),
        ("utterances.test", "24", "utterances of test are '24'"),
        ("utterances.test", 24.5, "utterances of test are '24.5'"),
        ("model", None, "model must have the settings of this release"),
        ("model.heads", None, "'heads' does not fit"),
        ("model.extra", 1, "'extra' does not fit"),
        ("model.hidden_dim", 10**9, "hidden_dim=1000000000 is too large"),
        ("model.hidden_dim", -8, "hidden_dim=-8 must be a whole number"),
        ("model.gat_layers", 10**6, "gat_layers=1000000 is too large"),
        ("model.hidden_dim", "8", "hidden_dim='8' is not int"),
        ("model.dropout", "x", "dropout='x' is not float"),
        ("model.fusion", ["min"], "is not one of cls, min"),
        ("model.fusion", "sum", "fusion='sum' is not one of"),
        ("model.hidden_dim", 16, "where config.json asks for"),
        ("model.modules", "no_xcbam", "is no part of the model"),
        ("graph.gather_from", "all", "gather_from='all' is not one of"),
        ("class_names", ["a", "a", "b", "c"], "class_names must be a list of different names"),
        ("class_names", ["a", "b"], "2 class names for 4 classes"),
        ("class_names", 4, "class_names must be"),
        ("k_audio", 0, "k_audio is '0'"),
        ("k_text", True, "k_text is 'True'"),
    ],
)
def test_a_hostile_configuration_is_told_in_one_line(model: Path, where: str, value: Any, message: str) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), where, value)))
    with pytest.raises(InputError) as error:
        load_model(model)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00", "[" * 100_000, '{"format": 1}'])
def test_what_is_no_configuration_is_refused(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(model)


def test_hostile_weights_are_told_in_one_line(model: Path, tmp_path: Path) -> None:
    path = model / "model.safetensors"
    good = load_file(path)
    spoilt = {
        "is missing": {name: value for name, value in good.items() if name != "classifier.4.bias"},
        "is no part of the model": {**good, "more": torch.zeros(2)},
        "is torch.float32 (3,)": {**good, "classifier.4.bias": torch.zeros(3)},
        "torch.float64": {**good, "classifier.4.bias": torch.zeros(4, dtype=torch.float64)},
        "holds NaN or infinity": {**good, "classifier.4.bias": torch.full((4,), torch.nan)},
    }
    for message, weights in spoilt.items():
        save_file(weights, path)
        with pytest.raises(InputError) as error:
            load_model(model)
        assert message in str(error.value)
        assert "model.safetensors" in str(error.value)
    path.write_bytes(b"\x80\x04cos\nsystem\n")  # a pickle is no safetensors file, and is not run
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_model(model)
    (model / "test_embedding.safetensors").write_bytes(b"x")
    assert load_embedding(model) is None


SMALL = ["--k-audio", "1,3", "--k-text", "2", "--seeds", "2", "--epochs", "2", "--workers", "1"]


def test_models_are_kept_by_the_study_and_drawn_from(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    before = pd.read_csv("results/demo/trials.csv")
    assert not Path("results/demo/models").exists()
    capsys.readouterr()
    assert main([*SMALL, "--keep-models", "best"]) == 0  # the study is complete: only the chosen is trained again
    captured = capsys.readouterr()
    assert "2 models are kept, such as results" in captured.out
    assert "not the same" not in captured.err
    pd.testing.assert_frame_equal(pd.read_csv("results/demo/trials.csv"), before)
    folders = sorted(Path("results/demo/models").iterdir())
    assert len(folders) == 2
    content = json.loads((folders[0] / "config.json").read_text())
    row = before[(before["k_audio"] == content["k_audio"]) & (before["seed"] == 0) & (before["fusion"] == "min")]
    assert content["metrics"]["test_wa"] == row[row["modules"] == "full"]["test_wa"].iloc[0]
    assert Path("plots/demo/embedding.pdf").exists()
    assert cemobam(["figures", *SMALL, "--only", "embedding,confusion", "--plots", "elsewhere"]) == 0
    assert {path.name for path in Path("elsewhere/demo").iterdir()} == {
        "embedding.png", "embedding.pdf", "confusion.png", "confusion.pdf"
    }  # fmt: skip
    shutil.rmtree("results/demo/models")
    assert cemobam(["figures", *SMALL, "--only", "embedding"]) == 2
    assert "--keep-models best" in capsys.readouterr().err
    assert main([*SMALL, "--report-only", "--keep-models", "all"]) == 2


@pytest.mark.slow
def test_all_models_are_kept_as_they_are_trained(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--keep-models", "all"]) == 0
    assert "14 models are kept" in capsys.readouterr().out
    assert len(list(Path("results/demo/models").iterdir())) == 14


def test_a_disk_too_small_is_told_before_anything_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert main([*SMALL, "--keep-models", "all"]) == 2
    assert "14 models take" in capsys.readouterr().err
    assert not Path("results/demo/models").exists()


def test_a_model_that_gives_nan_labels_nothing(
    model: Path, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(model / "model.safetensors")
    save_file(
        {name: -x if name.endswith("running_var") else x for name, x in weights.items()}, model / "model.safetensors"
    )
    make_features(20).save(tmp_path / "x.safetensors")
    assert "gives NaN or infinity" in said(predict(model, tmp_path / "x.safetensors"), capsys)


@pytest.mark.parametrize(("n", "warned"), [(5, True), (17, True), (18, False), (24, False)])
def test_a_file_much_smaller_than_the_test_split_is_warned_of(
    model: Path, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], n: int, warned: bool
) -> None:
    make_features(n).save(tmp_path / "new.safetensors")
    assert json.loads((model / "config.json").read_text())["utterances"] == {"train": 40, "val": 24, "test": 24}
    assert cemobam(predict(model, tmp_path / "new.safetensors")) == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == n
    captured = capsys.readouterr()
    assert "warning" not in captured.out
    if not warned:
        assert captured.err == ""
        return
    (line,) = captured.err.strip().splitlines()
    assert line.startswith(f"cemobam predict: warning: {tmp_path / 'new.safetensors'}: holds {n} utterances, ")
    assert "the test split that the model was measured on had 24" in line
    assert "IEMOCAP" in line
    assert line.endswith("Label more utterances at once")


def test_a_model_without_a_graph_needs_no_company(
    small_fold: Fold, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = kept(small_fold, tmp_path, modules="no_chgat")
    make_features(5).save(tmp_path / "new.safetensors")
    assert cemobam(predict(folder, tmp_path / "new.safetensors")) == 0
    assert capsys.readouterr().err == ""


def test_a_model_of_another_format_is_not_kept(model: Path) -> None:
    class Here(Keeping):
        def place(self, trial: object) -> Path:
            return model

    keeping = Here(folder=model.parent, dataset="demo", fingerprint="")
    path = model / "config.json"
    content = json.loads(path.read_text())
    for spoilt in (json.dumps({**content, "format": 1}), "[]", "{"):
        path.write_text(spoilt)
        assert not keeping.has(None)  # type: ignore[arg-type]
    path.write_text(json.dumps(content))
    assert keeping.has(None)  # type: ignore[arg-type]


def test_a_model_without_its_weights_is_not_kept(model: Path) -> None:
    class Here(Keeping):
        def place(self, trial: object) -> Path:
            return model

    keeping = Here(folder=model.parent, dataset="demo", fingerprint="")
    assert keeping.has(None)  # type: ignore[arg-type]
    (model / "model.safetensors").unlink()
    assert not keeping.has(None)  # type: ignore[arg-type]

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from own_systems import FILES, GRU
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from cemobam_core import FeatureSet, Fold, InputError, TrainingConfig, train
from cemobam_core.systems import files
from cemobam_core.training.metrics import confusion_matrix
from study import Block
from study.commands import cemobam, main
from study.design.configuration import Trial
from study.design.design import Design
from study.design.factors import Pair
from study.engines.execution import StudyData, batches_of, execute
from study.engines.models import Keeping, load_embedding, load_model, size_in_bytes
from study.ledger.outcomes import Outcome
from study.papers.cemobam.paper import ablation

Make = Callable[..., FeatureSet]


def trial_of(system: str = "cemobam", *, profile: str = "paper", modules: str = "full", **changes: Any) -> Trial:
    sized = {} if system == "logistic" or ":" in system else {"hidden_dim": 8}
    design = Design(
        blocks={"ablation": ablation, "x": Block("x", systems=[system])},
        profile=profile,
        settings={**sized, "epochs": 3, "lr": 1e-2, **changes},
        seeds=(1,),
    )
    trials = design.trials("ablation" if system == "cemobam" else "x", Pair(3, 2))
    return next(one for one in trials if one.configuration.get("modules") in {modules, None})


def keeping_in(folder: Path) -> Keeping:
    return Keeping(folder=folder / "models", dataset="demo", fingerprint="abc")


def kept(fold: Fold, folder: Path, system: str = "cemobam", **given: Any) -> tuple[Path, Outcome]:
    """Train one model and keep it."""
    trial, keeping = trial_of(system, **given), keeping_in(folder)
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
    folder, outcome = kept(small_fold, tmp_path, profile=profile, modules=modules)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "test_embedding.safetensors",
        "train.safetensors",
    }
    small_fold.test.save(tmp_path / "test.safetensors")
    assert cemobam(predict(folder, tmp_path / "test.safetensors", "--graph", "among")) == 0
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
    among = predict(model, path, "--graph", "among")
    assert "holds 3 utterances, but a graph of K 3,2 needs at least 4" in said(among, capsys)
    make_features(20, steps=3).save(path)
    assert "its audio is float32 (20, 3, 12), but the model was trained on float32 (40, 12)" in said(
        predict(model, path), capsys
    )
    assert "leave the option out with --model" in said(predict(model, path, "--k-audio", "3"), capsys)
    assert "there is no model in this folder" in said(predict(tmp_path, path), capsys)
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
        ("format", 1, "format is 1, but this release reads 5; run the study"),
        ("format", None, "format is None"),
        ("utterances", None, "utterances must give the number of utterances of train, val, test"),
        ("utterances", 24, "utterances must give the number of utterances of train, val, test"),
        ("utterances.test", None, "utterances must give the number of utterances of train, val, test"),
        ("utterances.test", 0, "utterances of test is '0', not a whole number from 1 to 1000000000"),
        ("utterances.val", True, "utterances of val is 'True'"),
        ("utterances.test", "24", "utterances of test is '24'"),
        ("utterances.test", 24.5, "utterances of test is '24.5'"),
        ("choices", None, "choices must have the settings of this release"),
        ("choices.heads", None, "'heads' does not fit"),
        ("choices.extra", 1, "'extra' does not fit"),
        ("choices.hidden_dim", 10**9, "hidden_dim=1000000000 is too large"),
        ("choices.hidden_dim", -8, "hidden_dim=-8 must be a whole number"),
        ("choices.gat_layers", 10**6, "gat_layers=1000000 is too large"),
        ("choices.hidden_dim", "8", "hidden_dim='8' is not int"),
        ("choices.dropout", "x", "dropout='x' is not float"),
        ("choices.fusion", ["min"], "is not one of cls, min"),
        ("choices.fusion", "sum", "fusion='sum' is not one of"),
        ("choices.hidden_dim", 16, "but config.json asks for"),
        ("choices.modules", "no_xcbam", "is not part of the model"),
        ("graph.evaluation_graph", "mine", "evaluation_graph='mine' is not one of own, anchored, joint"),
        ("graph.ties", None, "graph must have the settings of this release ('ties' does not fit)"),
        ("graph.evaluation_size", 3, "evaluation_size=3 is too small for K 3,2"),
        ("graph.k_audio", 4, "'audio_nearness' is int64 (40, 3), but config.json asks for int64 (40, 4)"),
        ("seed", -1, "seed must be a whole number of at least 0, not '-1'"),
        ("seed", "1", "seed must be a whole number of at least 0, not '1'"),
        ("seed", None, "seed must be a whole number of at least 0, not 'None'"),
        ("utterances.train", 41, "'labels' is int64 (40,), but config.json asks for 41 labels"),
        ("graph.gather_from", "all", "gather_from='all' is not one of"),
        ("class_names", ["a", "a", "b", "c"], "class_names must be a list of different names"),
        ("class_names", ["a", "b"], "2 class names for 4 classes"),
        ("class_names", 4, "class_names must be"),
        ("class_names", ["a", "b", "c", 4], "class_names must be a list of different names"),
        ("graph", [3], "graph must have the settings of this release"),
        ("graph.k_audio", 0, "k_audio=0 must be a whole number of at least 1"),
        ("graph.k_text", True, "k_text='True' is not int"),
        ("graph.k_text", 10**9, "k_text=1000000000 is too large; at most 65536 is allowed"),
        ("sizes", None, "sizes must have the settings of this release"),
        ("sizes.audio_dim", 0, "audio_dim=0 is not at least 1"),
        ("sizes.text_dim", "12", "text_dim='12' is not int"),
        ("sizes.num_classes", 5, "4 class names for 5 classes"),
        ("system", None, "system must be the name of a system, not 'None'"),
        ("system", ["cemobam"], "system must be the name of a system"),
        ("system", "cemobam\n", "system must be the name of a system"),
        ("system", "no_such", "no system is called 'no_such'"),
        ("system", "../evil", "system must be the name of a system, not '../evil'"),
        ("system", "/tmp/evil.py:Evil", "system must be the name of a system, not '/tmp/evil.py:Evil'"),
        ("system", "evil.py:Evil()", "system must be the name of a system, not 'evil.py:Evil()'"),
        ("system", "evil:Evil", "system must be the name of a system, not 'evil:Evil'"),
        ("system", "system", "no system is called 'system'"),
        ("system", "concat_mlp", "choices must have the settings of this release"),
        (
            "system",
            "evil.py:Evil",
            "system is evil.py:Evil, which is in a Python file that would be run; if you trust the file, add",
        ),
        ("encoders", [], "encoders must have audio, text and settings"),
        ("encoders", {"audio": {}, "text": {}}, "encoders must have audio, text and settings"),
        ("version", "2", "was made by another version of cemobam (another release of the tool changed it)"),
        ("version", None, "was made by another version of cemobam"),
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
        "is not part of the model": {**good, "more": torch.zeros(2)},
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
    path.write_bytes(b"\x80\x04cos\nsystem\n")  # a pickle is not a safetensors file, and is not run
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
    assert main([*SMALL, "--keep-models", "best"]) == 0  # the study is complete: only the chosen model is trained again
    captured = capsys.readouterr()
    assert "2 models are kept, such as results" in captured.out
    assert "not the same" not in captured.err
    pd.testing.assert_frame_equal(pd.read_csv("results/demo/trials.csv"), before)
    folders = sorted(Path("results/demo/models").iterdir())
    assert len(folders) == 2
    content = json.loads((folders[0] / "config.json").read_text())
    at = before["k_audio"] == content["graph"]["k_audio"]
    assert sorted(json.loads((folder / "config.json").read_text())["seed"] for folder in folders) == [2, 3]
    row = before[at & (before["seed"] == content["seed"]) & (before["fusion"] == "min")]
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
    assert "16 models are kept" in capsys.readouterr().out
    assert len(list(Path("results/demo/models").iterdir())) == 16


def test_a_disk_too_small_is_told_before_anything_runs(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert main([*SMALL, "--keep-models", "all"]) == 2
    assert "16 models need" in capsys.readouterr().err
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
    assert cemobam(predict(model, tmp_path / "new.safetensors", "--graph", "among")) == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == n
    captured = capsys.readouterr()
    assert "warning" not in captured.out
    if not warned:
        assert captured.err == ""
        return
    (line,) = captured.err.strip().splitlines()
    assert line.startswith(f"cemobam predict: warning: {tmp_path / 'new.safetensors'}: holds {n} utterances, ")
    assert "the model was evaluated on a test split of 24" in line
    assert "IEMOCAP" in line
    assert line.endswith("Label more utterances at once, or leave --graph among out")


def test_a_model_without_a_graph_needs_no_company(
    small_fold: Fold, make_features: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = kept(small_fold, tmp_path, modules="no_chgat")
    make_features(5).save(tmp_path / "new.safetensors")
    for more in ([], ["--graph", "among"], ["--graph", "anchored"]):
        assert cemobam(predict(folder, tmp_path / "new.safetensors", *more)) == 0
        assert capsys.readouterr().err == ""


# Utterances labelled one by one, each in the graph of the training utterances.


@pytest.mark.parametrize("profile", ["paper", "released"])
@pytest.mark.parametrize("ties", ["index", "random", "all"])
def test_one_by_one_is_all_at_once_and_as_it_was_measured(
    small_fold: Fold, tmp_path: Path, profile: str, ties: str
) -> None:
    folder, outcome = kept(small_fold, tmp_path, profile=profile, evaluation_graph="anchored", ties=ties)
    test, out = small_fold.test, tmp_path / "out.csv"
    test.save(tmp_path / "test.safetensors")
    assert cemobam(predict(folder, tmp_path / "test.safetensors")) == 0
    at_once = pd.read_csv(out)
    labels = torch.tensor([test.class_names.index(name) for name in at_once["predicted"]])
    measured = confusion_matrix(test.labels, labels, 4)
    assert tuple(map(tuple, measured.tolist())) == outcome.confusion
    for i in range(0, len(test), 5):
        test.select([i], source="one").save(tmp_path / "one.safetensors")
        assert cemobam(predict(folder, tmp_path / "one.safetensors")) == 0
        (alone,) = pd.read_csv(out).itertuples(index=False)
        among = next(at_once.iloc[[i]].itertuples(index=False))
        assert alone[:2] == among[:2]
        assert alone[2:] == pytest.approx(among[2:], abs=1e-5)
    vectors, labels = load_embedding(folder) or (None, None)
    assert vectors is not None
    assert len(vectors) == len(test)


def test_sequences_of_another_length_are_labelled_one_by_one(tmp_path: Path, make_features: Make) -> None:
    fold = Fold(
        train=make_features(40, seed=1, name="train", steps=4),
        val=make_features(24, seed=2, name="val", steps=6),
        test=make_features(24, seed=3, name="test", steps=3),
    )
    folder, outcome = kept(fold, tmp_path, evaluation_graph="anchored")
    fold.test.save(tmp_path / "test.safetensors")
    assert cemobam(predict(folder, tmp_path / "test.safetensors")) == 0
    predicted = pd.read_csv(tmp_path / "out.csv")["predicted"]
    right = (predicted == [fold.test.class_names[i] for i in fold.test.labels]).mean()
    assert right == pytest.approx(outcome.metrics["test_wa"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.pop("edge_index"), "'edge_index' is missing"),
        (lambda x: x.pop("labels"), "'labels' is missing"),
        (lambda x: x["labels"].fill_(4), "has label 4, but the classes are 0 anger"),
        (lambda x: x.update(more=torch.zeros(1)), "'more' does not belong there"),
        (lambda x: x["edge_index"].fill_(40), "'edge_index' is int64 (2, "),
        (lambda x: x["edge_index"].fill_(-1), "but config.json asks for int64 edges of 40 utterances"),
        (lambda x: x.update(edge_index=x["edge_index"][:1]), "'edge_index' is int64 (1, "),
        (lambda x: x.update(edge_index=x["edge_index"].float()), "'edge_index' is float32"),
        (lambda x: x.update(audio=x["audio"][:, :5].contiguous()), "asks for embeddings of 12 numbers"),
        (lambda x: x.update(text=x["text"][:5]), "5 text embeddings for 40 labels"),
        (lambda x: x["text"].fill_(float("nan")), "holds NaN or infinity"),
        (lambda x: x.update(audio_mask=torch.ones(40, 1).bool()), "with audio_mask"),
        (lambda x: x.update(text_nearness=x["text_nearness"].flip(1).contiguous()), "best first"),
        (lambda x: x.update(audio_nearness=x["audio_nearness"].float()), "'audio_nearness' is float32 (40, 3)"),
    ],
)
def test_spoilt_training_utterances_are_refused(
    model: Path, spoil: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    tensors = load_file(model / "train.safetensors")
    spoil(tensors)
    save_file(tensors, model / "train.safetensors")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_model(model)
    assert str(model / "train.safetensors") in str(error.value)


def test_more_neighbours_than_training_utterances_are_refused(model: Path) -> None:
    tensors = load_file(model / "train.safetensors")
    for name in ("audio_nearness", "text_nearness"):
        tensors[name] = torch.zeros(40, 40, dtype=torch.int64)
    save_file(tensors, model / "train.safetensors")
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(changed(content, "graph.k_audio", 40)))
    with pytest.raises(InputError, match=r"K is 40,2, but only 40 utterances were trained on"):
        load_model(model)


def test_without_its_training_utterances_a_model_is_not_kept(model: Path, tmp_path: Path) -> None:
    (model / "train.safetensors").unlink()
    assert not keeping_in(tmp_path).has(trial_of())
    with pytest.raises(InputError, match=r"train\.safetensors: cannot be read \(No such file"):
        load_model(model)


def test_the_size_of_a_kept_model_is_known_before(model: Path, small_fold: Fold) -> None:
    configuration = trial_of().configuration
    size = size_in_bytes(configuration.system, configuration.graph, small_fold.train)
    files = sum((model / name).stat().st_size for name in ("model.safetensors", "train.safetensors"))
    assert 0.8 * size < files < 1.5 * size  # at this size, the headers of the files matter
    assert size_in_bytes(configuration.system, None, small_fold.train) < size


def test_a_model_of_another_format_or_without_its_weights_is_not_kept(model: Path, tmp_path: Path) -> None:
    trial, keeping = trial_of(), keeping_in(tmp_path)
    path = model / "config.json"
    content = json.loads(path.read_text())
    for spoilt in (json.dumps({**content, "format": 1}), "[]", "{"):
        path.write_text(spoilt)
        assert not keeping.has(trial)
    path.write_text(json.dumps(content))
    assert keeping.has(trial)
    (model / "model.safetensors").unlink()
    assert not keeping.has(trial)


# Other systems than CemoBAM: the tool's own and a user's.

SYSTEMS = ["cemobam", "concat_mlp", "gcn", "gatv2", "logistic", "svm", "knn", "prior", *FILES]


@pytest.fixture
def with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with the users' files in it."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name.partition(":")[0]).write_text(content)
    return tmp_path


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_model_of_any_system_gives_the_same_logits(small_fold: Fold, with_files: Path, system: str) -> None:
    trial, data = trial_of(system), StudyData.prepare((small_fold,), 3)
    folder, outcome = kept(small_fold, with_files, system)
    there = {"config.json", "test_embedding.safetensors"}
    there |= {"estimator.skops" if trial.configuration.training is None else "model.safetensors"}
    there |= {"train.safetensors"} if trial.configuration.graph else set()
    there |= {system.partition(":")[0]} if ":" in system else set()
    assert {path.name for path in folder.iterdir()} == there
    assert folder.name.startswith(f"{system.rpartition(':')[2]}_" + ("k3-2_" if trial.configuration.graph else "fold0"))
    batches = batches_of(trial, data)
    again = train(
        trial.configuration.system, batches, training=trial.configuration.training or TrainingConfig(), seed=trial.seed
    )
    before = torch.random.get_rng_state()
    found = load_model(folder, str(folder / system) if ":" in system else None)
    assert torch.equal(torch.random.get_rng_state(), before)  # reading a model draws no random numbers
    with torch.no_grad():
        logits = found.model(batches["test"].inputs)
        assert torch.equal(logits, again.model(batches["test"].inputs))
    right = (logits.argmax(1) == small_fold.test.labels).float().mean().item()
    assert right == pytest.approx(outcome.metrics["test_wa"])
    assert found.graph == trial.configuration.graph
    assert found.counts == {"train": 40, "val": 24, "test": 24}
    embedding = load_embedding(folder)
    assert embedding
    assert embedding[1].tolist() == small_fold.test.labels.tolist()


def test_a_model_of_a_users_file_is_read_with_the_file_alone(
    small_fold: Fold, with_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = GRU + "\n\nfrom pathlib import Path\nPath('was_run').touch()\n"
    Path("gru.py").write_text(noisy)
    folder, _ = kept(small_fold, with_files, "gru.py:GRU", width=3)
    small_fold.test.save(with_files / "test.safetensors")
    forget_files()
    Path("was_run").unlink()
    asked = predict(folder, with_files / "test.safetensors")
    refusals = {
        (): f"in a Python file that would be run; if you trust the file, add --system {folder}/gru.py:GRU",
        ("--system", "cemobam"): "the model's system is gru.py:GRU; give the file that defines it",
        ("--system", "gru.py:Other"): "--system gru.py:Other: the model's system is gru.py:GRU; give FILE.py:GRU",
        ("--system", "nowhere.py:GRU"): "--system nowhere.py:GRU: cannot be read (No such file or directory)",
    }
    for more, message in refusals.items():
        assert message in said([*asked, *more], capsys)
    Path("edited.py").write_text(noisy + "# a comment\n")
    refusal = said([*asked, "--system", "edited.py:GRU"], capsys)
    assert "was made by another version of edited.py:GRU (its file was changed)" in refusal
    assert not Path("was_run").exists()  # no refused file was run
    Path("renamed.py").write_text(noisy)
    for path in (folder / "gru.py", Path("gru.py"), Path("renamed.py")):
        forget_files()
        assert cemobam([*asked, "--system", f"{path}:GRU"]) == 0
        assert Path("was_run").exists()
    out = pd.read_csv("out.csv")
    assert out["id"].tolist() == list(small_fold.test.utterance_ids)
    assert out.filter(like="p_").sum(axis=1).tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    capsys.readouterr()
    (with_files / "theirs").mkdir()
    ours, _ = kept(small_fold, with_files / "theirs")
    asked = predict(ours, with_files / "test.safetensors", "--system", "gru.py:GRU")
    assert "the model's system is the tool's own cemobam; leave the option out" in said(asked, capsys)


def forget_files() -> None:
    """Forget the users' files that were run in this process, as in a new process."""
    for module in list(files._LOADED):
        del files._LOADED[module], sys.modules[module]


@pytest.mark.parametrize("system", ["logistic", "nearest.py:Nearest"])
def test_a_hostile_estimator_is_told_in_one_line(small_fold: Fold, with_files: Path, system: str) -> None:
    folder, _ = kept(small_fold, with_files, system)
    path, given = folder / "estimator.skops", str(folder / system) if ":" in system else None
    good = path.read_bytes()
    other = io.BytesIO()
    skops.io.dump(Untrusted(), other)
    function = io.BytesIO()
    skops.io.dump(FunctionTransformer(func=os.system), function)
    spoilt = {
        "another class": other.getvalue(),
        "a function": function.getvalue(),
        "a pickle": pickle.dumps(Touches()),
        "cut off": good[: len(good) // 2],
        "one byte": good[:-1],
        "empty": b"",
        "text": b"estimator",
    }
    for content in spoilt.values():
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load_model(folder, given)
        refusal = r"estimator\.skops: (contains .*(Untrusted|system)|cannot be read as a skops file)"
        assert re.search(refusal, str(error.value))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600
    assert not Path("touched").exists()
    path.unlink()
    with pytest.raises(InputError, match="there is no model in this folder"):
        load_model(folder, given)


class Untrusted(BaseEstimator):
    """An estimator that skops does not know."""


class Touches:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch touched",)


def test_weights_beside_a_configuration_of_another_kind_are_refused(small_fold: Fold, with_files: Path) -> None:
    neural, _ = kept(small_fold, with_files, "concat_mlp")
    fitted, _ = kept(small_fold, with_files, "logistic")
    configurations = {folder: (folder / "config.json").read_text() for folder in (neural, fitted)}
    for folder, other in ((neural, fitted), (fitted, neural)):
        (folder / "config.json").write_text(configurations[other])
        with pytest.raises(InputError, match="cannot be read"):
            load_model(folder)


# What fits together nowhere.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph.k_audio": 40}, "K is 40,2, but only 40 utterances were trained on"),
        ({"graph.k_audio": 10**6}, "k_audio=1000000 is too large"),
        ({"utterances.train": 10**9}, "config.json asks for 1000000000 labels"),
        ({"utterances.test": 10**400}, "utterances of test is '1000"),
        ({"choices.dropout": -(10**400)}, "dropout=-1000"),
        ({"choices.hidden_dim": 65_536}, "config.json asks for torch.float32 (65536,)"),
        ({"choices.hidden_dim": 65_536, "choices.gat_layers": 64}, "is missing"),
        ({"sizes.audio_dim": 65_536}, "config.json asks for torch.float32 (8, 65536)"),
        ({"class_names": ["a", "b", "c", "\x1b[31m"]}, "class_names must be a list of different names"),
        ({"metrics": [[[[]]]] * 3}, ""),
    ],
)
def test_numbers_that_do_not_fit_the_weights(model: Path, changes: dict[str, Any], message: str) -> None:
    path = model / "config.json"
    content = json.loads(path.read_text())
    for where, value in changes.items():
        content = changed(content, where, value)
    path.write_text(json.dumps(content))
    if not message:
        load_model(model)
        return
    with pytest.raises(InputError, match=re.escape(message)):
        load_model(model)


def test_a_model_of_a_system_that_is_not_kept(model: Path) -> None:
    path = model / "config.json"
    content = json.loads(path.read_text())
    choices = {"layers": 50, "alpha": 0.9}
    path.write_text(json.dumps({**content, "system": "label_propagation", "version": "1", "choices": choices}))
    with pytest.raises(InputError, match=r"config\.json: models of the system label_propagation are not kept"):
        load_model(model)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "train.safetensors"])
def test_a_pipe_is_not_waited_for(model: Path, name: str, tmp_path: Path) -> None:
    (model / name).unlink()
    os.mkfifo(model / name)
    with pytest.raises(InputError, match=f"{name}: is a pipe"):
        load_model(model)
    assert not keeping_in(tmp_path).has(trial_of())


def spoilt_knn(**attributes: Any) -> Any:
    x, y = np.random.default_rng(0).standard_normal((24, 24)), np.arange(24) % 4
    pipeline = make_pipeline(StandardScaler(), KNeighborsClassifier(3, algorithm="brute")).fit(x, y)
    for name, value in attributes.items():
        setattr(pipeline[-1], name, value)
    return pipeline


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ({"classes_": [0, 1]}, "holds dict, but config.json asks for Pipeline, StandardScaler, KNeighborsClassifier"),
        (make_pipeline(StandardScaler(), LinearSVC()), "holds Pipeline, StandardScaler, LinearSVC, but"),
        (spoilt_knn(classes_=np.array([0, 1, 2, 10**9])), "its classes are not among the 4 of config.json"),
        (spoilt_knn(classes_=np.array([0, 1, 2, -1])), "its classes are not among the 4"),
        (spoilt_knn(classes_=np.array([])), "its classes are not among the 4"),
        (spoilt_knn(n_neighbors=10**6), "cannot be read (ValueError"),
        (spoilt_knn(_fit_X=np.zeros((24, 3))), "cannot be read (ValueError"),
        (spoilt_knn(_y=np.full(24, 10**9)), "cannot be read (IndexError"),
    ],
)
def test_an_estimator_of_another_kind_is_refused(
    small_fold: Fold, tmp_path: Path, estimator: Any, message: str
) -> None:
    folder, _ = kept(small_fold, tmp_path, "knn")
    skops.io.dump(spoilt_knn(), folder / "estimator.skops")
    load_model(folder)
    skops.io.dump(estimator, folder / "estimator.skops")
    with pytest.raises(InputError, match=re.escape(f"estimator.skops: {message}")):
        load_model(folder)


def test_a_bomb_in_place_of_an_estimator_is_refused(small_fold: Fold, tmp_path: Path) -> None:
    folder, _ = kept(small_fold, tmp_path, "prior")
    with zipfile.ZipFile(folder / "estimator.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", " " * 50_000_000)
    with pytest.raises(InputError, match="claim to be larger than the file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (torch.zeros(5, 2), torch.full((5,), 2**62)),
        (torch.zeros(5, 2), torch.full((5,), -1)),
        (torch.zeros(5, 2), torch.zeros(5)),
        (torch.zeros(5, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.full((5, 2), 1e38), torch.zeros(5, dtype=torch.int64)),
        (torch.full((5, 2), float("nan")), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(5, 0), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(5), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(5, 2, dtype=torch.complex64), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(5, 2), None),
    ],
)
def test_an_embedding_that_cannot_be_drawn_is_left_out(
    tmp_path: Path, vectors: torch.Tensor, labels: torch.Tensor | None
) -> None:
    tensors = {"embedding": vectors, **({} if labels is None else {"labels": labels})}
    save_file(tensors, tmp_path / "test_embedding.safetensors")
    assert load_embedding(tmp_path) is None


def test_an_embedding_that_is_a_pipe_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test_embedding.safetensors")
    assert load_embedding(tmp_path) is None

"""The option ``--classes``: what it refuses, what it says, and the features that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from runs import cemobam_here, run_here
from tiny import make_bert, make_wav2vec2
from trees import make_iemocap, make_manifest

from cemobam_core import FeatureSet
from study import load_results
from study.commands import cemobam, main

FIVE = ("anger", "happiness", "neutral", "sadness", "frustration")
QUICK = ["--blocks", "grid", "--k-audio", "1", "--k-text", "1,2", "--seeds", "1", "--epochs", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoders")
    audio, text = make_wav2vec2(folder / "wav2vec2"), make_bert(folder / "bert")
    return ["--audio-encoder", str(audio), "--text-encoder", str(text), "--tune-layers", "0"]


@pytest.fixture
def tree(in_folder: Path) -> Path:
    return make_iemocap(in_folder / "IEMOCAP_full_release", per_class=6, others=8, seconds=(0.1, 0.2))


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str], of=main) -> str:
    """The one line in which a mistake is told."""
    assert of(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_where_the_option_has_no_effect_it_is_refused(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--classes 5: the demo has its own four classes" in refusal(["--classes", "5"], capsys)
    said = refusal(["--dataset", "iemocap", "--features", "made", "--classes", "5"], capsys)
    assert "--classes 5: the features in made have their classes already; make the features again" in said
    assert not any(in_folder.iterdir())


def test_a_mistake_is_told_by_every_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--dataset", "iemocap", "--data-root", str(tree), "--classes"]
    for said in (
        refusal([*command, "7"], capsys),
        refusal(["features", *command, "7", "--out", "out"], capsys, cemobam),
    ):
        assert "--classes 7: no such classes; give one of the sets of IEMOCAP (4, 5, 6, erc), labels such as" in said
        assert "the labels are 30 anger, " in said and "20 frustration" in said
    Path("mine.csv").write_text("label,class\nang,anger\n")
    assert "mine.csv line 2: 'ang' is not a label of IEMOCAP; correct it" in refusal([*command, "mine.csv"], capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["IEMOCAP_full_release", "mine.csv"]


def test_a_manifest_has_no_sets_but_takes_a_file(
    in_folder: Path, encoders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_manifest(in_folder / "mine")
    command = ["features", "--dataset", "iemocap", "--manifest", str(manifest), *encoders, "--out", "out", "--classes"]
    said = refusal([*command, "5"], capsys, cemobam)
    assert "--classes 5: no such classes; give labels such as anger,happiness, or a .csv file" in said
    Path("two.csv").write_text("label,class\nanger,negative\nsadness,negative\nhappiness,positive\n")
    out, _ = cemobam_here(*command, "two.csv")
    assert "classes: negative = 36 anger + 36 sadness, positive = 36 happiness\n" in out
    assert FeatureSet.load(Path("out/test.safetensors")).class_names == ("negative", "positive")


@pytest.mark.usefixtures("without_figures")
def test_from_five_classes_of_iemocap_to_a_study(
    tree: Path, encoders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--dataset", "iemocap", "--data-root", str(tree), *encoders]
    told = "left out: 10 surprise, 10 fear, 10 disgust, 10 other"
    out, _ = cemobam_here("features", *command, "--classes", "5", "--out", "five")
    assert f"classes: happiness = 15 happiness + 15 excited; {told}\n" in out
    assert "140 of 7380 utterances" in out
    for split in ("train", "val", "test"):
        features = FeatureSet.load(Path("five") / f"{split}.safetensors")
        assert features.class_names == FIVE and set(features.labels.tolist()) == set(range(5))
    rows = pd.read_csv("five/utterances.csv")
    assert rows["label"].value_counts().to_dict() == {name: 20 if name == "frustration" else 30 for name in FIVE}
    assert told in json.loads(Path("five/features.json").read_text())["reduction"]

    out, _ = cemobam_here("features", *command, "--classes", "5", "--out", "five")
    assert "made before" in out and told in out
    said = refusal(["features", *command, "--out", "five"], capsys, cemobam)
    assert "made with other settings (class_names ['anger', 'happiness', 'neutral', 'sadness', 'frustration'], " in said
    said = refusal(["--dataset", "iemocap", "--features", "five", *QUICK], capsys)
    assert "its classes are anger, happiness, neutral, sadness, frustration, but" in said

    out, _ = run_here(*command, "--classes", "5", *QUICK)
    assert told in out
    about = load_results("results/iemocap").about
    assert (about.title, about.class_names, about.in_papers) == ("IEMOCAP (5 classes)", FIVE, "")
    for rest in ([], ["--dry-run"]):
        said = refusal([*command, *QUICK, *rest], capsys)
        assert (
            "'iemocap' was made from other classes (anger, happiness, neutral, sadness, frustration; now anger, "
            in said
        )
        assert "give another --name or other --results" in said
    out, _ = run_here(*command, "--name", "four", *QUICK)
    about = load_results("results/four").about
    assert (about.title, about.in_papers) == ("IEMOCAP", "iemocap")

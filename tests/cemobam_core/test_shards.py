"""A split in shards is the split in one file; shards that do not belong together are refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import cemobam_here, run_here, trials
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cemobam_core import InputError
from cemobam_core.corpora.splits import load_folds
from cemobam_core.features import FeatureSet
from cemobam_core.rows import Rows
from cemobam_core.shards import files_of, shard_name, write_tensors

Make = Callable[..., FeatureSet]
NAMES = {
    "speakers": [f"s{i % 3}" for i in range(24)],
    "sessions": [f"Ses{i % 5}" for i in range(24)],
    "scripts": [f"scene{i % 7}" for i in range(24)],
    "texts": [f"text {i}" for i in range(24)],
    "seconds": [0.5 * i for i in range(24)],
    "provenance": {"audio_encoder": "wav2vec2"},
}


def shards(made: FeatureSet, folder: Path, count: int = 3, name: str = "train") -> list[Path]:
    """Write a set in shards."""
    made.save(whole := folder / f"{name}.safetensors")
    files = made.save(whole, shard_bytes=-(-whole.stat().st_size // count))
    whole.unlink()
    assert len(files) == count
    return list(files)


@pytest.mark.parametrize("steps", [None, 4])
def test_shards_are_the_split_in_one_file(make_features: Make, tmp_path: Path, steps: int | None) -> None:
    made = make_features(steps=steps, **NAMES)
    files = shards(made, tmp_path)
    assert [path.name for path in files] == [f"train-0000{i}-of-00003.safetensors" for i in range(3)]
    assert sorted(tmp_path.iterdir()) == files
    for path in (files[0], files[2]):
        loaded = FeatureSet.load(path)
        assert isinstance(loaded.audio, Rows)
        assert loaded.fingerprint() == made.fingerprint()
        assert loaded.source == str(tmp_path / "train-*-of-00003.safetensors")
        for name in ("class_names", "utterance_ids", *NAMES):
            assert getattr(loaded, name) == getattr(made, name), name
        assert torch.equal(loaded.rank(5).edge_index(3, 4), made.rank(5).edge_index(3, 4))
    one = FeatureSet.load(files[1])
    for fold in (one.select(range(3, 20), source="x"), made.select(range(3, 20), source="x")):
        assert fold.fingerprint() == made.select(range(3, 20), source="x").fingerprint()


def test_what_is_written_is_a_file_of_the_format(tmp_path: Path) -> None:
    x, odd = torch.randn(5, 3), torch.arange(5)
    tensors = {"x": x, "mask": x > 0, "labels": odd, "transposed": torch.randn(3, 5).T}
    write_tensors(tmp_path / "a.safetensors", tensors, {"é": "ü\n"})
    loaded = load_file(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[name], x) for name, x in tensors.items())
    write_tensors(tmp_path / "b.safetensors", tensors, {}, dtype=torch.float16, start=1, stop=4)
    loaded = load_file(tmp_path / "b.safetensors")
    assert torch.equal(loaded["x"], x[1:4].half()) and torch.equal(loaded["labels"], odd[1:4])
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"é": "ü\n"}


def test_a_folder_of_shards_is_a_folder_of_features(make_features: Make, tmp_path: Path) -> None:
    made = {name: make_features(40 - 8 * i, seed=i, name=name) for i, name in enumerate(("train", "val", "test"))}
    made["train"].save(tmp_path / "train.safetensors")
    shards(made["val"], tmp_path, name="val")
    shards(made["test"], tmp_path, 2, name="test")
    (fold,) = load_folds(tmp_path)
    assert {name: part.fingerprint() for name, part in fold.splits.items()} == {
        name: part.fingerprint() for name, part in made.items()
    }


def test_one_shard_stands_for_a_file_that_a_protocol_splits(make_features: Make, tmp_path: Path) -> None:
    made = make_features(40, sessions=[f"Ses{i % 5}" for i in range(40)])
    made.save(tmp_path / "one" / "all.safetensors")
    files = shards(made, tmp_path / "many", name="all")
    whole = load_folds(tmp_path / "one" / "all.safetensors", protocol="session")
    for fold, other in zip(load_folds(files[1], protocol="session"), whole, strict=True):
        for name, part in fold.splits.items():
            assert part.fingerprint() == other.splits[name].fingerprint()
            assert part.utterance_ids == other.splits[name].utterance_ids


def changed(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def first_id_again(tensors: object, metadata: dict[str, str]) -> None:
    ids = json.loads(metadata["utterance_ids"])
    metadata["utterance_ids"] = json.dumps(["u_000", *ids[1:]])


def fewer_names(tensors: object, metadata: dict[str, str]) -> None:
    metadata["speakers"] = json.dumps(json.loads(metadata["speakers"])[1:])


def not_finite(tensors: dict[str, torch.Tensor], metadata: object) -> None:
    tensors["text"][2, 1, 3] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.update(audio=t["audio"][:, :3].contiguous()), r"its audio is float32 \(N, 3, 12\), but those"),
        (
            lambda t, m: t.update(audio=t["audio"][..., :6].contiguous()),
            r"its audio is float32 \(N, 4, 6\), but those of .*; pad",
        ),
        (
            lambda t, m: t.update(text=t["text"].half()),
            r"its text is float16 \(N, 4, 12\), but those of train-00000-of-",
        ),
        (lambda t, m: t.update(labels=t["labels"].int()), r"its labels are int32 \(N\), but"),
        (lambda t, m: t.update(labels=t["labels"][1:].clone()), "7 labels for 8 audio embeddings; give one for each"),
        (lambda t, m: t.update(text=t["text"][:3].clone()), "3 text for 8 audio embeddings; give one for each"),
        (lambda t, m: t.pop("labels"), r"tensor 'labels' is missing"),
        (lambda t, m: t.pop("audio_mask"), r"has no audio_mask, unlike train-00000-of-00003.safetensors; make all"),
        (lambda t, m: m.pop("speakers"), r"has no speakers, unlike"),
        (lambda t, m: m.pop("class_names"), r"has no class_names, unlike"),
        (lambda t, m: m.update(class_names='["a", "b", "c", "d"]'), "its class_names are not as in train-00000-of-"),
        (lambda t, m: m.update(audio_encoder="hubert"), "its audio_encoder is not as in train-00000-of-00003.safeten"),
        (
            lambda t, m: m.pop("audio_encoder"),
            "its audio_encoder is not as in train-00000-of-00003.safetensors; all sh",
        ),
        (lambda t, m: t.update({name: x[:0].clone() for name, x in t.items()}), "holds no utterances"),
        (first_id_again, r"utterance 'u_000' is in train-00000-of-00003.safetensors too; every utterance belongs into"),
        (fewer_names, "7 speakers for 8 audio embeddings"),
        (
            not_finite,
            r"the text embedding of utterance 'u_010' \(row 2 of .*train-00001-of-00003.safetensors\) holds N",
        ),
    ],
)
def test_shards_that_do_not_belong_together_are_refused(
    make_features: Make, tmp_path: Path, change: Callable[..., object], message: str
) -> None:
    files = shards(make_features(steps=4, **NAMES), tmp_path)
    changed(files[1], change)
    with pytest.raises(InputError, match=message) as caught:
        FeatureSet.load(files[0])
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    if change is not not_finite:
        assert str(caught.value).startswith(f"{files[1]}: ")


def without(folder: Path) -> None:
    (folder / shard_name("train", 1, 3)).unlink()


def of_two_divisions(folder: Path) -> None:
    (folder / shard_name("train", 1, 3)).rename(folder / shard_name("train", 1, 4))


def too_many(folder: Path) -> None:
    shutil.copy(folder / shard_name("train", 1, 3), folder / shard_name("train", 3, 3))


def both(folder: Path) -> None:
    shutil.copy(folder / shard_name("train", 1, 3), folder / "train.safetensors")


def copied(folder: Path) -> None:
    shutil.copy(folder / shard_name("train", 1, 3), folder / shard_name("train", 2, 3))


def cut(folder: Path) -> None:
    path = folder / shard_name("train", 2, 3)
    path.write_bytes(path.read_bytes()[:-5])


def a_folder(folder: Path) -> None:
    without(folder)
    (folder / shard_name("train", 1, 3)).mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without, "train-00001-of-00003.safetensors: is missing; train has 3 shards, of which 2 are there: copy it in"),
        (
            of_two_divisions,
            "train-00001-of-00004.safetensors: is one of 4 shards, but train-00000-of-00003.safetensors",
        ),
        (too_many, "train-00003-of-00003.safetensors: train has only 3 shards, from number 0 on; remove the file"),
        (both, "(train.safetensors: is there beside train-00000-of-|both train.safetensors and train-00000-of-00003)"),
        (copied, "train-00002-of-00003.safetensors: utterance 'u_008' is in train-00001-of-00003.safetensors too"),
        (cut, "train-00002-of-00003.safetensors: cannot be read as safetensors"),
        (a_folder, "train-00001-of-00003.safetensors: is a folder; give a regular file"),
    ],
)
def test_a_folder_without_all_shards_of_one_division_is_refused(
    make_features: Make, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    files = shards(make_features(), tmp_path)
    for i, name in enumerate(("val", "test")):
        make_features(seed=i + 1, name=name).save(tmp_path / f"{name}.safetensors")
    harm(tmp_path)
    for read in (FeatureSet.load, lambda path: load_folds(path.parent)):
        with pytest.raises(InputError, match=message) as caught:
            read(files[0])
        assert "\n" not in str(caught.value)


def test_a_file_that_only_looks_like_a_shard_is_no_shard(make_features: Make, tmp_path: Path) -> None:
    for name in ("train-0-of-3", "train-00000-of-003", "-00000-of-00001", "train-00000-of-00001x"):
        assert files_of(tmp_path / f"{name}.safetensors") == [tmp_path / f"{name}.safetensors"]
    made = make_features()
    made.save(tmp_path / shard_name("train-00000-of-00002", 0, 1))
    assert FeatureSet.load(tmp_path / shard_name("train-00000-of-00002", 0, 1)).fingerprint() == made.fingerprint()


@pytest.mark.parametrize("size", ["0MB", "5", "1.5GB", "2gb", "-1GB", "9999999MB"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    _, err = cemobam_here("features", "--dataset", "mine", "--out", "x", f"--shard-size={size}", status=2)
    assert f"--shard-size: '{size}' is not a size; write a whole number with MB, GB or TB, such as 500MB" in err


@pytest.mark.usefixtures("without_figures")
def test_a_run_on_shards_is_the_run_on_files(make_features: Make, in_folder: Path) -> None:
    """Also with models that are kept, which label the utterances of shards."""
    for i, name in enumerate(("train", "val", "test")):
        made = make_features(40 - 8 * (i > 0), seed=i, name=name, steps=3)
        made.save(in_folder / "one" / f"{name}.safetensors")
        shards(made, in_folder / "many", name=name)
    tables, labels = [], []
    small = ["--k-audio", "2", "--k-text", "1:2", "--seeds", "2", "--epochs", "2", "--workers", "2", "--blocks", "grid"]
    for folder in ("one", "many"):
        keep = ("--keep-models", "best", "--name", folder)
        run_here("--dataset", "mine", "--features", folder, *small, *keep)
        tables.append(trials(f"results/{folder}"))
        model = sorted(Path(f"results/{folder}/models").iterdir())[0]
        file = sorted(Path(folder).glob("test*.safetensors"))[0]
        cemobam_here("predict", "--model", str(model), "--features", str(file), "--to", f"{folder}.csv")
        labels.append(Path(f"{folder}.csv").read_text())
    assert tables[0].equals(tables[1]) and len(tables[0]) == 4
    assert labels[0] == labels[1]

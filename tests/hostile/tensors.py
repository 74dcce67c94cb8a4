"""Hostile feature files, kept models, results and parts of an extraction."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hostile.harness import ROOT, Reader, command
from hostile.impostors import impostors
from hostile.ledgers import ODD, ODD_TEXT
from safetensors.torch import load_file, save_file
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from skops.io import dump
from torch import Tensor, nn

from cemobam_core.encoders.store import Parts
from cemobam_core.features import FeatureSet
from cemobam_core.shards import shard_name
from cemobam_core.systems import EstimatorSystem
from cemobam_core.training.batch import Batch
from study.design.block import Block
from study.design.configuration import Trial
from study.design.design import Design
from study.design.factors import Pair
from study.engines.models import CONFIG, EMBEDDING, ESTIMATOR, TRAIN, WEIGHTS, Keeping, load_embedding
from study.findings.calibration import calibration
from study.findings.overview import overview
from study.findings.predictions import PREDICTIONS, UTTERANCES
from study.findings.results import ABOUT, TRIALS, load_studies
from study.output.compare import compare, joint_grids, ranks_figure

CLASSES = ("anger", "happiness", "neutral", "sadness")

Case = tuple[str, Path]

_TERMINAL = "\x1b[2J\x1b[31m"
_DEEP = "[" * 100_000
_SIZES = {"F64": 8, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "BOOL": 1, "U8": 1, "C64": 8}
_SIZES |= {"F6_E2M3": 1, "F4": 1, "I8": 1, "U16": 2, "I64": 8, "U64": 8, "X99": 4, "": 4}


def features(n: int = 24, dim: int = 6, *, seed: int = 0, name: str = "u") -> FeatureSet:
    """Return a small feature set."""
    draws = torch.Generator().manual_seed(seed)
    return FeatureSet(
        audio=torch.randn(n, dim, generator=draws),
        text=torch.randn(n, dim, generator=draws),
        labels=torch.arange(n) % len(CLASSES),
        class_names=CLASSES,
        utterance_ids=[f"{name}{i}" for i in range(n)],
        speakers=[f"s{i % 3}" for i in range(n)],
        texts=[f"text {i % 5}" for i in range(n)],
    )


# Files of the safetensors format.


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def described(tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: object = None) -> bytes:
    """Return a safetensors file of tensors whose types, shapes and bytes need not fit together."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (kind, shape, numbers) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    return raw(header, data)


def _headers() -> Iterator[tuple[str, bytes]]:
    """Yield files with headers that are wrong whatever the file is for."""
    yield "an endless header", raw(b"{}", length=2**63)
    yield "a header longer than the file", raw(b"{}", length=10_000)
    yield "a header of nothing", raw(b"", length=0)
    for text in (b"[]", b"null", b"\xff\xfe", b'{"a":' * 100_000, _DEEP.encode(), b"9" * 10_000, b'{"a":1e999}'):
        yield f"the header {text[:12]!r}", raw(text)
    one = {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 4]}
    yield "a shape that overflows", raw({"audio": one, "text": one, "labels": one}, b"1234")
    yield "offsets that overflow", raw({"audio": {**one, "data_offsets": [2**63, 2**64 - 1]}}, b"1234")
    yield "a negative shape", raw({"audio": {**one, "shape": [-1]}}, b"1234")
    yield "a type that is a number", raw({"audio": {**one, "dtype": 1}}, b"1234")
    empty = {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}
    yield "a trillion rows of nothing", raw({"audio": empty, "text": empty, "labels": empty})
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    yield "many tensors", raw(many)


def _feature_tensors(n: int = 40) -> dict[str, tuple[str, list[int], bytes]]:
    numbers = torch.randn(n, 2, generator=torch.Generator().manual_seed(0)).numpy().tobytes()
    labels = (torch.arange(n) % 4).numpy().tobytes()
    return {"audio": ("F32", [n, 2], numbers), "text": ("F32", [n, 2], numbers), "labels": ("I64", [n], labels)}


def _feature_contents() -> Iterator[tuple[str, bytes]]:
    yield from _headers()
    good = _feature_tensors()
    for kind, size in _SIZES.items():
        data = bytes(range(1, 81)) * size
        yield f"audio of type {kind!r}", described({**good, "audio": (kind, [40, 2], data)})
        yield f"labels of type {kind!r}", described({**good, "labels": (kind, [40], bytes(40 * size))})
    for name, shape in (("audio", []), ("labels", []), ("audio_mask", []), ("text", [40]), ("audio", [1, 1, 1, 1])):
        kind, size = ("BOOL", 1) if "mask" in name else ("F32", 4)
        yield f"{name} of shape {shape}", described({**good, name: (kind, shape, bytes(size * max(1, sum(shape))))})
    for label in (-1, 4, 2**62, -(2**63)):
        yield (
            f"the label {label}",
            described({**good, "labels": ("I64", [40], label.to_bytes(8, "little", signed=True) * 40)}),
        )
    yield "a million labels", described({**good, "labels": ("U8", [10**6], bytes(10**6))})
    yield "NaN", described({**good, "text": ("F32", [40, 2], b"\xff" * 320)})
    yield "no labels", described({name: good[name] for name in ("audio", "text")})
    yield "a scalar and no labels", described({"audio": ("F32", [], bytes(4)), "text": good["text"]})
    names = ["class_names", "utterance_ids", "speakers", "sessions", "scripts", "texts", "seconds", "encoders", "x"]
    values = [
        *(_DEEP, "{" * 1_000, "", "null", "{}", '""', "9" * 10_000, "NaN", "1e999", json.dumps([9e99] * 40)),
        *(f"[{'9' * 10_000}]", json.dumps([_TERMINAL] * 40), json.dumps([f"{i}\ud800" for i in range(40)])),
        *(json.dumps([f"{_TERMINAL}{i}\n" for i in range(40)]), json.dumps([[]] * 40), json.dumps(["x" * 10**5] * 40)),
        *(json.dumps([str(i) for i in range(10**5)]), json.dumps([10**4000] * 40), json.dumps([None] * 40)),
    ]
    for i, (name, value) in enumerate((name, value) for name in names for value in values):
        if i % 3 == 0 or name in ("class_names", "seconds"):
            yield f"{name} are {value[:20]!r} ({len(value)} letters)", described(good, {name: value})
    yield "metadata of numbers", described(good, {"class_names": 1})
    yield "metadata that is a list", described(good, [])


def _in(path: Path, contents: Iterable[tuple[str, bytes]]) -> Iterator[Case]:
    for name, content in contents:
        path.write_bytes(content)
        yield name, path


def _feature_cases(folder: Path) -> Iterator[Case]:
    yield from impostors(folder / "train.safetensors")
    yield from _in(folder / "train.safetensors", _feature_contents())


def _good_features(folder: Path) -> Path:
    features(40).save(folder / "all.safetensors")
    return folder / "all.safetensors"


def _read_features(path: Path) -> None:
    command("splits", "--features", str(path))


def _good_folder(folder: Path) -> Path:
    for i, name in enumerate(("train", "val", "test")):
        features(16, seed=i, name=name).save(folder / "features" / f"{name}.safetensors")
    return folder / "features"


def _folder_cases(folder: Path) -> Iterator[Case]:
    good = _good_folder(folder)
    content = (good / "val.safetensors").read_bytes()
    for name, _ in impostors(good / "val.safetensors"):
        yield f"the validation split is {name}", good
    (good / "val.safetensors").write_bytes(content)
    features(16, 7, name="other").save(good / "val.safetensors")
    yield "embeddings of another size", good
    features(16, seed=0, name="train").save(good / "val.safetensors")
    yield "the train split again", good
    features(3, name="val").save(good / "val.safetensors")
    yield "a split without a class", good
    (good / "fold_0").symlink_to(".")
    yield "a fold that is the folder itself", good
    (good / "fold_0").unlink()
    os.mkfifo(good / "fold_0")
    yield "a fold that is a pipe", good


# Splits in shards.


def _sequences(n: int, *, steps: int = 3, dim: int = 4, name: str = "u", seed: int = 0) -> FeatureSet:
    draws = torch.Generator().manual_seed(seed)
    return FeatureSet(
        **{name: torch.randn(n, steps, dim, generator=draws) for name in ("audio", "text")},
        **{f"{name}_mask": torch.arange(steps).expand(n, -1) < 2 for name in ("audio", "text")},
        labels=torch.arange(n) % len(CLASSES),
        class_names=CLASSES,
        utterance_ids=[f"{name}{i}" for i in range(n)],
        speakers=[f"s{i % 3}" for i in range(n)],
    )


def _shard(i: int, count: int = 3, split: str = "train") -> str:
    return shard_name(split, i, count)


def _good_shards(folder: Path) -> Path:
    for i, split in enumerate(("train", "val", "test")):
        made = _sequences(24, seed=i, name=split)
        made.save(folder / "features" / f"{split}.safetensors", dtype=torch.float16, shard_bytes=800)
    return folder / "features"


def _shard_cases(folder: Path) -> Iterator[Case]:
    good = _good_shards(folder)
    assert sorted(path.name for path in good.glob("train*")) == [_shard(i) for i in range(3)]
    before = {path.name: path.read_bytes() for path in good.iterdir()}

    def again(name: str, **changes: bytes | None) -> Case:
        """Return the folder as it was, but for some files."""
        shutil.rmtree(good)
        good.mkdir()
        for file, content in {**before, **changes}.items():
            if content is not None:
                (good / file).write_bytes(content)
        return name, good

    first, second, third = (before[_shard(i)] for i in range(3))
    for size in (0, 4, 8, 100, len(second) // 2, len(second) - 1):
        yield again(f"a shard cut off after {size} bytes", **{_shard(1): second[:size]})
    yield again("a shard with something behind it", **{_shard(1): second + b"x"})
    yield again("two shards swapped", **{_shard(0): second, _shard(1): first})
    yield again("a shard twice", **{_shard(1): first})
    yield again("a shard of another split", **{_shard(1): before[_shard(1, split="val")]})
    yield again("no first shard", **{_shard(0): None})
    yield again("no last shard", **{_shard(2): None})
    yield again("one shard more", **{_shard(3): third})
    yield again("a shard of nine hundred divisions", **{_shard(1, 900): second})
    yield again("a shard of none", **{_shard(0, 0): first})
    yield again("only a shard of many", **{**{_shard(i): None for i in range(3)}, _shard(0, 99_999): first})
    yield again("the split in one file too", **{"train.safetensors": first})
    yield again("a name of digits that are none", **{"train-0000²-of-00003.safetensors": first})
    others = {
        "other steps": _sequences(8, steps=5, name="other"),
        "another size": _sequences(8, dim=5, name="other"),
        "one embedding each": features(8, 4, name="other"),
    }
    for what, other in others.items():
        other.save(folder / "other.safetensors", dtype=torch.float16)
        yield again(f"a shard with {what}", **{_shard(1): (folder / "other.safetensors").read_bytes()})
    _sequences(8, name="other").save(folder / "other.safetensors")
    yield again("a shard of float32", **{_shard(1): (folder / "other.safetensors").read_bytes()})
    for what, content in list(_headers())[::2] + list(_feature_contents())[::9]:
        yield again(f"a shard with {what}", **{_shard(2): content})
    again("")
    tensors = load_file(good / _shard(1))
    for what, changed in _odd_tensors(tensors, 20):
        again("")
        save_file(changed, good / _shard(1))
        yield f"a shard with {what}", good
    again("")
    for what, _ in impostors(good / _shard(1)):
        yield f"a shard is {what}", good


# Kept models.


def _kept(folder: Path, system: str) -> Path:
    """Keep a model that has not learnt anything."""
    sized = {} if system == "knn" else {"hidden_dim": 8}
    design = Design(blocks={"x": Block("x", systems=(system,))}, profile="paper", settings=sized, seeds=(1,))
    trial: Trial = design.trials("x", Pair(3, 2))[0]
    train, test = features(24, name="train"), features(12, seed=1, name="test")
    made, batch = trial.configuration.system, Batch.from_features(train)
    loops = torch.arange(12).expand(2, -1)
    if isinstance(made, EstimatorSystem):
        model: Any = made.fit(batch.inputs, batch.labels, batch.sizes, 1)
    else:
        torch.manual_seed(0)
        model = made.build(batch.sizes).eval()  # type: ignore[attr-defined]
        assert isinstance(model, nn.Module)
    keeping = Keeping(folder=folder, dataset="mine", fingerprint="abc")
    keeping.keep(
        trial,
        model,
        class_names=CLASSES,
        metrics={},
        counts={"train": 24, "val": 12, "test": 12},
        test=Batch.from_features(test, loops),
        train=train,
    )
    return keeping.place(trial).rename(folder / "model")


def _predict(folder: Path) -> None:
    new = Path("new.safetensors")
    if not new.exists():
        features(6, seed=2, name="new").save(new)
    command("predict", "--model", str(folder), "--features", str(new), "--to", "labels.csv")
    command("predict", "--model", str(folder), "--features", str(new), "--to", "labels.csv", "--graph", "among")


def _changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))


def _kept_again(folder: Path, model: Path, file: str) -> Iterator[tuple[Path, bytes]]:
    """Yield one file of a model and its content, again and again as it was."""
    content = (model / file).read_bytes()
    while True:
        path = model / file
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
        path.write_bytes(content)
        yield path, content


def _config_cases(model: Path) -> Iterator[Case]:
    """Yield a model with hostile settings."""
    path = model / CONFIG
    content = path.read_text()
    for name, _ in impostors(path):
        yield f"the settings are {name}", model
    for text in (*ODD_TEXT, f'{{"format": 5, "x": {"[" * 900}{"]" * 900}}}'):
        path.write_bytes(text.encode(errors="replace"))
        yield f"the settings are {text[:20]!r}", model
    good = json.loads(content)
    dice = random.Random(0)
    values = [*ODD, 10**6, -(10**6), 2**31, 10**4000, -(10**400), float("nan"), 65_536, 0.5, _TERMINAL, "a" * 10**6]
    groups = [group for group in ("choices", "sizes", "graph", "utterances", "training") if good[group]]
    places = [(group, name) for group in groups for name in good[group]] + [("", name) for name in good]
    for group, name in places:
        changed, value = json.loads(content), dice.choice(values)
        (changed[group] if group else changed)[name] = value
        path.write_text(json.dumps(changed))
        yield f"{group}.{name} is {str(value)[:40]!r}", model
    together: list[dict[str, Any]] = [
        {"graph": {"k_audio": 10**6}},
        {"graph": {"k_audio": 65_536, "k_text": 65_536}, "utterances": {"train": 10**9}},
        {"graph": {"k_audio": 24}},
        {"sizes": {"audio_dim": 65_536, "text_dim": 65_536}, "choices": {"hidden_dim": 65_536}},
        {"choices": {"hidden_dim": 65_536, "gat_layers": 64}},
        {"utterances": {"test": 10**400}},
        {"system": "label_propagation", "version": "1", "choices": None},
        {"graph": None},
    ]
    for change in together:
        changed = json.loads(content)
        for group, value in change.items():
            changed[group] = {**changed[group], **value} if isinstance(value, dict) else value
        if changed["choices"] is None:
            changed["choices"] = {"layers": 50, "alpha": 0.9}
        path.write_text(json.dumps(changed))
        yield f"{change} together", model
    path.write_text(content)


def _model_cases(folder: Path) -> Iterator[Case]:
    model = _kept(folder, "cemobam")
    yield from _config_cases(model)
    for name in (WEIGHTS, TRAIN):
        files = _kept_again(folder, model, name)
        path, content = next(files)
        for what, _ in impostors(path):
            yield f"{name} is {what}", model
        path, _ = next(files)
        tensors = load_file(path)
        for what, data in list(_headers())[:: 3 if name == TRAIN else 1]:
            path.write_bytes(data)
            yield f"{name} has {what}", model
        for what, changed in _odd_tensors(tensors, 20):
            save_file(changed, path)
            yield f"{name} with {what}", model
        path.write_bytes(content)


def _odd_tensors(tensors: dict[str, Tensor], number: int = 8) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors with one of them changed, some ``number`` of times."""
    dice = random.Random(0)
    for name in dice.choices(sorted(tensors), k=number):
        value = tensors[name]
        odd = [
            *(value.double(), value.to(torch.uint8), value.flatten(), value.flatten()[:0], torch.zeros(2**16, 0)),
            torch.full_like(value, 6e4 if value.dtype == torch.float16 else 1e38 if value.is_floating_point() else 1),
            *(
                value.to(torch.complex64),
                torch.tensor(0),
                value.to(torch.float8_e4m3fn),
                -value if value.dtype != torch.bool else value,
            ),
        ]
        changed = dice.choice(odd)
        kind = str(changed.dtype).removeprefix("torch.")
        yield f"{name} as {kind} {tuple(changed.shape)}", {**tensors, name: changed.contiguous()}


def _estimator_cases(folder: Path) -> Iterator[Case]:

    model = _kept(folder, "knn")
    files = _kept_again(folder, model, ESTIMATOR)
    path, content = next(files)
    for what, _ in impostors(path):
        yield f"the estimator is {what}", model
    path, _ = next(files)
    x, y = np.random.default_rng(0).standard_normal((24, 12)), np.arange(24) % 4

    def fitted(**odd: Any) -> Any:
        pipeline = make_pipeline(StandardScaler(), KNeighborsClassifier(3, algorithm="brute")).fit(x, y)
        for name, value in odd.items():
            setattr(pipeline[-1], name, value)
        return pipeline

    others: dict[str, Any] = {
        "a dict": {"classes_": y},
        "a list": [[[]]],
        "a number": 10**4000,
        "another estimator": DummyClassifier().fit(x, y),
        "another last step": make_pipeline(StandardScaler(), LinearSVC()).fit(x, y),
        "a function": make_pipeline(FunctionTransformer(np.linalg.inv), KNeighborsClassifier()).fit(
            x[:12, :12], y[:12]
        ),
        "no classes": fitted(classes_=np.array([], int)),
        "classes out of range": fitted(classes_=np.array([0, 1, 2, 10**9])),
        "negative classes": fitted(classes_=np.array([0, 1, 2, -1])),
        "classes that are texts": fitted(classes_=np.array(["a", "b", "c", "d"])),
        "nested classes": fitted(classes_=np.array([[0, 1], [2, 3]])),
        "labels out of range": fitted(_y=np.full(24, 10**9)),
        "fewer labels": fitted(_y=y[:2]),
        "other features": fitted(_fit_X=x[:, :3]),
        "no neighbours": fitted(n_neighbors=0),
        "a million neighbours": fitted(n_neighbors=10**6),
        "an unfitted one": make_pipeline(StandardScaler(), KNeighborsClassifier()),
    }
    for what, other in others.items():
        dump(other, path)
        yield f"the estimator is {what}", model
    path.write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    schema = members["schema.json"].decode()
    odd = {
        "deep": (zipfile.ZIP_STORED, {**members, "schema.json": f'{{"__class__": {"[" * 100_000}'.encode()}),
        "without a schema": (zipfile.ZIP_STORED, {**members, "schema.json": b"{}"}),
        "of another module": (zipfile.ZIP_STORED, {**members, "schema.json": schema.replace("sklearn", "os").encode()}),
        "a bomb": (zipfile.ZIP_DEFLATED, {**members, "x.npy": bytes(300 << 20)}),
        "a schema that is a bomb": (zipfile.ZIP_DEFLATED, {**members, "schema.json": b" " * (300 << 20)}),
    }
    for what, (how, parts) in odd.items():
        with zipfile.ZipFile(path, "w", how) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        yield f"the estimator is {what}", model


# Results.


def _good_results(folder: Path) -> Path:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from predicting import predicting
    from simulated import Noise, study, worse

    made = study(np.random.default_rng(0), Noise(), size=(2, 2), variants=worse(1.0), seeds=3)
    predicting(made).save(folder / "study")
    return folder / "study"


def _read_results(folder: Path) -> None:
    (results,) = load_studies([folder])
    both = {"one": results, "other": results}
    print(*(table.markdown() for table in compare(both)))
    planes, left_out = joint_grids(both)
    print(len(planes), *left_out, type(ranks_figure(both)).__name__)
    head, table, frames = overview(results)
    print(*head, table.to_string(), frames)
    print(results.predictions.shape)


def _result_cases(folder: Path) -> Iterator[Case]:
    study = _good_results(folder)
    for name in (ABOUT, TRIALS, PREDICTIONS, UTTERANCES):
        files = _kept_again(folder, study, name)
        path, content = next(files)
        for what, _ in impostors(path):
            yield f"{name} is {what}", study
        path, _ = next(files)
        odd = {ABOUT: _odd_abouts, PREDICTIONS: _odd_archives}.get(name, _odd_tables)
        for what, data in odd(content):
            path.write_bytes(data)
            yield f"{name}: {what}", study
        path.write_bytes(content)


def _odd_abouts(content: bytes) -> Iterator[tuple[str, bytes]]:
    for text in (*ODD_TEXT, "[" * 900 + "]" * 900, '{"a":' * 45 + "1" + "}" * 45):
        yield f"is {text[:20]!r}", text.encode(errors="replace")
    yield "20 MB of lists", b"[" + b"[]," * 7_000_000 + b"[]]"
    good = json.loads(content)
    dice = random.Random(0)
    values = [*ODD, 10**6, 10**4000, -(10**400), float("nan"), float("inf"), _TERMINAL, "a" * 10**6, list(range(10**4))]

    def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
        about = json.loads(content)
        change(about)
        return json.dumps(about).encode()

    def put(place: list[Any], value: object) -> Callable[[dict[str, Any]], object]:
        def change(about: Any) -> None:
            for step in place[:-1]:
                about = about[step]
            about[place[-1]] = value

        return change

    places: list[list[Any]] = [[name] for name in good]
    places += [["settings", name] for name in good["settings"]]
    for i, block in enumerate(good["blocks"][:2]):
        places += [["blocks", i, name] for name in block]
        places += [["blocks", i, "rows", 0, place] for place in range(len(block["rows"][0]))]
    for place in dice.sample(places, 40):
        value = dice.choice(values)
        yield f"{place} is {str(value)[:30]!r}", changed(put(place, value))

    def wide(about: dict[str, Any], n: int = 20_000) -> None:
        grid = next(block for block in about["blocks"] if block["chooses"])
        first, seeds = grid["rows"][0], len(grid["seeds"])
        a, t = (about["identity"].index(name) for name in ("k_audio", "k_text"))
        grid["rows"] += [[10 + i if place in (a, t) else x for place, x in enumerate(first)] for i in range(n)]
        grid["n_seeds"] += [seeds] * n
        grid["transductive"] += [False] * n

    yield "a grid of 20,000 by 20,000", changed(wide)
    yield "a million seeds", changed(lambda about: about.update(seeds=list(range(10**6)), confirm=[]))
    yield "huge seeds", changed(lambda about: about.update(seeds=[10**4000]))


def _odd_tables(content: bytes) -> Iterator[tuple[str, bytes]]:
    text = content.decode()
    head, first, *rest = text.splitlines()
    yield "one field of 20 MB", f"{head}\n{first}{'x' * 20_000_000}\n".encode()
    yield "a quote without an end", f'{head}\n"{first}\n'.encode() + b"x" * 1_000_000
    yield "a million columns", (",".join(f"c{i}" for i in range(200_000)) + "\n").encode()
    yield "a column twice", "\n".join(f"{line},{line}" for line in (head, first, *rest)).encode()
    yield "NUL", content.replace(b",", b"\0,")
    yield "not UTF-8", content.replace(b"\n", b"\xff\xfe\n")
    yield "UTF-16", text.encode("utf-16")
    yield "a million empty lines", f"{head}\n".encode() + b"\n" * 1_000_000
    yield "half a million rows", f"{head}\n".encode() + f"{first}\n".encode() * (20_000_000 // len(first))
    yield "no rows", f"{head}\n".encode()
    dice = random.Random(0)
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    odd = [
        *(
            "9" * 10_000,
            "1e999",
            "-1e999",
            "nan",
            "-1",
            "1e308",
            "1e-320",
            "0.5",
            "99999999999999999999",
            "",
            "x",
            "True",
        ),
        *(_TERMINAL, "=1+1", "0x10", "1_000", "2020-01-01", "1,5", '"', "\\ud800", "null", "None"),
    ]
    for name in dice.choices(frame.columns, k=30):
        value, row = dice.choice(odd), dice.choice([slice(None), dice.randrange(len(frame))])
        changed = frame.copy()
        changed.loc[row, name] = value
        where = "every row" if isinstance(row, slice) else f"row {row}"
        yield f"{name} of {where} is {value[:20]!r}", changed.to_csv(index=False).encode()


def _odd_archives(content: bytes) -> Iterator[tuple[str, bytes]]:
    with np.load(io.BytesIO(content)) as arrays:
        good = dict(arrays)

    def archive(parts: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", how) as file:
            for name, data in parts.items():
                file.writestr(f"{name}.npy", data)
        return made.getvalue()

    def npy(array: Any) -> bytes:
        made = io.BytesIO()
        np.lib.format.write_array(made, array, allow_pickle=True)
        return made.getvalue()

    def header(text: str, version: bytes = b"\x01\x00") -> bytes:
        size = 2 if version == b"\x01\x00" else 4
        return b"\x93NUMPY" + version + len(text).to_bytes(size, "little") + text.encode()

    parts = {name: npy(array) for name, array in good.items()}
    shape = good["predicted"].shape
    yield "nothing in it", archive({})
    yield "an array that is missing", archive({"predicted": parts["predicted"]})
    odd = {
        "objects": npy(np.array([{}], dtype=object)),
        "complex": npy(good["predicted"].astype(complex)),
        "text": npy(good["predicted"].astype(str)),
        "big-endian": npy(good["predicted"].astype(">i2")),
        "records": npy(np.zeros(3, dtype=[("a", "i2"), ("b", "O")])),
        "no header": b"",
        "a deep header": header("(" * 5_000),
        "code": header("{'descr': __import__('os').system('touch canary'), 'shape': (1,)}"),
        "a trillion numbers": header(f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({2**40}, 1)}}\n"),
        "a negative shape": header("{'descr': '<i2', 'fortran_order': False, 'shape': (-1, -1)}\n"),
        "too few numbers": header(f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}}}\n"),
        "a bomb": parts["predicted"] + bytes(300 << 20),
        "a header that is a bomb": header(" " * (300 << 20), b"\x02\x00"),
        "classes out of range": npy(np.full(shape, 300, np.int16)),
        "another order": npy(np.asfortranarray(good["predicted"])),
    }
    for what, data in odd.items():
        yield what, archive({**parts, "predicted": data})
    yield "train sizes of 2^62", archive({**parts, "train_sizes": npy(np.full_like(good["train_sizes"], 2**62))})
    yield "an array without an archive", parts["predicted"]
    yield "an array before an archive", parts["predicted"] + content
    yield "the archive twice", content + content


# What else a folder of results or of features holds.


def _good_embedding(folder: Path) -> Path:
    tensors = {"embedding": torch.randn(12, 4), "labels": torch.arange(12) % 4}
    save_file(tensors, folder / EMBEDDING)
    return folder / EMBEDDING


def _embedding_cases(folder: Path) -> Iterator[Case]:
    yield from impostors(folder / EMBEDDING)
    yield from _in(folder / EMBEDDING, _headers())
    path = _good_embedding(folder)
    for what, changed in _odd_tensors(load_file(path)):
        save_file(changed, path)
        yield what, path


def _read_embedding(path: Path) -> None:
    if found := load_embedding(path.parent):
        vectors, labels = found
        assert bool(torch.isfinite(vectors).all()) and 0 <= int(labels.min()) <= int(labels.max()) < 10_000


def _good_probabilities(folder: Path) -> Path:
    save_file({"probabilities": torch.full((12, 4), 0.25).half()}, folder / "p.safetensors")
    return folder / "p.safetensors"


def _probability_cases(folder: Path) -> Iterator[Case]:
    yield from impostors(folder / "p.safetensors")
    yield from _in(folder / "p.safetensors", _headers())
    path = _good_probabilities(folder)
    for what, changed in _odd_tensors(load_file(path)):
        save_file(changed, path)
        yield what, path


def _read_probabilities(path: Path) -> None:
    calibration({(0, 0): path}, pd.DataFrame({"fold": [0] * 12, "label": [0, 1, 2, 3] * 3}), 1)


def _good_part(folder: Path) -> Path:
    Parts(folder).add(0, {"a": torch.ones(2, 3), "b": torch.ones(1, 3)}, {"c": "is silent"})
    return folder / "00000.safetensors"


def _part_cases(folder: Path) -> Iterator[Case]:
    path = _good_part(folder)
    yield from impostors(path)
    yield from _in(path, _headers())
    rows = ("F32", [3, 3], bytes(36))
    told = {"asked": '["a", "b", "c"]', "steps": '{"a": 2, "b": 1}', "bad": '{"c": "is silent"}'}
    for name in told:
        for text in (
            *ODD_TEXT[::2],
            '{"a": -1, "b": 4}',
            '{"a": 1e9, "b": 1}',
            '{"c": []}',
            f'{{"a": {"9" * 10_000}}}',
        ):
            content = {**told, name: text.encode(errors="replace").decode()}
            yield from _in(path, [(f"{name} is {text[:20]!r}", described({"rows": rows}, content))])
    for kind, size in _SIZES.items():
        yield from _in(path, [(f"rows of {kind!r}", described({"rows": (kind, [3, 3], bytes(9 * size))}, told))])


def _read_part(path: Path) -> None:
    parts = Parts(path.parent)
    if parts.find({0: ["a", "b", "c"]}):
        assert {name: len(rows) for name, rows in parts.embeddings()} == parts.steps


READERS = [
    Reader("a feature file", _feature_cases, _good_features, _read_features, every=5),
    Reader("a folder of features", _folder_cases, _good_folder, _read_features, every=2),
    Reader("a folder of shards", _shard_cases, _good_shards, _read_features, every=4),
    Reader("a kept network", _model_cases, lambda folder: _kept(folder, "cemobam"), _predict, every=10),
    Reader("a kept estimator", _estimator_cases, lambda folder: _kept(folder, "knn"), _predict, every=4),
    Reader("results", _result_cases, _good_results, _read_results, every=10),
    Reader("an embedding", _embedding_cases, _good_embedding, _read_embedding, every=5),
    Reader("probabilities", _probability_cases, _good_probabilities, _read_probabilities, every=5),
    Reader("a part of an extraction", _part_cases, _good_part, _read_part, every=5),
]

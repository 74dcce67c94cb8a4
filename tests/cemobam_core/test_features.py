from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from cemobam_core import FeatureSet, Fold, InputError
from cemobam_core.features import fingerprint
from cemobam_core.files import written_atomically
from cemobam_core.wall import HAS_LIMITS

Make = Callable[..., FeatureSet]


@pytest.mark.parametrize("steps", [None, 4])
def test_what_is_saved_is_what_is_loaded(make_features: Make, tmp_path: Path, steps: int | None) -> None:
    features = make_features(
        steps=steps,
        speakers=tuple(f"s{i % 3}" for i in range(24)),
        sessions=tuple(f"Ses0{i % 5}" for i in range(24)),
        seconds=[0.1 * i for i in range(24)],
        provenance={"encoders": "wav2vec2-base-960h, layer 12"},
    )
    path = tmp_path / "deep" / "train.safetensors"
    features.save(path)
    loaded = FeatureSet.load(path)
    assert loaded.fingerprint() == features.fingerprint()
    for name in ("class_names", "utterance_ids", "speakers", "sessions", "seconds", "provenance"):
        assert getattr(loaded, name) == getattr(features, name)
    assert loaded.source == str(path)
    assert [p.name for p in path.parent.iterdir()] == ["train.safetensors"]


def test_a_file_may_leave_names_out(make_features: Make, tmp_path: Path) -> None:
    features = make_features()
    save_file({name: getattr(features, name) for name in ("audio", "text", "labels")}, tmp_path / "val.safetensors")
    loaded = FeatureSet.load(tmp_path / "val.safetensors")
    assert loaded.class_names == ("class_0", "class_1", "class_2", "class_3")
    assert loaded.utterance_ids[:2] == ("val:00000", "val:00001")
    assert FeatureSet.load(tmp_path / "val.safetensors", "abcd").class_names == ("a", "b", "c", "d")


def test_other_float_types_become_float32(make_features: Make, tmp_path: Path) -> None:
    features = make_features()
    tensors = {"audio": features.audio.double(), "text": features.text.half(), "labels": features.labels}
    save_file(tensors, tmp_path / "a.safetensors")
    loaded = FeatureSet.load(tmp_path / "a.safetensors")
    assert (loaded.audio.dtype, loaded.text.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_labels_may_be_whole_numbers_of_any_width(make_features: Make, tmp_path: Path, dtype: torch.dtype) -> None:
    features = make_features()
    tensors = {"audio": features.audio, "text": features.text, "labels": features.labels.to(dtype)}
    save_file(tensors, tmp_path / "a.safetensors")
    loaded = FeatureSet.load(tmp_path / "a.safetensors")
    assert loaded.class_names == ("class_0", "class_1", "class_2", "class_3")
    assert loaded.labels.dtype == torch.int64
    assert torch.equal(loaded.labels, features.labels)


@pytest.mark.parametrize(
    "kind", ["float64", "float32", "float16", "big-endian", "read-only", "backwards", "lists", "tensors in a list"]
)
def test_arrays_and_lists_are_taken_as_they_come(make_features: Make, tmp_path: Path, kind: str) -> None:
    """Return multiples of 1/16, which every floating-point width stores exactly."""
    features = make_features(steps=3)
    exact = {
        name: (16 * value).round() / 16 if value.is_floating_point() else value
        for name, value in features.tensors().items()
    }

    def given(value: torch.Tensor) -> Any:
        array = value.numpy()
        floating = array.dtype.kind == "f"
        if kind in ("float64", "float32", "float16"):
            return array.astype(kind if floating else {"i": "int16", "b": "bool"}[array.dtype.kind])
        if kind == "big-endian":
            return array.astype(array.dtype.newbyteorder(">"))
        if kind == "read-only":
            array = array.copy()
            array.flags.writeable = False
            return array
        if kind == "backwards":
            return array[::-1].copy()[::-1]
        return value.tolist() if kind == "lists" else list(value.requires_grad_(floating))

    names = {"utterance_ids": np.array(features.utterance_ids), "class_names": list(features.class_names)}
    taken = make_features(**{name: given(value.clone()) for name, value in exact.items()}, **names)
    wanted = make_features(**exact)
    for name, value in wanted.tensors().items():
        assert getattr(taken, name).dtype == value.dtype
        assert torch.equal(getattr(taken, name), value), name
    assert taken.fingerprint() == wanted.fingerprint()
    taken.save(tmp_path / "a.safetensors")
    assert FeatureSet.load(tmp_path / "a.safetensors").utterance_ids == features.utterance_ids


def test_an_array_that_changes_later_changes_nothing(make_features: Make) -> None:
    labels = make_features().labels.numpy().copy()
    features = make_features(labels=labels)
    labels[:] = 99
    assert features.labels.max() == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("audio", np.ones((24, 12), dtype=np.int32), r"audio is int32 (24, 12); it must be (N, E) or (N, T, E) float"),
        ("audio", [[1, 2]] * 24, "audio is a list of int64 (24, 2); it must be (N, E) or (N, T, E) floating-point"),
        ("audio", [[1.0, 2.0], [1.0]], "audio is a list that is not an array"),
        ("audio", [torch.ones(2), torch.ones(3)], "audio is a list of tensors of different shapes; it must be"),
        ("text", np.array([["a"] * 12] * 24), "text is str (24, 12); it must be"),
        ("text", None, "text is of type NoneType; it must be"),
        ("text", {"a": 1}, "text is of type dict; it must be"),
        ("text", np.ones(24), "text is float32 (24,); it must be (N, E) or"),
        ("text", np.ones((24, 12), dtype=np.complex64), "text is complex64 (24, 12); it must be"),
        ("labels", np.zeros(24), "labels are float64 (24,); they must be (N,) whole numbers, indices into class_names"),
        ("labels", [0.0] * 24, "labels are a list of float64 (24,); they must be"),
        ("labels", ["anger"] * 24, "labels are a list of str (24,); they must be"),
        ("labels", np.array(["anger"] * 24, dtype=object), "or names, as [class_names.index(x) for x in labels]"),
        ("labels", np.zeros((24, 1), dtype=int), "labels are int64 (24, 1); they must be (N,) whole numbers"),
        ("labels", 3, "labels are int64 (); they must be (N,)"),
        ("labels", None, "labels are of type NoneType; they must be"),
        ("labels", np.zeros(24, dtype=bool), "labels are bool (24,); they must be"),
        ("audio_mask", np.ones((24, 3), dtype=int), "audio_mask is int64 (24, 3); it must be (N, T) truth values: "),
        (
            "text_mask",
            [[1, 1, 0]] * 24,
            "text_mask is a list of int64 (24, 3); it must be (N, T) truth values: ",
        ),
        ("utterance_ids", iter(range(24)), "utterance_ids hold '0', which is of type int; they must be strings: "),
        ("class_names", "abcd", "class_names are 'abcd'; give a list of strings"),
    ],
)
def test_what_is_no_array_of_the_kind_is_refused_in_words(
    make_features: Make, name: str, value: object, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_features(steps=3, **{name: value})
    assert str(caught.value).startswith("u: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def nan_in_one(features: FeatureSet) -> dict[str, object]:
    audio = features.audio.clone()
    audio[7, 3] = float("nan")
    return {"audio": audio}


def label_out_of_range(features: FeatureSet) -> dict[str, object]:
    labels = features.labels.clone()
    labels[5] = 4
    return {"labels": labels}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan_in_one, r"u: the audio embedding of utterance 'u_007' \(row 7\) holds NaN or infinity; extract it again"),
        (label_out_of_range, r"utterance 'u_005' has label 4, but the classes are 0 anger, 1 happiness"),
        (lambda f: {"text": f.text[:-1]}, "23 text embeddings for 24 labels"),
        (lambda f: {"audio": f.audio.long()}, r"audio is int64 \(24, 12\)"),
        (lambda f: {"audio": f.audio[:, :0]}, r"audio is float32 \(24, 0\)"),
        (lambda f: {"labels": f.labels.float()}, r"labels are float32 \(24,\)"),
        (lambda f: {"labels": f.labels[:0], "audio": f.audio[:0], "text": f.text[:0]}, "holds no utterances"),
        (lambda f: {"utterance_ids": ("same",) * 24}, "'same' occurs 24 times"),
        (lambda f: {"utterance_ids": f.utterance_ids[1:]}, "23 utterance_ids for 24 utterances"),
        (lambda f: {"seconds": [1.0]}, "1 seconds for 24 utterances"),
        (lambda f: {"seconds": [1.0] * 23 + [-0.1]}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"seconds": [1.0] * 23 + [np.nan]}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"seconds": [1.0] * 23 + [None]}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"seconds": ["1.0"] * 24}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"seconds": "1" * 24}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"seconds": 3}, "seconds are .* finite numbers, 0 or more"),
        (lambda f: {"class_names": ("a", "a", "b", "c")}, "all different"),
        (lambda f: {"audio": f.audio.unsqueeze(1)}, "without audio_mask"),
        (lambda f: {"text_mask": torch.ones(24, 1, dtype=torch.bool)}, "with text_mask"),
    ],
)
def test_a_set_that_is_not_valid_cannot_exist(
    make_features: Make, spoil: Callable[[FeatureSet], dict[str, object]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_features(**spoil(make_features()))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, tuple])
def test_seconds_are_held_as_floats_and_go_with_their_utterances(make_features: Make, kind: Callable[..., Any]) -> None:
    features = make_features(seconds=kind([i / 4 for i in range(24)]))
    assert features.seconds is not None
    assert {type(length) for length in features.seconds} == {float}
    assert features.select([3, 0], source="some").seconds == (0.75, 0.0)
    assert features.fingerprint() == make_features().fingerprint()


@pytest.mark.parametrize("given", ["[1, null]", "[1, true]", '["1"]', "3", "x", "{}"])
def test_seconds_of_a_file_that_are_none(make_features: Make, tmp_path: Path, given: str) -> None:
    tensors = make_features(2, class_names=("a", "b")).tensors()
    save_file(tensors, tmp_path / "a.safetensors", metadata={"seconds": given})
    with pytest.raises(InputError, match=r"metadata 'seconds' is .*; it must be a JSON list of numbers"):
        FeatureSet.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[True, False, True]], r"row 0\) is not valid steps first"),
        ([[False, False, False]], r"row 0\) is not valid steps first"),
        ([[True, True]], r"text_mask is bool \(1, 2\); it must be bool \(1, 3\)"),
    ],
)
def test_a_mask_is_valid_steps_then_padding(make_features: Make, mask: list[list[bool]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_features(1, text=torch.randn(1, 3, 12), text_mask=torch.tensor(mask))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"audio,text\n1,2\n", "not a feature file; give a .safetensors file"),
        ("a.safetensors", b"audio,text\n1,2\n", "cannot be read as safetensors"),
        ("a.safetensors", b"", "cannot be read as safetensors"),
        ("a.safetensors", (2**60).to_bytes(8, "little") + b"{}", "cannot be read as safetensors"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        FeatureSet.load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_truncated_file_is_refused(make_features: Make, tmp_path: Path) -> None:
    make_features().save(tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-1])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        FeatureSet.load(tmp_path / "a.safetensors")


def test_wrong_contents_are_named(make_features: Make, tmp_path: Path) -> None:
    make_features().save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    path = tmp_path / "b.safetensors"
    save_file({name: t for name, t in tensors.items() if name != "text"}, path)
    with pytest.raises(InputError, match="tensor 'text' is missing; the file holds"):
        FeatureSet.load(path)
    save_file({**tensors, "video": tensors["audio"].clone()}, path)
    with pytest.raises(InputError, match="unknown tensor 'video'"):
        FeatureSet.load(path)
    save_file(tensors, path, metadata={"class_names": "anger, joy"})
    with pytest.raises(InputError, match="'class_names' is 'anger, joy'; it must be a JSON list"):
        FeatureSet.load(path)
    save_file(tensors, path, metadata={"class_names": json.dumps(["a", "b", "c", "d"])})
    with pytest.raises(InputError, match="its classes are a, b, c, d, but this data set's are anger"):
        FeatureSet.load(path, ("anger", "happiness", "neutral", "sadness"))


@pytest.mark.parametrize("labels", [torch.full((24,), float("nan")), torch.zeros(24, dtype=torch.bool)])
def test_labels_of_another_type_are_named(make_features: Make, tmp_path: Path, labels: torch.Tensor) -> None:
    features = make_features()
    save_file({"audio": features.audio, "text": features.text, "labels": labels}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"labels are (float32|bool) \(24,\); they must be"):
        FeatureSet.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("class_names", "utterance_ids", "seconds") for value in ("[" * 100_000, "NaN")),
        ("seconds", f"[{'9' * 10_000}]"),
        ("seconds", json.dumps([10**4_000] * 24)),
        ("speakers", json.dumps(["\x1b[31m"] * 24)),
        ("class_names", json.dumps(["a", "b", "c", "\ud800"])),
    ],
)
def test_hostile_metadata_is_one_line(make_features: Make, tmp_path: Path, name: str, value: str) -> None:
    save_file(make_features().tensors(), tmp_path / "a.safetensors", metadata={name: value})
    with pytest.raises(InputError, match=name) as raised:
        FeatureSet.load(tmp_path / "a.safetensors")
    assert str(raised.value).startswith(f"{tmp_path / 'a.safetensors'}: ") and len(str(raised.value)) < 700


@pytest.mark.parametrize("need_labels", [True, False])
@pytest.mark.parametrize("shape", [(), (24,), (0, 4), (2**40, 0), (1, 1, 1, 1)])
def test_odd_shapes_are_one_line(tmp_path: Path, shape: tuple[int, ...], need_labels: bool) -> None:
    x = torch.zeros(shape)
    save_file(
        {"audio": x, "text": x.clone(), **({"labels": x.clone()} if need_labels else {})}, tmp_path / "a.safetensors"
    )
    with pytest.raises(InputError, match=r"a.safetensors: (audio|text|labels|it holds)"):
        FeatureSet.load(tmp_path / "a.safetensors", need_labels=need_labels)


def test_more_labels_than_embeddings_cost_no_ids(make_features: Make, tmp_path: Path) -> None:
    features = make_features(4)
    labels = torch.zeros(10**6, dtype=torch.int64)
    save_file({"audio": features.audio, "text": features.text, "labels": labels}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="4 audio embeddings for 1000000 labels"):
        FeatureSet.load(tmp_path / "a.safetensors")


def test_several_files_are_read_by_one_child(
    make_features: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for i, path in enumerate(paths):
        make_features(seed=i).save(path)
    started = []
    fork = os.fork
    monkeypatch.setattr("os.fork", lambda: started.append(1) or fork())
    loaded = FeatureSet.load_all(paths)
    assert [one.fingerprint() for one in loaded] == [make_features(seed=i).fingerprint() for i in range(3)]
    assert len(started) == (1 if HAS_LIMITS else 0)


def anonymous() -> int:
    """Return the memory of this process that is not that of a file, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(not HAS_LIMITS, reason="this system has no limits")
def test_features_are_mapped_and_not_copied(make_features: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make_features(2_000, dim=2_000).save(path)  # 32 MB
    before = anonymous()
    features = FeatureSet.load(path)
    assert anonymous() - before < 8e6
    assert str(path) in {one.path for one in psutil.Process().memory_maps()}
    assert len(features) == 2_000


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(InputError, match=rf"a\.safetensors: is a {kind}"):
        FeatureSet.load(path)


def test_too_few_ids_are_said_before_any_is_needed(make_features: Make) -> None:
    audio = torch.full((24, 12), float("nan"))
    with pytest.raises(InputError, match="3 utterance_ids for 24 utterances"):
        make_features(audio=audio, utterance_ids=("a", "b", "c"))


def test_splits_must_fit_together(make_features: Make) -> None:
    splits = {name: make_features(name=name) for name in ("train", "val", "test")}
    Fold(**splits)
    with pytest.raises(InputError, match="utterance 'train_000' is in the train split and in the test split"):
        Fold(**{**splits, "test": make_features(name="train")})
    with pytest.raises(InputError, match=r"text is \(N, 9\), but the train split's is \(N, 12\)"):
        Fold(**{**splits, "val": make_features(name="val", text=torch.randn(24, 9))})
    with pytest.raises(InputError, match="class_names are a, b, c, d"):
        Fold(**{**splits, "val": make_features(name="val", class_names=tuple("abcd"))})
    absent = torch.where(torch.arange(24) % 4 == 2, 0, torch.arange(24) % 4)
    with pytest.raises(InputError, match=r"no utterance of class 'neutral' in the val split \(24 utterances\)"):
        Fold(**{**splits, "val": make_features(name="val", labels=absent)})


def test_the_fingerprint_stands_for_what_changes_a_result(make_features: Make, small_fold: Fold) -> None:
    features = make_features(steps=3)
    assert make_features(steps=3, utterance_ids=tuple(map(str, range(24)))).fingerprint() == features.fingerprint()
    one_bit = features.audio.clone()
    one_bit[0, 0, 0] = torch.nextafter(one_bit[0, 0, 0], torch.tensor(9.0))
    shorter = features.text_mask.clone()
    shorter[shorter[:, -1].nonzero()[0], -1] = False
    for change in (
        {"audio": one_bit},
        {"text_mask": shorter},
        {"labels": features.labels.flip(0)},
        {"class_names": tuple("abcd")},
    ):
        assert make_features(steps=3, **change).fingerprint() != features.fingerprint(), list(change)
    swapped = Fold(train=small_fold.train, val=small_fold.test, test=small_fold.val)
    assert len({fingerprint([small_fold]), fingerprint([swapped]), fingerprint([small_fold, swapped])}) == 3


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), written_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    with written_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]

"""Embeddings that stay in their files give what tensors give, without being held in memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cemobam_core import Batch, Fold, InputError, features
from cemobam_core.corpora.splits import split
from cemobam_core.features import FeatureSet
from cemobam_core.rows import Rows, StoredTensor, in_chunks
from cemobam_core.shards import write_tensors

Make = Callable[..., FeatureSet]


def stored(path: Path, name: str = "audio") -> StoredTensor:
    found = StoredTensor.find(path, name)
    assert found
    return found


@pytest.fixture(params=["float32", "float16", "bfloat16", "float64"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Rows, Tensor]:
    """Return rows of three files, and the same as one tensor."""
    x = torch.randn(20, 3, 5, generator=torch.Generator().manual_seed(0)).to(getattr(torch, request.param))
    parts = []
    for i, part in enumerate((x[:7], x[7:8], x[8:])):
        save_file({"b": torch.ones(3), "audio": part.contiguous()}, tmp_path / f"{i}.safetensors")
        parts.append(stored(tmp_path / f"{i}.safetensors"))
    return Rows(parts), x.float()


@pytest.mark.parametrize(
    "index",
    [
        *(slice(None), slice(2, 6), slice(5, 12), slice(7, 8), slice(3, 19, 4), slice(4, 4), slice(-3, None)),
        *([3], [19, 0, 7, 7, 8], [0, 1, 2], [6, 7, 8, 9], [5, 4, 3], [-1, 2], []),
    ],
)
def test_any_rows_are_those_of_the_tensor(rows: tuple[Rows, Tensor], index: slice | list[int]) -> None:
    ours, x = rows
    assert (len(ours), ours.shape, ours.ndim, ours.dtype) == (20, (20, 3, 5), 3, torch.float32)
    if isinstance(index, list):
        index = torch.tensor(index, dtype=torch.int64)  # type: ignore[assignment]
    wanted = x[torch.arange(20)[index]]
    assert torch.equal(ours[index], wanted)  # type: ignore[index]
    assert ours[index].dtype == torch.float32  # type: ignore[index]


def test_a_selection_is_in_its_own_order_and_may_be_selected_from(rows: tuple[Rows, Tensor]) -> None:
    ours, x = rows
    first = torch.tensor([18, 2, 7, 9, 3, 0])
    then = torch.tensor([5, 1, 1])
    assert torch.equal(ours.select(first)[:], x[first])
    assert torch.equal(ours.select(first).select(then)[:], x[first][then])
    assert torch.equal(ours.select(first)[torch.tensor([-1, 0])], x[[0, 18]])
    assert torch.equal(torch.cat(list(ours.select(first).chunks(4))), x[first])
    assert [len(chunk) for chunk in ours.chunks(8)] == [8, 8, 4]


def test_rows_that_are_not_there_are_refused(rows: tuple[Rows, Tensor]) -> None:
    for wrong, told in ((20, "rows from 0 to 20 of 20"), (-21, "rows from -1 to 0 of 20")):
        with pytest.raises(IndexError, match=told):
            rows[0][torch.tensor([0, wrong])]


def test_large_gathers_are_made_piece_by_piece(rows: tuple[Rows, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cemobam_core.rows._CHUNK_NUMBERS", 31)  # two rows
    ours, x = rows
    index = torch.randint(20, (50,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours[index], x[index])
    assert torch.equal(ours[:], x)
    assert [len(chunk) for chunk in in_chunks(ours, 3, 10)] == [2, 2, 2, 1]


def test_the_rows_of_one_float32_file_are_mapped_and_not_copied(tmp_path: Path) -> None:
    x = torch.randn(6, 4)
    save_file({"audio": x}, tmp_path / "a.safetensors")
    ours = Rows([stored(tmp_path / "a.safetensors")])
    assert torch.equal(ours[:], x)
    assert ours[:].data_ptr() == ours[:].data_ptr() == ours[2:].data_ptr() - 2 * 4 * 4


def test_pickling_takes_only_the_reference_along(tmp_path: Path) -> None:
    x = torch.randn(5_000, 40)
    save_file({"audio": x}, tmp_path / "a.safetensors")
    ours = Rows([stored(tmp_path / "a.safetensors")])
    ours[:]
    packed = pickle.dumps(ours)
    assert len(packed) < 2_000
    assert torch.equal(pickle.loads(packed)[:], x)
    chosen = pickle.loads(pickle.dumps(ours.select(torch.tensor([4, 2]))))
    assert torch.equal(chosen[:], x[[4, 2]])


@pytest.mark.parametrize("how", ["longer", "same size", "missing", "in a file that is gone"])
def test_a_file_that_changes_on_the_way_is_named(tmp_path: Path, how: str) -> None:
    path = tmp_path / "folder" / "a.safetensors"
    path.parent.mkdir()
    save_file({"audio": torch.ones(4, 3)}, path)
    packed = pickle.dumps(Rows([stored(path)]))
    if how == "missing":
        path.unlink()
    elif how == "in a file that is gone":
        path.unlink()
        path.parent.rmdir()
        path.parent.touch()
    else:
        save_file({"audio": torch.zeros(5 if how == "longer" else 4, 3)}, path)
        os.utime(path, ns=(0, 0))
    with pytest.raises(InputError) as caught:
        pickle.loads(packed)[:2]
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert ("cannot be read" if "missing" in how or "gone" in how else "has changed") in str(caught.value)


def test_held_rows_need_no_file_and_are_pickled_once(rows: tuple[Rows, Tensor]) -> None:
    ours, x = rows
    known: dict[StoredTensor, object] = {}
    first, second = (ours.select(torch.arange(20)[i::2]).held(known) for i in (0, 1))  # type: ignore[arg-type]
    packed = pickle.dumps((first, second))
    for part in ours.parts:
        assert isinstance(part, StoredTensor)
        part.path.unlink()
    one, two = pickle.loads(packed)
    assert torch.equal(one[:], x[::2]) and torch.equal(two[:], x[1::2])
    assert len(packed) < 1.5 * len(pickle.dumps(first))


def halves(made: FeatureSet, folder: Path) -> FeatureSet:
    made.save(folder / "h.safetensors", dtype=torch.float16)
    return FeatureSet.load(folder / "h.safetensors")


@pytest.mark.parametrize("steps", [None, 4])
def test_16_bit_files_are_read_in_place_and_are_as_good_as_their_numbers(
    make_features: Make, tmp_path: Path, steps: int | None
) -> None:
    made = make_features(steps=steps)
    ours = halves(made, tmp_path)
    assert load_file(tmp_path / "h.safetensors")["audio"].dtype == torch.float16
    assert isinstance(ours.audio, Rows) and isinstance(ours.text, Rows)
    wanted = make_features(steps=steps, audio=made.audio[:].half().float(), text=made.text[:].half().float())
    assert ours.fingerprint() == wanted.fingerprint() != made.fingerprint()
    assert all(torch.equal(a, b) for a, b in zip(ours.pooled(), wanted.pooled(), strict=True))
    assert torch.equal(ours.rank(3).edge_index(2, 3), wanted.rank(3).edge_index(2, 3))
    batch, same = Batch.from_features(ours), Batch.from_features(wanted)
    assert torch.equal(batch.inputs.audio, same.inputs.audio) and batch.sizes == same.sizes == ours.sizes
    for name, value in wanted.select([5, 3, 8], source="x").tensors().items():
        assert torch.equal(getattr(ours.select([5, 3, 8], source="x"), name)[:], value[:]), name


def test_large_files_are_read_in_place(make_features: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_features(steps=3)
    made.save(tmp_path / "a.safetensors")
    assert isinstance(FeatureSet.load(tmp_path / "a.safetensors").audio, Tensor)
    monkeypatch.setattr(features, "_LARGE", 100)
    ours = FeatureSet.load(tmp_path / "a.safetensors")
    assert isinstance(ours.audio, Rows)
    assert ours.fingerprint() == made.fingerprint()
    ours.save(tmp_path / "b.safetensors")
    ours.save(tmp_path / "c" / "a.safetensors", shard_bytes=1000)
    shards = sorted((tmp_path / "c").iterdir())
    assert len(shards) > 3 and all(path.stat().st_size < 2500 for path in shards)
    for path in (tmp_path / "b.safetensors", shards[1]):
        assert FeatureSet.load(path).fingerprint() == made.fingerprint()


def test_the_folds_of_a_protocol_read_each_number_once_to_check_it(
    make_features: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_features(40, steps=2, sessions=[f"Ses{i % 5}" for i in range(40)])
    ours = halves(made, tmp_path)
    read: list[int] = []
    gathered = Rows._gathered

    def counted(self: Rows, places: Tensor) -> Tensor:
        read.append(len(places))
        return gathered(self, places)

    monkeypatch.setattr(Rows, "_gathered", counted)
    folds = split(ours, "session")
    assert len(folds) == 5 and read == []
    same = split(make_features(40, steps=2, sessions=[f"Ses{i % 5}" for i in range(40)]), "session")
    for fold, other in zip(folds, same, strict=True):
        for name, part in fold.splits.items():
            assert torch.equal(part.audio[:], other.splits[name].audio[:].half().float())
            assert part.utterance_ids == other.splits[name].utterance_ids
    with pytest.raises(InputError, match=r"audio is \(N, T, 12\), but the train split's is \(N, 12\)"):
        Fold(train=make_features(40), val=folds[0].val, test=folds[0].test)


def test_a_number_that_is_not_finite_is_found_in_its_file(make_features: Make, tmp_path: Path) -> None:
    audio = make_features(steps=2).audio[:].half()
    audio[13, 1, 4] = torch.inf
    tensors = {name: value[:] for name, value in make_features(steps=2).tensors().items()}
    save_file({**tensors, "audio": audio}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"utterance 'a:00013' \(row 13 of .*/a.safetensors\) holds NaN or infinity"):
        FeatureSet.load(tmp_path / "a.safetensors")


def test_large_numbers_are_finite_though_their_sum_is_not(make_features: Make) -> None:
    made = make_features()
    audio = torch.full_like(made.audio[:], 3e38)
    assert make_features(audio=audio).audio[0, 0] == audio[0, 0]


def test_what_float16_cannot_hold_is_refused(make_features: Make, tmp_path: Path) -> None:
    audio = make_features().audio[:].clone()
    audio[7, 2] = -70_000
    with pytest.raises(
        InputError, match=r"the audio embedding of utterance 'u_007' holds a number beyond 65504, the l"
    ):
        make_features(audio=audio).save(tmp_path / "a.safetensors", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_lies_about_places_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    one = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
    for wrong in ({"data_offsets": [0, 10]}, {"data_offsets": [4, 16]}, {"shape": [2, 4]}):
        header = json.dumps({"audio": {**one, **wrong}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
        with pytest.raises(InputError, match=r"a.safetensors: tensor 'audio' does not fit into the file"):
            StoredTensor.find(path, "audio")


MEASURED = """
    import json, os, sys, threading
    from pathlib import Path

    import torch
    from cemobam_core.features import FeatureSet
    from cemobam_core.corpora.splits import split

    def anonymous():
        pids = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
        found = []
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")]
        return max(found)

    peak, ended = anonymous(), threading.Event()
    before = peak

    def watch():
        global peak
        while not ended.wait(0.005):
            peak = max(peak, anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    torch.set_num_threads(1)
    features = FeatureSet.load(Path(sys.argv[1]))
    (fold,) = split(features, "random:80/10/10")
    fold.train.pooled()
    digest = features.fingerprint()
    batch = features.audio[torch.randint(len(features), (32,))]
    ended.set()
    watching.join()
    print(json.dumps({"before": before, "peak": peak, "shape": list(batch.shape), "digest": digest}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_features_larger_than_the_memory_allowed_are_loaded_checked_split_and_pooled(tmp_path: Path) -> None:
    n, steps, size = 2_000, 256, 768
    x = torch.randn(1, steps, size, generator=torch.Generator().manual_seed(0)).expand(n, -1, -1)
    try:
        for i in range(4):
            rows = n // 4
            tensors = {"audio": x[:rows], "text": x[:rows], "labels": torch.arange(rows) % 4}
            masks = {f"{name}_mask": torch.ones(rows, steps, dtype=torch.bool) for name in ("audio", "text")}
            write_tensors(tmp_path / f"all-0000{i}-of-00004.safetensors", tensors | masks, {}, dtype=torch.float16)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 1.5e9
        told = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURED), str(tmp_path / "all-00000-of-00004.safetensors")],
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        for path in tmp_path.iterdir():
            path.unlink()
    measured = json.loads(told.stdout)
    assert measured["shape"] == [32, steps, size]
    assert measured["peak"] < 300 * 2**20, measured


def test_inputs_that_stay_in_their_files_are_read_in_part(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    made = []
    for name, n, steps in (("train", 9, 4), ("val", 5, 3)):
        mask = torch.arange(steps) < torch.randint(1, steps + 1, (n, 1), generator=generator)
        features = FeatureSet(
            audio=torch.randn(n, steps, 5, generator=generator),
            text=torch.randn(n, 6, generator=generator),
            audio_mask=mask,
            labels=torch.arange(n) % 2,
            class_names=("a", "b"),
            utterance_ids=[f"{name}{i}" for i in range(n)],
        )
        features.save(tmp_path / f"{name}.safetensors", dtype=torch.float16)
        made.append(FeatureSet.load(tmp_path / f"{name}.safetensors"))
    assert all(isinstance(one.audio, Rows) for one in made)
    edges = torch.tensor([[0, 13], [1, 12]])
    whole, stored = (Batch.in_context(*made, edges, whole=each) for each in (True, False))
    assert (len(stored.inputs), stored.context, stored.sizes) == (14, 9, whole.sizes)
    for rows in ([3, 1], [13, 0, 9, 8], list(range(14))):
        ours, theirs = (one.inputs.part(torch.tensor(rows), edges[:, :0]) for one in (stored, whole))
        for modality in ("audio", "text"):
            got, wanted = getattr(ours, modality), getattr(theirs, modality)
            steps = got.shape[1]  # rows of one file alone are not padded to the steps of the other
            assert torch.equal(got.as_subclass(torch.Tensor), wanted.as_subclass(torch.Tensor)[:, :steps])
            assert torch.equal(got.mask, wanted.mask[:, :steps])
            assert not wanted.mask[:, steps:].any()
    moved = stored.inputs.to("cpu")
    assert torch.equal(moved.audio.pooled, whole.inputs.audio.pooled)
    assert torch.equal(moved.edge_index, edges)
    assert torch.equal(stored.few(4).inputs.text.pooled, whole.few(4).inputs.text.pooled)
    with pytest.raises(AttributeError, match="StoredInputs has no attribute 'nothing'"):
        stored.inputs.nothing  # noqa: B018

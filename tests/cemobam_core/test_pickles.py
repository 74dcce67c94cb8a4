"""A user's pickle must not run code, fill the memory, or end in a traceback."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import FeatureSet, InputError


def utterances(n: int = 12, **changes: Any) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "text_embed": torch.randn(8, generator=generator),
            "audio_embed": torch.randn(6, generator=generator),
            "label": torch.tensor(i % 4),
            **changes,
        }
        for i in range(n)
    ]


def load(tmp_path: Path, content: object) -> FeatureSet:
    path = tmp_path / "X_BERT_WAV2VEC_val.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return FeatureSet.load(path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_the_authors_format_is_read(tmp_path: Path, protocol: int) -> None:
    made = utterances()
    features = load(tmp_path, pickle.dumps(made, protocol))
    assert torch.equal(features.text, torch.stack([u["text_embed"] for u in made]))
    assert torch.equal(features.audio, torch.stack([u["audio_embed"] for u in made]))
    assert features.labels.tolist() == [i % 4 for i in range(12)]
    assert features.utterance_ids[3] == "X_BERT_WAV2VEC_val:00003"


def test_views_other_types_and_plain_labels_are_read(tmp_path: Path) -> None:
    shared = torch.arange(40, dtype=torch.float64).view(5, 8)
    made = [
        {"text_embed": shared[i], "audio_embed": shared.T[:, i][::2], "label": i % 2, "file": f"{i}.wav"}
        for i in range(5)
    ]
    features = load(tmp_path, made)
    assert torch.equal(features.text, shared.float())
    assert torch.equal(features.audio, shared[:, ::2].float())
    assert features.labels.tolist() == [0, 1, 0, 1, 0]


def test_real_features_are_read(real_pickle: Path) -> None:
    features = FeatureSet.load(real_pickle, ("anger", "happiness", "neutral", "sadness"))
    assert features.audio.shape == features.text.shape == (551, 768)
    assert features.labels.bincount().tolist() == [102, 163, 173, 113]


class Runs:
    """An object that is pickled as a function call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_command_in_it_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for call in (
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(Path.touch, mark),
        Runs(torch.load, io.BytesIO(b"")),
        Runs(np.fromfile, str(mark)),
    ):
        for content in ([call], utterances(label=call), {"a": call}):
            with pytest.raises(InputError, match=r"refused, and nothing in it was run: (it asks for|opcode)"):
                load(tmp_path, content)
    assert not mark.exists()


def test_a_command_inside_a_tensors_storage_is_not_run(tmp_path: Path) -> None:
    """The authors' tensors contain a second pickle, for which torch's own loader runs any code."""
    mark = tmp_path / "ran"
    inner = io.BytesIO()
    torch.save(Runs(os.system, f"touch {mark}"), inner, _use_new_zipfile_serialization=False)
    tensor = Runs(torch.storage._load_from_bytes, inner.getvalue())
    with pytest.raises(InputError, match="refused"):
        load(tmp_path, utterances(audio_embed=tensor))
    assert not mark.exists()


def test_the_old_way_to_name_a_function_is_refused_too(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    protocol_0 = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    inst = f"(S'touch {mark}'\nios\nsystem\n.".encode()
    for program in (protocol_0, inst):
        with pytest.raises(InputError, match="refused"):
            load(tmp_path, program)
    assert not mark.exists()


def test_a_state_cannot_be_set(tmp_path: Path) -> None:
    """BUILD would call a tensor's __setstate__ with any storage, offset and size."""
    small = torch.zeros(4)
    arguments = (small.untyped_storage(), 0, (4,), (1,), False, {})
    grown = Runs(torch._utils._rebuild_tensor_v2, *arguments)
    grown.call = (*grown.call, (small, 0, (2**28,), (1,)))  # type: ignore[assignment]
    with pytest.raises(InputError, match="refused, and nothing in it was run: opcode BUILD"):
        load(tmp_path, utterances(1, audio_embed=grown))


@pytest.mark.parametrize("label", [torch.tensor(0.9), 0.9, True, torch.tensor(True), torch.tensor([0, 1]), 2**70, "0"])
def test_a_label_is_one_whole_number(tmp_path: Path, label: object) -> None:
    with pytest.raises(InputError, match=r"'label' of utterance 0 is|asks for torch.BoolStorage"):
        load(tmp_path, utterances(label=label))


@pytest.fixture
def little_memory() -> Any:
    """Limit memory to 2 GiB above current use, so that a trusted false size fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits the memory by what Linux tells")
def test_a_huge_claimed_size_is_not_believed(tmp_path: Path, little_memory: None) -> None:
    small = torch.zeros(4)
    storage = io.BytesIO()
    torch.save(small.untyped_storage(), storage, _use_new_zipfile_serialization=False)
    honest = pickle.dumps(utterances(1))
    claims = [
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a bytearray of a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",  # bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",  # a string
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + honest[11:],  # a frame
        b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of four billion entries
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",  # a number of two billion digits
    ]
    for program in claims:
        with pytest.raises(InputError):
            load(tmp_path, program)
    for size, stride in (((2**40,), (0,)), ((2**20, 2**20), (0, 0)), ((5,), (1,)), ((2,), (-1,))):
        tensor = Runs(torch._utils._rebuild_tensor_v2, small.untyped_storage(), 0, size, stride, False, {})
        with pytest.raises(InputError):
            load(tmp_path, utterances(1, audio_embed=tensor))


def test_a_storage_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    good = pickle.dumps(utterances(1), protocol=4)
    count = struct.pack("<q", 6)  # the audio embedding's six numbers
    at = good.rindex(count)
    spoilt = good[:at] + struct.pack("<q", 2**50) + good[at + 8 :]
    with pytest.raises(InputError, match="claims"):
        load(tmp_path, spoilt)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = pickle.dumps(utterances(2))
    for end in range(0, len(whole), 7):
        with pytest.raises(InputError, match=r"truncated or not a pickle|refused"):
            load(tmp_path, whole[:end])


@given(st.data())
def test_spoilt_bytes_give_features_or_our_error_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(utterances(4)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        load(tmp_path, bytes(content))
    except InputError as error:
        assert "X_BERT_WAV2VEC_val.pkl" in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"audio_embed": 1}], r"utterance 0 holds \['audio_embed'\]; each must be a dict with"),
        ([*utterances(1), {"audio_embed": 1, "text_embed": 2}], "utterance 1 holds"),
        ({"audio": 1}, "contains dict, but must contain a list of utterances"),
        ([], "contains list, but must contain a list of utterances"),
        ([7], "utterance 0 holds int"),
        (utterances(11) + utterances(1, text_embed=torch.zeros(9)), r"'text_embed' of utterance 11 is \(9,\)"),
        (utterances(text_embed=[1.0]), "'text_embed' of utterance 0 is list"),
    ],
)
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, content)

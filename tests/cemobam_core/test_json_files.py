from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cemobam_core import json_files
from cemobam_core.errors import InputError
from cemobam_core.json_files import read_json


@pytest.mark.parametrize("content", [None, 1.5, "ŷ", [], {"a": [{"b": 10**40}]}])
def test_json_is_read(tmp_path: Path, content: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b'"\xff"', "cannot be read as JSON"),
        (b"9" * 5_000, "cannot be read as JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 51 + b"]" * 51, "nested too deeply"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (b'"' + b"x" * 1_000 + b'"', "larger than 0 MB"),
    ],
)
def test_what_is_no_json_is_one_line(
    tmp_path: Path, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said.startswith("larger"):
        monkeypatch.setattr(json_files, "LARGEST", 1_000)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        read_json(tmp_path / "a.json")
    assert str(raised.value).startswith(f"{tmp_path / 'a.json'}: ")


def test_lists_in_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 50 + "]" * 50)
    assert read_json(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="is a pipe"):
        read_json(tmp_path / "a.json")

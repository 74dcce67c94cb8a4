from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core.corpora import text_files
from cemobam_core.corpora.text_files import read_content, read_lines, read_utf8
from cemobam_core.errors import InputError

# Characters of typewritten and typeset English.
_ENGLISH = st.text(st.sampled_from("abcXYZ ,.!?'-0189’“”"), min_size=1, max_size=30).map(str.strip)


@given(
    lines=st.lists(_ENGLISH, min_size=1, max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_english_is_read_whatever_the_encoding(lines: list[str], encoding: str, end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes(end.join(lines).encode(encoding))
        assert read_lines(path) == lines


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"it\x92s", "it’s"),  # GBK would have 抯
        ("it’s “so”".encode("gbk"), "it’s “so”"),
        ("ｆｉｎｅ，　ｙｅｓ".encode("gbk"), "ｆｉｎｅ，　ｙｅｓ"),
        (b"caf\xe9 fianc\xe9e", "café fiancée"),
        ("“Anna”".encode("utf-16-be"), "“Anna”"),
        (b"\x81 broken", "\ufffd broken"),
        (b"", ""),
    ],
)
def test_the_odd_encodings(tmp_path: Path, raw: bytes, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    assert read_lines(tmp_path / "a.txt") == [text]


@pytest.mark.parametrize("read", [read_content, read_utf8, read_lines])
def test_only_regular_files_that_are_not_too_large(tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(InputError, match=r"a.txt: cannot be read \(No such file or directory\); check the path"):
        read(path)
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"a\.txt: is a pipe; give a regular file"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"a\.txt: is a device; give a regular file"):
        read(path)
    path.unlink()
    path.write_bytes(b"x" * (text_files.LARGEST + 1))
    with pytest.raises(InputError, match=r"a\.txt: is larger than 100 MB; give a text file"):
        read(path)


def test_lines_are_neither_too_many_nor_too_long(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for encoding in ("utf-8", "utf-16"):
        path.write_text("\n" * 500_001, encoding)
        with pytest.raises(InputError, match=r"a\.txt: has more than 500000 lines; get the file again"):
            read_lines(path)
        path.write_text("short\n" + "x" * 100_001, encoding)
        with pytest.raises(InputError, match=r"a\.txt line 2: has more than 100000 letters; get the file again"):
            read_lines(path)
        path.write_text("short\n" + "x" * 100_000, encoding)
        assert [len(line) for line in read_lines(path)] == [5, 100_000]


def test_a_byte_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfaudio \xed\xa0\x80")
    with pytest.raises(InputError, match=r"a.txt: not UTF-8 \(byte 6\); save it in UTF-8"):
        read_utf8(path)
    path.write_bytes(b"\xef\xbb\xbfaudio")
    assert read_utf8(path) == "audio"

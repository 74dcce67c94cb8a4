from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core.corpora.text_files import read_lines

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

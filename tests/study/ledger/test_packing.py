"""Bytes as attributes of a ledger."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import InputError
from study.ledger import packing
from study.ledger.packing import LONGEST, packed, unpacked


@given(st.binary(max_size=2000))
def test_what_is_packed_is_unpacked_beside_anything_else(content: bytes) -> None:
    attributes = packed("x", content)
    assert unpacked("x", {"status": "done", "xy:0": "other", **attributes}) == content
    assert unpacked("y", attributes) is None


def test_no_part_is_longer_than_mysql_takes() -> None:
    content = b"".join(zlib.crc32(i.to_bytes(4)).to_bytes(4) for i in range(40_000))  # it cannot be compressed
    attributes = packed("x", content)
    assert list(attributes) == ["x:0", "x:1", "x:2", "x:3"]
    assert max(len(part.encode()) for part in attributes.values()) == LONGEST < 2**16 - 2
    assert unpacked("x", attributes) == content
    assert unpacked("x", {**attributes, "x:4": ""}) == content  # the bytes were longer before


@pytest.mark.parametrize(
    "attributes",
    [
        {"x:0": "§"},
        {"x:0": "YQ"},
        {"x:0": "YWJj"},
        {"x:0": 3},
        {"x:0": ["a"]},
        {"x:0": ""},
        {"x:0": packed("x", b"abc")["x:0"][:-4]},
        {"x:0": packed("x", b"abc")["x:0"], "x:1": "YWJj"},
        {"x:0": base64.b64encode(zlib.compress(b"abc") + b"more").decode()},
    ],
)
def test_what_is_damaged_is_told_in_a_line(attributes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^x is damaged") as error:
        unpacked("x", attributes)
    assert "\n" not in str(error.value)


def test_what_claims_to_be_huge_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_LARGEST", 1000)
    assert unpacked("x", packed("x", bytes(1000))) == bytes(1000)
    with pytest.raises(InputError, match="x is damaged"):
        unpacked("x", packed("x", bytes(1001)))

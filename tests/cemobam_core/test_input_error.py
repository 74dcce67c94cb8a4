from __future__ import annotations

import pickle

import pytest

from cemobam_core.errors import InputError


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a.csv: no  column 'ŷ'; add it", "a.csv: no  column 'ŷ'; add it"),
        ("a\n  b\r\nc\u2028d\n", "a b c d"),
        ("\x1b[2J\a\x00\x9b", r"\x1b[2J\x07\x00\x9b"),
        ("\u202egpj.exe\ud800", r"\u202egpj.exe\ud800"),
        (r"\x1b", r"\x1b"),
    ],
)
def test_a_message_is_one_line_of_printable_letters(said: str, shown: str) -> None:
    error = InputError(said)
    assert str(error) == shown
    assert str(InputError(shown)) == shown
    assert str(pickle.loads(pickle.dumps(error))) == shown


@pytest.mark.parametrize("filler", ["x", "\x1b", "x\n", " "])
def test_a_long_message_keeps_its_start_and_its_end(filler: str) -> None:
    shown = str(InputError("a.csv: " + filler * 10_000_000 + "; get the file again"))
    assert len(shown) <= 600
    assert shown.startswith("a.csv: ") and shown.endswith("; get the file again")

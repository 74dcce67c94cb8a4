"""All hostile encoders, of which :mod:`hostile.encoders` gives the other tests a part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hostile.encoders import ALL_CASES
from hostile.harness import Judge, Warm, readers

from cemobam_core import wall

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time"),
]


@pytest.mark.parametrize("name", ALL_CASES)
def test_every_hostile_encoder_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with Warm(tmp_path / "run") as warm:
        (tmp_path / "files").mkdir()
        judge = Judge(warm, replace(readers()[name], cases=ALL_CASES[name]), tmp_path / "files")
        judge.cases()
    assert not judge.wrong, "\n".join(judge.wrong[:20])

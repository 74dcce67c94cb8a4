"""The harness finds whatever a reader must not do, and tells which file it was."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile.harness import Judge, Reader, Warm, mutated, mutations
from hostile.misbehaving import MISBEHAVING, SAID, SLOW

from cemobam_core import wall

TOO_SLOW = "s of processor time|waits for|hangs for"

pytestmark = pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with Warm(tmp_path_factory.mktemp("reading") / "run", kind="MISBEHAVING", hurry=10) as reading:
        yield reading


@pytest.mark.parametrize(
    "reader",
    [pytest.param(r, id=r.name, marks=[pytest.mark.hostile] * (r in SLOW)) for r in MISBEHAVING],
)
def test_whatever_a_reader_must_not_do_is_found(reader: Reader, warm: Warm, tmp_path: Path) -> None:
    judge = Judge(warm, reader, tmp_path)
    folder = tmp_path / "cases"
    folder.mkdir()
    judge.read("this file", reader.good(folder))
    # A busy machine makes any reader slow as well: with `hurry`, only 2 s of processor time are allowed.
    found = [text for text in judge.wrong if not re.search(TOO_SLOW, text) or re.search(SAID[reader], text)]
    assert len(found) == 1 and re.search(SAID[reader], found[0]), judge.wrong
    assert found[0].startswith(f"{reader.name}: this file: ")


def test_damage_is_the_same_for_the_same_seed_and_other_for_another() -> None:
    good = bytes(range(256)) * 4
    first, again, other = (list(mutations(good, 50, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({data for _, data in first}) > 45
    assert all(data != good for _, data in first[:10])
    assert list(mutations(good, 10, 1)) == first[:10]
    assert len(list(mutations(b"", 50, 1))) == 50


def test_one_file_of_a_folder_is_damaged(tmp_path: Path) -> None:
    good = tmp_path / "good"
    (good / "inside").mkdir(parents=True)
    contents = {"a": b"a" * 100, "inside/b": b"b" * 100}
    for name, content in contents.items():
        (good / name).write_bytes(content)
    damaged = set()
    for _, copy in mutated(good, tmp_path / "copies", 20, seed=0):
        changed = [name for name, content in contents.items() if (copy / name).read_bytes() != content]
        assert len(changed) <= 1
        damaged.update(changed)
        shutil.rmtree(tmp_path / "copies")
    assert damaged == set(contents)
    assert {name: (good / name).read_bytes() for name in contents} == contents

"""Temporary files and folders: those of killed processes are removed, those of running ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cemobam_core.files import place_for_sockets, remove_leftovers, temporary_folder, written_atomically

ENDLESS = """
import sys, time
from pathlib import Path
from cemobam_core.files import temporary_folder, written_atomically
with written_atomically(Path("results/deep/fig.pdf")) as file, temporary_folder() as folder:
    (folder / "full").mkdir()
    print(file, folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(in_folder / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_a_killed_process_left_is_removed_and_what_a_running_one_needs_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        file, folder = map(Path, process.stdout.readline().split())
        assert file.suffix == ".pdf"
        remove_leftovers(Path("results"))
        assert file.exists()
        assert (folder / "full").exists()
        process.kill()
        process.wait()
    assert file.exists()
    remove_leftovers(Path("results"), Path("nowhere"))
    assert not file.exists()
    assert not folder.exists()


def test_nothing_else_is_removed(in_folder: Path) -> None:
    with written_atomically(in_folder / "c.pdf") as temporary:
        own = temporary.name
    kept = [".hidden", ".notes.part", own.removesuffix(".pdf") + "s", own[1:], own.replace(".part", "g.part")]
    kept.append(own.replace(own.split(".")[2][:8], "0" * 8))  # of another machine
    for name in kept:
        Path(name).write_text("mine")
    others = in_folder / "tmp" / "cemobam-tmp-of-mine"
    others.mkdir()
    remove_leftovers(in_folder)
    assert sorted(path.name for path in in_folder.glob("*") if path.is_file()) == sorted([*kept, "c.pdf"])
    assert others.exists()


def test_a_temporary_folder_is_private_and_gone_at_the_end(in_folder: Path) -> None:
    with temporary_folder() as folder, temporary_folder(in_folder) as other:
        assert folder.parent == in_folder / "tmp"
        assert other.parent == in_folder
        assert folder.stat().st_mode & 0o077 == 0
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        raise KeyboardInterrupt
    assert list((in_folder / "tmp").iterdir()) == []
    assert [path.name for path in in_folder.iterdir()] == ["tmp"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_new_folder_that_another_process_took_for_a_leftover_is_made_again(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    taken = []
    real = os.open

    def swept(path: str | Path, flags: int, *others: Any, **named: Any) -> int:
        if taken or not isinstance(path, Path):
            return real(path, flags, *others, **named)
        taken.append(path)
        handle = real(path, flags, *others)
        path.rmdir()
        return real(path, flags, *others) if moment == "before it is opened" else handle

    monkeypatch.setattr(os, "open", swept)
    with temporary_folder() as folder:
        assert folder.exists()
        assert taken != [folder]
    assert not folder.exists()


def test_sockets_have_a_place_of_a_short_path(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 107 - len(str(in_folder / "tmp"))
    assert place_for_sockets(room) is None
    assert place_for_sockets(room + 1) == Path("/tmp")


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
def test_a_file_follows_the_umask(in_folder: Path) -> None:
    before = os.umask(0o027)
    try:
        with written_atomically(in_folder / "no_suffix") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (in_folder / "no_suffix").stat().st_mode & 0o777 == 0o640

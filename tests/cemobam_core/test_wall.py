from __future__ import annotations

import ctypes
import errno
import faulthandler
import multiprocessing
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from cemobam_core import FeatureSet, wall
from cemobam_core.errors import InputError
from cemobam_core.wall import Content, Wall, tried, walled

pytestmark = pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def contents(path: Path, *more: Any) -> Content:
    return {"x": torch.arange(6.0).reshape(2, 3).T, "empty": torch.zeros(0)}, [path.read_text(), *more]


def refusing(path: Path) -> Content:
    raise InputError(f"{path}: is\nnot what it should be")


def failing(path: Path) -> Content:
    raise KeyError("a" * 1_000 + "\n")


def crashing(path: Path) -> Content:
    ctypes.string_at(0)
    raise AssertionError


def hungry(path: Path) -> Content:
    return {}, len(b"x" * (64 << 30))


def hungry_in_torch(path: Path) -> Content:
    return {}, len(torch.ones(64 << 30))


def claiming(path: Path) -> Content:
    return {"x": torch.ones(1).expand(1 << 20, 1 << 20)}, None


def endless(path: Path) -> Content:
    while True:
        pass


def sleeping(path: Path) -> Content:
    time.sleep(600)
    return {}, None


def leaving(path: Path) -> Content:
    os._exit(3)


def odd(path: Path) -> Content:
    return {}, object()


def odd_exception(path: Path) -> Content:
    raise UnicodeDecodeError("utf-8", b"\xff\n", 0, 1, "invalid\nstart")


def deep(path: Path) -> Content:
    facts: Any = []
    for _ in range(100_000):
        facts = [facts]
    return {}, facts


def long(path: Path) -> Content:
    return {}, "x" * 2_000


def big(path: Path) -> Content:
    with (path.parent / "big").open("wb") as out:
        out.truncate(1 << 40)
    return {}, None


def test_what_is_read_comes_back_as_it_is(file: Path) -> None:
    tensors, facts = walled(contents, file, 3, "π")
    assert facts == ["content", 3, "π"]
    assert torch.equal(tensors["x"], torch.arange(6.0).reshape(2, 3).T)
    assert tensors["empty"].shape == (0,)


def test_a_child_is_used_again_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    with Wall(contents) as one:
        one(file)
        (child,) = set(psutil.Process().children()) - before
        assert [one(file, i)[1] for i in range(20)] == [["content", i] for i in range(20)]
        assert set(psutil.Process().children()) - before == {child}
    assert set(psutil.Process().children()) <= before
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (refusing, "is not what it should be"),
        (failing, "cannot be read (KeyError"),
        (crashing, "reading it crashes (SIGSEGV)"),
        (hungry, "GB of memory"),
        (hungry_in_torch, "GB of memory"),
        (claiming, "takes more than 1.6 GB of memory; the file is damaged"),
        (endless, "takes more than 1 s"),
        (leaving, "crashes (exit status 3)"),
        (odd, "cannot be read (TypeError"),
        (big, "File too large"),
    ],
)
def test_whatever_happens_is_one_line_and_the_next_file_is_read(file: Path, read: Any, said: str) -> None:
    with Wall(_one_or_other, seconds=1) as one:
        with pytest.raises(InputError) as raised:
            one(file, read.__name__)
        assert said in str(raised.value)
        assert str(raised.value).startswith(f"{file}: ")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
        assert one(file, "contents")[1] == ["content"]


def _one_or_other(path: Path, name: str) -> Content:
    made: Content = globals()[name](path)
    return made


def test_a_reader_that_waits_for_ever_is_ended(file: Path) -> None:
    with Wall(sleeping, seconds=-3) as one, pytest.raises(InputError, match="takes more than 1 s"):
        one(file)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing"])
def test_only_regular_files_are_read(file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(InputError, match=f"is a {kind}; give a regular" if kind != "nothing" else "cannot be read"):
        walled(contents, path)
    with Wall(contents) as one, pytest.raises(InputError, match=f"{path}: "):
        one(file, beside=[path])


def test_a_file_of_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.write(b"{}")
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"x\.json: most of its 1099\.5 GB are not there"):
        walled(contents, path)


@pytest.mark.parametrize("read", [deep, long])
def test_facts_that_cannot_be_passed_on_are_one_line(file: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall, "_LONGEST_ANSWER", 1_000)
    with Wall(read) as one:
        for _ in range(2):
            with pytest.raises(InputError, match=rf"{file}: .*(RecursionError|too deeply|too long)"):
                one(file)


@pytest.mark.parametrize("limits", [True, False])
@pytest.mark.parametrize("read", [refusing, failing, odd_exception])
def test_what_is_tried_is_one_line_with_and_without_limits(
    file: Path, read: Any, limits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall, "HAS_LIMITS", limits)
    with tried(read) as reading, pytest.raises(InputError, match=f"{file}: "):
        reading(file)
    with pytest.raises(InputError, match=f"{file}: "):
        walled(read, file)


@pytest.mark.parametrize("read", [crashing, hungry, endless])
def test_what_fails_behind_the_wall_is_not_tried_here(file: Path, read: Any) -> None:
    with tried(read, seconds=1) as reading, pytest.raises(InputError, match=f"{file}: reading it"):
        reading(file)


def test_what_is_tried_is_read_here(file: Path) -> None:
    kept = []

    def keeping(path: Path, more: int) -> list[tuple[int, int]]:
        kept.append((os.getpid(), more))
        return kept

    before = psutil.Process().children()
    with tried(keeping) as reading:
        assert reading(file, 1) is kept
        assert reading(file, 2, beside=[file]) == [(os.getpid(), 1), (os.getpid(), 2)]
    assert psutil.Process().children() == before


def test_a_crash_prints_nothing_of_its_own(file: Path) -> None:
    assert faulthandler.is_enabled()  # by pytest, and by Ray
    assert walled(lambda path: ({}, faulthandler.is_enabled()), file)[1] is False


def exploding(path: Path) -> Content:
    class Bomb(Exception):
        def __str__(self) -> str:
            return "x" * (64 << 30)

    raise Bomb


def half_written(path: Path, name: str) -> Content:
    return ({"x": torch.zeros(1)} if name == "half" else {}), name


def test_what_an_error_says_is_within_the_limits(file: Path) -> None:
    with pytest.raises(InputError, match=f"{file}: (reading it takes more than|cannot be read)"):
        walled(exploding, file)


def test_nothing_of_one_file_is_taken_for_another(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_halfway(tensors: Any, place: Path) -> None:
        save_file({"x": torch.zeros(1)}, place)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", failing_halfway)
    with Wall(half_written) as one:
        with pytest.raises(InputError, match=rf"{file}: no space is left in .*; free some, or set TMPDIR"):
            one(file, "half")
        assert one(file, "empty") == ({}, "empty")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "other"])
def test_only_a_regular_file_of_tensors_is_taken(file: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(tensors: Any, folder: Path, path: Path) -> None:
        place = folder / wall._TENSORS
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "link":
            place.symlink_to("/dev/zero")
        elif kind == "folder":
            place.mkdir()
        else:
            place.write_bytes(b"x" * 100)

    monkeypatch.setattr(wall, "_pass_on", leave)
    with Wall(contents) as one:
        for _ in range(2):
            with pytest.raises(InputError, match=f"{file}: its content could not be passed on"):
                one(file)


def test_a_wall_in_a_wall_is_one_wall(file: Path) -> None:
    def nested(path: Path) -> Content:
        return {}, [os.getpid(), walled(lambda _: ({}, os.getpid()), path)[1]]

    _, (outer, inner) = walled(nested, file)
    assert outer == inner != os.getpid()


def test_a_daemon_may_read(file: Path) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_read_here, (file,)) == ["content"]


def _read_here(path: Path) -> Any:
    return walled(contents, path)[1]


def test_threads_share_a_wall(file: Path) -> None:
    with Wall(contents) as one, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda i: one(file, i)[1][1], range(60))) == list(range(60))


def test_a_system_without_processes_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refusing)
    with pytest.raises(InputError, match="no process could be started to read it"):
        walled(contents, file)


def test_the_limits_of_the_user_stay(file: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        assert walled(lambda path: ({}, resource.getrlimit(resource.RLIMIT_FSIZE)[0]), file)[1] == 1000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_child_ends_with_its_parent(file: Path) -> None:
    with Wall(contents) as one:
        one(file)
        assert one._child
        one._child.pipe.close()  # as the end of this process would
        assert one._child.exit_status(5.0) == 0


def test_the_limits_are_off_where_there_are_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall, "HAS_LIMITS", False)
    before = psutil.Process().children()
    assert walled(lambda path: ({}, os.getpid()), file)[1] == os.getpid()
    assert psutil.Process().children() == before


def _deep_key() -> bytes:
    """Return a pickle of a dict whose key is a million tuples in each other: its hash overflows the stack."""
    return b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns."


def _multiplied() -> bytes:
    """Return a pickle of a list of lists of lists, each ten times in the next: its text has 10^12 letters."""
    levels = b"".join(b"(" + b"h\x01" * 10 + b"lq\x01" for _ in range(12))
    return b"\x80\x02]q\x01" + levels + b"}q\x02h\x01Ns."


@pytest.mark.parametrize("content", [_deep_key(), _multiplied()], ids=["deep key", "multiplied"])
def test_a_pickle_that_ends_its_reader_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        FeatureSet.load(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)

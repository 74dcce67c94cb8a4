"""A forked process keeps nothing of its parent: no file, no lock, no thread, no object."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import ROOT, alive, start_python, until

from cemobam_core import wall
from cemobam_core.forked import Forked

pytestmark = pytest.mark.skipif(not wall.HAS_LIMITS, reason="walls fork on Linux only")


def waiting(pipe: Connection) -> None:
    pipe.send("here")
    pipe.recv()


def answer(work: Any) -> Any:
    child = Forked(lambda pipe: pipe.send(work()))
    try:
        return child.pipe.recv()
    finally:
        child.end()


@pytest.fixture
def child() -> Any:
    forked = Forked(waiting)
    assert forked.pipe.recv() == "here"
    yield forked
    forked.end()


def test_files_and_locks_of_the_parent_are_not_kept(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as held, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat:
        fcntl.flock(held, fcntl.LOCK_EX)
        child = Forked(waiting)
        child.pipe.recv()
        held.close()
        with lock.open("w") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert cat.stdin
        cat.stdin.close()
        assert cat.wait(10) == 0  # it sees the end of its input
        child.end()


def test_what_closes_a_file_of_the_parent_closes_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("content")
    old = (tmp_path / "old").open("w")

    def work() -> str:
        with (tmp_path / "new").open() as new:
            old.close()
            return new.read()

    old.write("x")
    assert answer(work) == "content"
    assert (tmp_path / "old").read_text() == ""
    old.close()
    assert (tmp_path / "old").read_text() == "x"


def test_garbage_of_the_parent_is_not_collected(tmp_path: Path) -> None:
    class Ending:
        def __del__(self) -> None:
            (tmp_path / str(os.getpid())).touch()

    knot: list[Any] = [Ending()]
    knot.append(knot)
    gc.disable()
    del knot
    try:
        assert answer(gc.collect) >= 0
        assert list(tmp_path.iterdir()) == []
    finally:
        gc.enable()
        gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_torch_computes_after_its_threads_have(tmp_path: Path) -> None:
    code = """
import torch
from cemobam_core.wall import walled
torch.set_num_threads(4)
x = torch.randn(600, 600)
before = (x @ x).softmax(1).sum()
read = lambda path: ({"x": (x @ x).softmax(1).sum()[None]}, torch.get_num_threads())
tensors, threads = walled(read, __import__("pathlib").Path(__file__))
assert threads == 1 and torch.isclose(tensors["x"][0], before), (threads, before)
"""
    (tmp_path / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "4"}
    subprocess.run([sys.executable, tmp_path / "script.py"], env=environment, check=True, timeout=120)


def test_an_exception_never_goes_on_with_the_parents_code() -> None:
    before = os.getpid()
    child = Forked(lambda pipe: pipe.no_such_thing())
    assert os.getpid() == before
    assert child.exit_status(10.0) == 1
    child.end()


def test_a_child_that_was_reaped_by_another_is_ended(child: Forked) -> None:
    os.kill(child._pid, signal.SIGKILL)
    os.waitpid(child._pid, 0)
    assert child.exit_status(5.0) == 1
    child.end()


def test_an_ended_child_is_no_zombie(child: Forked) -> None:
    process = psutil.Process(child._pid)
    child.end()
    assert not process.is_running()
    child.end()


def test_no_warning_is_given_of_threads(recwarn: pytest.WarningsRecorder) -> None:
    waits = threading.Event()
    thread = threading.Thread(target=waits.wait)
    thread.start()
    try:
        assert answer(threading.active_count) == 1
    finally:
        waits.set()
        thread.join()
    assert not recwarn.list


def test_signals_are_those_of_a_new_process() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    child = Forked(waiting)
    try:
        child.pipe.recv()
        os.kill(child._pid, signal.SIGINT)
        assert child.exit_status(0.05) is None
        os.kill(child._pid, signal.SIGTERM)
        assert child.exit_status(10.0) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
        child.end()


@pytest.mark.process
@pytest.mark.parametrize("busy", ["while True: pass", "time.sleep(600)"])
def test_a_child_ends_soon_after_its_parent_was_killed(tmp_path: Path, busy: str) -> None:
    (tmp_path / "script.py").write_text(f"""
import os, time
from pathlib import Path
from cemobam_core.wall import Wall
def read(path):
    Path("child.part").write_text(str(os.getpid()))
    Path("child.part").rename("child")
    {busy}
Wall(read, seconds=-2)(Path(__file__))
""")
    process = start_python(str(tmp_path / "script.py"), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    until((tmp_path / "child").exists, "the child reads", process)
    child = psutil.Process(int((tmp_path / "child").read_text()))
    process.kill()
    until(lambda: not alive(child), "the child ends")

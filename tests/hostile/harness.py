"""Run a reader over hostile files, each in a process of its own, and tell what it may not do to anyone.

A module beside this one lists its readers in ``READERS``. Each says which hostile files there are for it
(``cases``), how to make a good file (``good``), which is damaged at random (:func:`mutations`), and how to read one.

:class:`Warm` is a process in which everything is imported. It forks a child for each file, in folders of the run's own,
and :class:`Judge` says what was wrong: anything but content or a refusal in one line, more than 2 GB, more than 20 s,
a file left half-written, a process left behind, or any change outside the run's folders.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import itertools
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cemobam_core import wall
from cemobam_core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

CANARY = "canary"
"""Name of the file that hostile code makes beside its own file if it is ever run."""

MEMORY = 2_000_000_000
"""Bytes that reading may take at its peak, beyond what the process has that reads."""
SECONDS = 20
"""Processor time that reading may take, with all child processes."""
PATIENCE = 150
"""Seconds after which reading hangs, on however busy a machine."""
LONGEST = 600
"""Letters of the longest message."""


@dataclass(frozen=True)
class Reader:
    """A reader of files or folders that may come from anyone.

    Args:
        name: Name in the tests.
        cases: Makes hostile files in a folder, one after the other, each with the name of the case. A file may be
            removed as soon as the next one is asked for.
        good: Makes a good file or folder in an empty folder.
        read: Reads a file or folder: it returns, or raises an :class:`InputError`. :func:`command` runs a command.
        every: The quick run takes one hostile file in so many. The full run takes all.
    """

    name: str
    cases: Callable[[Path], Iterable[tuple[str, Path]]]
    good: Callable[[Path], Path]
    read: Callable[[Path], object]
    every: int = 1


def readers(kind: str = "READERS") -> dict[str, Reader]:
    """Return the readers of all modules beside this one, by name.

    Args:
        kind: Name of their list in the modules.
    """
    here = [str(Path(__file__).parent)]
    names = sorted(module.name for module in pkgutil.iter_modules(here) if not module.name.startswith("test_"))
    modules = [importlib.import_module(f"hostile.{name}") for name in names]
    return {reader.name: reader for module in modules for reader in getattr(module, kind, ())}


def command(*words: str) -> None:
    """Run ``cemobam`` in this process.

    Raises:
        InputError: The command ended with exit status 2 and one line.
        AssertionError: It refused in several lines.
    """
    from study.commands import cemobam

    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = cemobam(list(words))
        except SystemExit as stop:
            status = int(stop.code or 0)
    said = err.getvalue()
    print(said, file=sys.stderr)
    if status == 2:
        lines = [line for line in said.splitlines() if line.startswith("cemobam")]
        assert len(lines) == 1 and said.endswith(f"{lines[0]}\n"), f"not one line: {said}"
        raise InputError(lines[0])
    assert status in (0, 1), f"exit status {status}: {said}"


# Random damage.

_EXTREME = [0, 1, -1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
_EXTREME_TEXT = [b"-1", b"0", b"1e999", b"NaN", b"9" * 5000, b"1099511627776", b"9223372036854775807", b"1e-400", b"[]"]
_TOKENS = [
    *(b"\0" * 64, b"\xff" * 64, b"[" * 100_000, b'{"a":' * 20_000, b'"', b"'", b"\n", b"\r\n", b",", b";", b"\t"),
    *(b"\x1b[2J\x1b[31m", b"\a\b\r", b"\xef\xbb\xbf", b"\\ud800", b"\xed\xa0\x80", b"\xe2\x80\xae", b"%s%n{0}"),
    *(b"../../../../x", b"/dev/zero", b"=1+1", b"null", b"NaN", b"PK\x03\x04", b"\x80\x04.", b"fLaC", b"RIFF"),
    *(b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///dev/zero'>]>"),
]


def mutations(good: bytes, number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies of a good file, each with the name of the damage, the same for the same seed.

    Args:
        good: Content of the good file.
        number: How many.
        seed: Decides what is damaged, and how.
    """
    for i in range(number):
        dice = random.Random(f"{seed} {i}")
        data = bytearray(good)
        done = [dice.choice(_WAYS)(dice, data) for _ in range(dice.choice([1, 1, 1, 2, 4]))]
        yield f"mutation {seed} {i}: {', '.join(done)}", bytes(data)


def mutated(good: Path, folder: Path, number: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Yield damaged copies of a good file, or of a folder in which one file is damaged."""
    files = sorted(path for path in good.rglob("*") if path.is_file()) if good.is_dir() else [good]
    for i in range(number):
        file = random.Random(f"{seed} {i} file").choice(files)
        ((damage, data),) = mutations(file.read_bytes(), 1, seed * 1_000_003 + i)
        copy = folder / good.name
        if good.is_dir():
            shutil.copytree(good, copy, symlinks=True)
        else:
            folder.mkdir(exist_ok=True)
        (copy / file.relative_to(good) if good.is_dir() else copy).write_bytes(data)
        yield f"{damage} in {file.name}", copy


def _place(dice: random.Random, data: bytearray) -> int:
    """Return a random place in a file, often one near its start, where the headers are."""
    return dice.randrange(max(1, dice.choice([len(data), len(data), min(len(data), 512), min(len(data), 64)])))


def _flip_bits(dice: random.Random, data: bytearray) -> str:
    number = dice.choice([1, 1, 3, 20])
    for _ in range(number if data else 0):
        data[_place(dice, data)] ^= 1 << dice.randrange(8)
    return f"{number} bits flipped"


def _other_bytes(dice: random.Random, data: bytearray) -> str:
    at = _place(dice, data)
    new = dice.randbytes(dice.choice([1, 2, 4, 64]))
    data[at : at + len(new)] = new
    return f"{len(new)} other bytes at {at}"


def _truncate(dice: random.Random, data: bytearray) -> str:
    end = dice.choice([0, 1, _place(dice, data), _place(dice, data), max(0, len(data) - 1)])
    del data[end:]
    return f"cut off at {end}"


def _remove(dice: random.Random, data: bytearray) -> str:
    at, length = _place(dice, data), dice.choice([1, 4, 16, 256, len(data) // 4])
    del data[at : at + length]
    return f"{length} bytes removed at {at}"


def _duplicate(dice: random.Random, data: bytearray) -> str:
    at, length = _place(dice, data), dice.choice([1, 4, 16, 256, len(data) // 4])
    times = dice.choice([1, 1, 3, 100])
    data[at:at] = data[at : at + length] * min(times, 2**20 // max(1, length))
    return f"{length} bytes {times} times more at {at}"


def _move(dice: random.Random, data: bytearray) -> str:
    at, length = _place(dice, data), dice.choice([1, 4, 16, 256])
    block = data[at : at + length]
    del data[at : at + length]
    to = _place(dice, data)
    data[to:to] = block
    return f"{length} bytes moved from {at} to {to}"


def _extreme_number(dice: random.Random, data: bytearray) -> str:
    at, size = _place(dice, data), dice.choice([1, 2, 3, 4, 8])
    number = dice.choice(_EXTREME) % 256**size
    data[at : at + size] = number.to_bytes(size, dice.choice(["little", "big"]))
    return f"{number} in {size} bytes at {at}"


def _extreme_text(dice: random.Random, data: bytearray) -> str:
    """Replace a number that is written in digits."""
    at = _place(dice, data)
    start = next((i for i in range(at, len(data)) if chr(data[i]).isdigit()), at)
    end = next((i for i in range(start, len(data)) if chr(data[i]) not in "0123456789.eE+-"), len(data))
    text = dice.choice(_EXTREME_TEXT)
    data[start : min(end, start + 40)] = text
    return f"{text[:20].decode()} at {start}"


def _token(dice: random.Random, data: bytearray) -> str:
    at, token = _place(dice, data), dice.choice(_TOKENS)
    data[at : at + dice.choice([0, len(token)])] = token
    return f"{token[:16]!r} at {at}"


_WAYS = [
    *(_flip_bits, _flip_bits, _other_bytes, _truncate, _remove, _duplicate, _move),
    *(_extreme_number, _extreme_number, _extreme_text, _token),
]


# Reading in a process of its own.


@dataclass(frozen=True)
class Verdict:
    """What became of reading a file: ``wrong`` is empty if it was read or refused as it should be."""

    refused: str | None
    wrong: list[str]


class Warm:
    """A process in which everything is imported, and which forks a child for each file.

    Args:
        home: Folder of the run: home, working directory, temporary files. Its content changes with each file.
        seconds: Processor time that a wall allows at most, so that a test need not wait for its limit. ``None`` for
            the limits that users have.
        kind: Which readers, see :func:`readers`.
        hurry: By how much the limits of the harness's own times are divided.
    """

    def __init__(self, home: Path, seconds: int | None = None, kind: str = "READERS", hurry: int = 1) -> None:
        self._home = home
        places = {name: home / name for name in ("home", "tmp", "work", "cache")}
        for place in places.values():
            place.mkdir(parents=True)
        given = {
            "HOME": places["home"],
            "TMPDIR": places["tmp"],
            "TORCHINDUCTOR_CACHE_DIR": places["cache"],  # torch makes a folder when transformers is imported
            **{f"XDG_{name}_HOME": places["cache"] for name in ("CACHE", "CONFIG", "DATA", "STATE")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "OMP_NUM_THREADS": "1",
            # Large pages of memory: a fork has far fewer of them to copy, and takes a third of the time.
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
            "PYTHONMALLOC": "malloc",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from hostile import harness; harness.serve({seconds}, {kind!r}, {hurry})"],
            cwd=places["work"],
            env={**os.environ, **{name: str(value) for name, value in given.items()}},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, reader: str, path: Path, *, good: bool = False) -> Verdict:
        """Return what becomes of reading a file or folder.

        Args:
            reader: Name of the reader.
            path: File or folder.
            good: Whether it is a good one. What its reading imports is then imported once for all files that follow.
        """
        assert self._process.stdin and self._process.stdout
        print(json.dumps([reader, str(path), good]), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        verdict = Verdict(answer["refused"], answer["wrong"])
        verdict.wrong.extend(f"left {path.relative_to(self._home)}" for path in self._leftovers())
        for leftover in self._leftovers():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return verdict

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.communicate()

    def _leftovers(self) -> list[Path]:
        """Return the temporary files that are still there."""
        half = [path for path in self._home.rglob("*") if ".part" in path.name]
        return [*(self._home / "tmp").iterdir(), *half]


def serve(seconds: int | None, kind: str, hurry: int) -> None:
    """Read the files whose names come in, one after the other, until there are no more."""
    if seconds is not None:
        limited = wall._limited
        wall._limited = lambda limits: limited(replace(limits, seconds=min(limits.seconds, seconds)))
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    known = readers(kind)
    importlib.import_module("study.commands")
    for line in asked:
        name, path, good = json.loads(line)
        print(json.dumps(_read(known[name], Path(path), hurry)), file=answers, flush=True)
        if good:
            _import_for(known[name], Path(path))


def _import_for(reader: Reader, path: Path) -> None:
    """Import the modules that reading a good file imports, also behind a wall, which is a process of its own."""
    ours, theirs = os.pipe()
    if not os.fork():
        wall._behind.set()
        before = {*sys.modules}
        with contextlib.suppress(BaseException):
            reader.read(path)
        with os.fdopen(theirs, "w") as pipe:
            pipe.write(json.dumps([name for name in sys.modules if name not in before]))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        modules = json.loads(pipe.read())
    os.wait()
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _read(reader: Reader, path: Path, hurry: int) -> dict[str, Any]:
    """Read a file in a child process, and return whether it was refused and what was wrong."""
    base = _resident()
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            _in_the_child(reader, path, theirs, output.fileno(), base)
        os.close(theirs)
        started = time.monotonic()
        hangs = not _ends_within(child, PATIENCE // hurry)
        if hangs:
            os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        waited = time.monotonic() - started
        with os.fdopen(ours, "rb") as pipe:
            outcome = json.loads(pipe.read() or b"{}")
        output.seek(0)
        printed = output.read().decode(errors="replace")
    wrong = _what_is_wrong(outcome, printed)
    code = os.waitstatus_to_exitcode(status)
    if hangs:
        wrong.append(f"hangs for {waited:.0f} s")
    elif code < 0:
        wrong.append(f"crashes ({signal.Signals(-code).name})")
    elif not outcome:
        wrong.append(f"ends this process (exit status {code}): {printed[-500:]}")
    if (seconds := used.ru_utime + used.ru_stime) > SECONDS / hurry:
        wrong.append(f"takes {seconds:.0f} s of processor time")
    if (
        not hangs and waited > 2 * SECONDS / hurry and seconds < waited / 20
    ):  # even on a busy machine, it has hardly computed
        wrong.append(f"waits for {waited:.0f} s")
    if (memory := used.ru_maxrss * 1024 - base) > MEMORY:
        wrong.append(f"takes {memory / 1e9:.1f} GB")
    if _outlived(child):
        wrong.append("leaves a process behind")
    return {"refused": outcome.get("refused"), "wrong": wrong}


def _in_the_child(reader: Reader, path: Path, answer: int, output: int, base: int) -> None:
    gc.freeze()  # a collection would touch every object, and so copy the memory of the parent
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    # It would end far from the limit of this machine's memory. The wall's own limits are within it.
    resource.setrlimit(resource.RLIMIT_AS, (_virtual() + 4 * MEMORY, resource.RLIM_INFINITY))
    outcome: dict[str, str] = {}
    try:
        reader.read(path)
        outcome["read"] = ""
    except InputError as error:
        outcome["refused"] = str(error)
    except BaseException:
        outcome["traceback"] = traceback.format_exc()[-3000:]
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(answer, "w") as pipe:
        pipe.write(json.dumps(outcome))
    os._exit(0)


def _what_is_wrong(outcome: dict[str, str], printed: str) -> list[str]:
    wrong = []
    if "traceback" in outcome:
        wrong.append(outcome["traceback"])
    if "Traceback (most recent call last)" in printed:
        wrong.append(f"prints a traceback: {printed[-3000:]}")
    if "\x1b" in printed:
        wrong.append(f"prints escape sequences: {printed[-500:]!r}")
    message = outcome.get("refused", "-")
    if len(message) > LONGEST or not message:
        wrong.append(f"a message of {len(message)} letters: {message[:LONGEST]!r}")
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in message):
        wrong.append(f"a message of more than printable letters in one line: {message[:LONGEST]!r}")
    return wrong


def _ends_within(child: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pause = 0.001
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    return True


def _outlived(child: int) -> bool:
    """Return whether processes of a child that has ended run on, and end them."""
    for _ in range(100):
        try:
            os.killpg(child, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    return True


def _resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# Judging many files.


class Judge:
    """A test of one reader: it makes the files, has them read, and collects what was wrong.

    Args:
        warm: Reads.
        reader: The reader.
        folder: Where the files are made. Nothing in it may change, and nothing of the run is in it.
    """

    def __init__(self, warm: Warm, reader: Reader, folder: Path) -> None:
        self._warm, self._reader, self._folder = warm, reader, folder
        self.wrong: list[str] = []

    def good(self) -> Path:
        """Return a good file, which was read."""
        folder = self._folder / "good"
        folder.mkdir()
        path = self._reader.good(folder)
        verdict = self.read("the good file", path, good=True)
        assert not verdict.wrong and verdict.refused is None, f"the good file: {verdict}"
        return path

    def cases(self, every: int = 1) -> None:
        """Read the hostile files, or one in so many."""
        folder = self._folder / "cases"
        folder.mkdir()
        for name, path in itertools.islice(self._reader.cases(folder), 0, None, every):
            self.read(name, path)

    def mutations(self, good: Path, number: int, seed: int) -> None:
        """Read damaged copies of the good file."""
        folder = self._folder / "mutations"
        for name, path in mutated(good, folder, number, seed):
            self.read(name, path)
            shutil.rmtree(folder)

    def read(self, name: str, path: Path, *, good: bool = False) -> Verdict:
        """Read a file, collect what was wrong, and return it."""
        before = _snapshot(self._folder)
        verdict = self._warm.read(self._reader.name, path, good=good)
        after = _snapshot(self._folder)
        changed = sorted(place for place in before.keys() | after.keys() if before.get(place) != after.get(place))
        verdict.wrong.extend(f"changed {place} outside its folders" for place in changed)
        self.wrong.extend(f"{self._reader.name}: {name}: {what}" for what in verdict.wrong)
        return verdict


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return the kind, size and time of change of everything in a folder, and for folders the kind only."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            state = path.lstat()
            is_folder = stat.S_ISDIR(state.st_mode)
            found[str(path)] = (state.st_mode, 0 if is_folder else state.st_size, 0 if is_folder else state.st_mtime_ns)
    return found

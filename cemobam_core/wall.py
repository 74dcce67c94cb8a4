"""A wall around reading files that may come from anyone: a child process with limits reads them.

A file can be made so that its reader crashes, hangs or fills the memory. In here this ends a child process and becomes
one line for the user. The child gives back plain JSON and tensors in the safetensors format, both of which are checked,
so nothing that the child was made to do reaches this process.

Content that is too large to be passed on, or not of that kind, is read twice (:func:`tried`): in the child, where every
check is made, and then here.

The limits are those of Linux. On other systems the file is read in this process, without limits.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.files import temporary_folder

Read_co = TypeVar("Read_co", covariant=True)

Content = tuple[Mapping[str, Tensor], Any]
"""What a reader gives back: tensors by name, and facts as plain JSON."""

MEMORY = 2 * 2**30
"""Memory in bytes that reading may take beyond what this process has and four times the size of the file."""
SECONDS = 20
"""Processor time in seconds that reading may take beyond the time for the size of the file."""
_BYTES_A_SECOND = 20 * 2**20
"""Slowest reading that is still allowed for large files."""
_LONGEST_ANSWER = 256 * 2**20
"""Largest size of the facts in bytes."""
_MOST_HOLES = 100
"""Largest size of a file compared with the space that it takes on a disk. A file system may compress, but not more."""

HAS_LIMITS = sys.platform == "linux"
"""Whether this system has the limits of the wall."""

_starting = threading.Lock()


def refuse_irregular(path: Path) -> None:
    """Raise an error if a path is not a regular file: a FIFO or a device could be read without end.

    Args:
        path: File to read.

    Raises:
        InputError: The file does not exist, is not a regular file, or consists of holes: it takes almost no space on
            the disk, but reading it could fill the memory.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    mode, blocks = state.st_mode, getattr(state, "st_blocks", 0)  # some file systems count no blocks, nor does Windows
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        what = kinds.get(stat.S_IFMT(mode), "not a regular file")
        raise InputError(f"{path}: is {what}; give a regular file")
    if blocks and state.st_size > _MOST_HOLES * 512 * blocks:
        raise _refused(path, f"most of its {state.st_size / 1e9:.1f} GB are not there")


class Wall:
    """A child process that reads files with one function. It is started with the first file and used for all.

    Args:
        read: Function of a path and further arguments. It runs in the child.
        memory: Memory in bytes that reading may take, see :data:`MEMORY`.
        seconds: Processor time in seconds, see :data:`SECONDS`.
    """

    def __init__(self, read: Callable[..., Content], *, memory: int = MEMORY, seconds: int = SECONDS) -> None:
        self._read, self._memory, self._seconds = read, memory, seconds
        self._child: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __call__(self, path: Path, *arguments: Any, beside: Sequence[Path] = ()) -> Content:
        """Return what the function reads from a file.

        Args:
            path: File to read.
            arguments: Further arguments of the function.
            beside: Further files that the function reads with it.

        Raises:
            InputError: The function raised one, or reading crashed or exceeded a limit. The message is one line.
        """
        for one in (path, *beside):
            refuse_irregular(one)
        if not HAS_LIMITS:
            with _in_one_line(path):
                return self._read(path, *arguments)
        size = sum(one.stat().st_size for one in (path, *beside))
        seconds = self._seconds + size // _BYTES_A_SECOND
        memory = self._memory + 4 * size
        pipe = self._started()
        with temporary_folder() as folder:
            try:
                pipe.send((path, arguments, memory, seconds, folder))
                # The processor time is limited. A reader that waits without computing is ended after three times that.
                if not pipe.poll(3 * seconds + 10):
                    self._end()
                    raise _refused(path, f"reading it takes more than {3 * seconds + 10} s")
                answer = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                raise _refused(path, self._how_it_ended(seconds)) from None
            except RecursionError:
                raise _refused(path, "its content is nested too deeply") from None
            except BaseException:
                self._end()
                raise
            if "error" in answer:
                raise InputError(answer["error"])
            tensors = folder / "tensors"
            try:
                return (load_file(tensors) if tensors.exists() else {}), answer["facts"]
            except (OSError, SafetensorError) as error:
                raise _refused(path, f"its content could not be passed on ({error})") from None

    def __enter__(self) -> Wall:
        """Return the wall itself. The child ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._end()

    def _started(self) -> Connection:
        if self._pipe is None or self._child is None or not self._child.is_alive():
            self._end()
            context = multiprocessing.get_context("fork")
            with _starting:  # a child forked at the same time would inherit the other's pipe, and never see its end
                self._pipe, theirs = context.Pipe()
                self._child = context.Process(target=_serve, args=(self._read, theirs, self._pipe), daemon=True)
                self._child.start()
                theirs.close()
        return self._pipe

    def _how_it_ended(self, seconds: int) -> str:
        """Return how the child ended, and clean up after it."""
        assert self._child
        self._child.join(5)
        code = self._child.exitcode
        self._end()
        if code == -signal.SIGXCPU:
            return f"reading it takes more than {seconds} s"
        if code == -signal.SIGKILL:
            return "reading it was ended, probably for lack of memory"
        name = signal.Signals(-code).name if code and code < 0 else f"exit status {code}"
        return f"reading it crashes ({name})"

    def _end(self) -> None:
        if self._child:
            self._child.kill()
            self._child.join()
            self._child.close()
        if self._pipe:
            self._pipe.close()
        self._child = self._pipe = None


def walled(read: Callable[..., Content], path: Path, *arguments: Any) -> Content:
    """Read one file behind a wall of its own, see :class:`Wall`.

    Args:
        read: Function of a path and further arguments. It runs in a child process.
        path: File to read.
        arguments: Further arguments of the function.

    Raises:
        InputError: The function raised one, or reading crashed or exceeded a limit.
    """
    with Wall(read) as wall:
        return wall(path, *arguments)


class Reader(Protocol[Read_co]):
    """A function that reads a file, see :func:`tried`."""

    def __call__(self, path: Path, *arguments: Any, beside: Sequence[Path] = ()) -> Read_co:
        """Return what is read from a file, see :meth:`Wall.__call__`."""


@contextlib.contextmanager
def tried(read: Callable[..., Read_co], *, memory: int = MEMORY, seconds: int = SECONDS) -> Iterator[Reader[Read_co]]:
    """Yield a function that reads a file here, but only after the same has succeeded behind a wall.

    Use it for content that is too large to be passed on, or that is not plain. The reader must always do the same with
    the same file, and must make every check. One child reads all files.

    Args:
        read: Function of a path and further arguments.
        memory: Memory in bytes that reading may take, see :data:`MEMORY`.
        seconds: Processor time in seconds, see :data:`SECONDS`.
    """

    def attempt(path: Path, *arguments: Any) -> Content:
        read(path, *arguments)
        return {}, None

    with Wall(attempt, memory=memory, seconds=seconds) as wall:

        def here(path: Path, *arguments: Any, beside: Sequence[Path] = ()) -> Read_co:
            if HAS_LIMITS:
                wall(path, *arguments, beside=beside)
            else:
                for one in (path, *beside):
                    refuse_irregular(one)
            with _in_one_line(path):
                return read(path, *arguments)

        yield here


@contextlib.contextmanager
def _in_one_line(path: Path, memory: int | None = None) -> Iterator[None]:
    """Turn whatever a damaged file makes of its reader into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:200]
        if isinstance(error, MemoryError) or "not enough memory" in said or "DefaultCPUAllocator" in said:
            limit = "the memory of this machine" if memory is None else f"{memory / 1e9:.1f} GB of memory"
            raise _refused(path, f"reading it takes more than {limit}") from None
        raise InputError(" ".join(f"{path}: cannot be read ({said}); the file is damaged".split())) from None


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path}: {why}; the file is damaged or made to do harm: get it again from a source you trust")


def _serve(read: Callable[..., Content], pipe: Connection, other_end: Connection) -> NoReturn:
    """Read files until the parent ends."""
    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.disable()  # a crash is one line, which the parent prints
    with open(os.devnull, "w") as nothing:  # noqa: PTH123  (libraries print on their own)
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    import resource  # noqa: PLC0415  (not on Windows)

    import torch  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)  # the threads of this process are those of the parent, and do not exist here
    while True:
        try:
            path, arguments, memory, seconds, folder = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        with _limited(memory, seconds):
            try:
                with _in_one_line(path, memory):
                    tensors, facts = read(path, *arguments)
                    if tensors:
                        # none may share memory
                        kept = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
                        save_file(kept, folder / "tensors")
                    message = json.dumps({"facts": facts})
                    if len(message) > _LONGEST_ANSWER:
                        raise _refused(path, "its content is too long to be passed on")
            except InputError as error:
                message = json.dumps({"error": " ".join(str(error).split())})
        pipe.send_bytes(message.encode())


@contextlib.contextmanager
def _limited(memory: int, seconds: int) -> Iterator[None]:
    """Limit the memory, the processor time and the size of written files of this process for one file."""
    import resource  # noqa: PLC0415

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    limits = {
        resource.RLIMIT_AS: _address_space(resource.getpagesize()) + memory,
        resource.RLIMIT_CPU: spent + seconds + 1,
        resource.RLIMIT_FSIZE: memory,
    }
    before = {which: resource.getrlimit(which) for which in limits}
    for which, limit in limits.items():
        _, hard = before[which]
        resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        for which, old in before.items():
            resource.setrlimit(which, old)


def _address_space(page: int) -> int:
    """Return the size of this process's address space in bytes, from the size of a page."""
    return page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])

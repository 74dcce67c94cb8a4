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
import errno
import functools
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cemobam_core.errors import InputError
from cemobam_core.files import temporary_folder, told_of_a_full_disk
from cemobam_core.forked import Forked

# torch is imported where it is used: text files are read without it.
if TYPE_CHECKING:
    from torch import Tensor

Read_co = TypeVar("Read_co", covariant=True)

Content = tuple[Mapping[str, "Tensor"], Any]
"""What a reader gives back: tensors by name, and facts as plain JSON."""

MEMORY = 3 * 2**29
"""Memory in bytes that reading may take beyond what this process has and eight times the size of the file."""
SECONDS = 15
"""Processor time in seconds that reading may take beyond the time for the size of the file."""
_BYTES_A_SECOND = 2 * 2**20
"""Slowest reading that is still allowed for large files. Pickles of many small tensors take a quarter of that time."""
_LONGEST_ANSWER = 64 * 2**20
"""Largest size of the facts in bytes, beyond four times the size of the file."""
_PATIENCE_FOR_FOLDERS = 600
"""Time in seconds that a reader of a folder may wait: opening thousands of files takes long on a network's disk."""
_MOST_HOLES = 100
"""Largest size of a file compared with the space that it takes on a disk. A file system may compress, but not more."""

HAS_LIMITS = sys.platform == "linux"
"""Whether this system has the limits of the wall."""

_TENSORS = "tensors"
"""Name of the file in which the child passes tensors on."""

_behind = threading.Event()
"""Whether this process is the child of a wall: what is read in it is behind a wall already."""


@dataclass(frozen=True)
class _Limits:
    """What reading one file may take.

    Args:
        memory: Memory in bytes.
        seconds: Processor time in seconds.
        answer: Size of the facts in bytes.
        patience: Time in seconds after which a reader that waits without computing is ended.
    """

    memory: int
    seconds: int
    answer: int
    patience: int


def refuse_irregular(path: Path, *, or_folder: bool = False) -> None:
    """Raise an error if a path is not a regular file: a FIFO or a device could be read without end.

    Args:
        path: File to read.
        or_folder: Whether it may be a folder.

    Raises:
        InputError: The file does not exist, is not a regular file, or consists of holes: it takes almost no space on
            the disk, but reading it could fill the memory.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    mode = state.st_mode
    if or_folder and stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        what = kinds.get(stat.S_IFMT(mode), "not a regular file")
        raise InputError(f"{path}: is {what}; give a regular file{' or a folder' if or_folder else ''}")
    if _is_hollow(path, state):
        raise _refused(path, f"most of its {state.st_size / 1e9:.1f} GB are not there")


def _is_hollow(path: Path, state: os.stat_result) -> bool:
    """Return whether a file is nearly all holes. Some file systems count no blocks, but then they know of no holes."""
    if sys.platform == "win32" or state.st_size <= _MOST_HOLES * 512 * max(1, state.st_blocks):
        return False
    with path.open("rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < state.st_size


class Wall:
    """A child process that reads files with one function. It is started with the first file and used for all.

    Args:
        read: Function of a path and further arguments. It runs in the child.
        memory: Memory in bytes that reading may take, see :data:`MEMORY`.
        seconds: Processor time in seconds, see :data:`SECONDS`.
        folders: Whether a path may be that of a folder, whose files the function reads.
    """

    def __init__(
        self, read: Callable[..., Content], *, memory: int = MEMORY, seconds: int = SECONDS, folders: bool = False
    ) -> None:
        self._read, self._memory, self._seconds, self._folders = read, memory, seconds, folders
        self._child: Forked | None = None
        self._folder: Path | None = None
        self._held = contextlib.ExitStack()
        self._in_use = threading.Lock()

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
            refuse_irregular(one, or_folder=self._folders)
        if not HAS_LIMITS or _behind.is_set():
            with _in_one_line(path):
                return self._read(path, *arguments)
        size = sum(one.stat().st_size for one in (path, *beside))
        seconds = self._seconds + size // _BYTES_A_SECOND
        limits = _Limits(
            memory=self._memory + 8 * size,
            seconds=seconds,
            answer=_LONGEST_ANSWER + 4 * size,
            patience=_PATIENCE_FOR_FOLDERS if path.is_dir() else 3 * seconds + 10,
        )
        with self._in_use:
            return self._asked(path, arguments, limits)

    def _asked(self, path: Path, arguments: tuple[Any, ...], limits: _Limits) -> Content:
        """Return what the child reads."""
        child, folder = self._started(path)
        try:
            child.pipe.send((path, arguments, limits, folder))
            if not child.pipe.poll(limits.patience):
                self._end()
                raise _refused(path, f"reading it takes more than {limits.patience} s")
            answer = json.loads(child.pipe.recv_bytes(limits.answer))
        except (EOFError, OSError):
            raise _refused(path, self._how_it_ended(limits)) from None
        except RecursionError:
            raise _refused(path, "its content is nested too deeply") from None
        except BaseException:
            self._end()
            raise
        if "error" in answer:
            raise InputError(answer["error"])
        try:
            return _passed_on(folder), answer["facts"]
        except _NotPassedOnError as error:
            self._end()
            raise _refused(path, f"its content could not be passed on ({error})") from None

    def __enter__(self) -> Wall:
        """Return the wall itself. The child ends with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._end()

    def _started(self, path: Path) -> tuple[Forked, Path]:
        """Return the child, and the folder where it leaves tensors. Start it if it does not run."""
        if self._child is None or self._folder is None or self._child.exit_status() is not None:
            self._end()
            self._folder = self._held.enter_context(temporary_folder())
            try:
                self._child = Forked(functools.partial(_serve, self._read))
            except OSError as error:
                self._end()
                raise InputError(
                    f"{path}: no process could be started to read it ({error.strerror}); end other programs"
                ) from None
        return self._child, self._folder

    def _how_it_ended(self, limits: _Limits) -> str:
        """Return how the child ended, and clean up after it."""
        assert self._child
        code = self._child.exit_status(5.0)
        self._end()
        if code == -signal.SIGXCPU:
            return f"reading it takes more than {limits.seconds} s"
        if code == -signal.SIGKILL:
            return "reading it was ended, probably for lack of memory"
        name = signal.Signals(-code).name if code and code < 0 else f"exit status {code}"
        return f"reading it crashes ({name})"

    def _end(self) -> None:
        if self._child:
            self._child.end()
        self._held.close()
        self._child = self._folder = None


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


def _serve(read: Callable[..., Content], pipe: Connection) -> None:
    """Read files in the child until the parent ends."""
    _behind.set()
    import resource  # noqa: PLC0415  (not on Windows)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            path, arguments, limits, folder = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            # What an error says is within the limits too. If even that exceeds them, it is said without them.
            with _in_one_line(path, limits.memory), _limited(limits), _in_one_line(path, limits.memory):
                tensors, facts = read(path, *arguments)
                _pass_on(tensors, folder, path)
                message = json.dumps({"facts": facts})
                if len(message) > limits.answer:
                    raise _refused(path, "its content is too long to be passed on")
        except InputError as error:
            message = json.dumps({"error": str(error)})
        pipe.send_bytes(message.encode())


def _pass_on(tensors: Mapping[str, Tensor], folder: Path, path: Path) -> None:
    """Leave tensors in a folder."""
    if not tensors:
        return
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    # None may share memory.
    kept = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    place = folder / _TENSORS
    try:
        with told_of_a_full_disk(place):
            save_file(kept, place)
    except Exception as error:
        place.unlink(missing_ok=True)  # it would be taken for the content of the next file
        if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{path}: no space is left in {folder.parent} to pass its content on; free some, or set TMPDIR"
        ) from None


def _passed_on(folder: Path) -> dict[str, Tensor]:
    """Return the tensors that the child left in a folder."""
    place = folder / _TENSORS
    if not os.path.lexists(place):
        return {}
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        if not stat.S_ISREG(place.lstat().st_mode):
            raise _NotPassedOnError("not a regular file")
        tensors: dict[str, Tensor] = load_file(place)
        place.unlink()
    except (OSError, SafetensorError) as error:
        raise _NotPassedOnError(str(error)) from None
    return tensors


class _NotPassedOnError(Exception):
    """Tensors that the child left, and that cannot be read."""


@contextlib.contextmanager
def _limited(limits: _Limits) -> Iterator[None]:
    """Limit the memory, the processor time and the size of written files of this process for one file."""
    import resource  # noqa: PLC0415

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    wanted = {
        resource.RLIMIT_AS: _address_space(resource.getpagesize()) + limits.memory,
        resource.RLIMIT_CPU: spent + limits.seconds + 1,
        resource.RLIMIT_FSIZE: limits.memory,
    }
    before = {which: resource.getrlimit(which) for which in wanted}
    for which, limit in wanted.items():
        known = [old for old in before[which] if old != resource.RLIM_INFINITY]
        resource.setrlimit(which, (min(limit, *known) if known else limit, before[which][1]))
    signal.alarm(limits.patience)  # the parent may have been killed, and a reader may wait for ever
    try:
        yield
    finally:
        signal.alarm(0)
        for which, old in before.items():
            resource.setrlimit(which, old)


def _address_space(page: int) -> int:
    """Return the size of this process's address space in bytes, from the size of a page."""
    return page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])

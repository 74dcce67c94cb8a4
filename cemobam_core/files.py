"""Files: atomic writing, so that a reader sees the whole old or the whole new content, and pointers of Git LFS."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def told_of_a_full_disk(path: Path) -> Iterator[None]:
    """Raise an OSError that says so if the disk is full, whatever error a library raised while it wrote to ``path``.

    safetensors and torch raise errors of their own and mention the full disk in one line among many.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:
        if shutil.disk_usage(path.parent).free > _FULL_DISK_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None


_FULL_DISK_BYTES = 2**20
"""Free space in bytes. If a write failed on a disk with less, the disk counts as full."""


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, and move it to ``path`` if the block succeeds.

    If the disk is full, or the block raises an error or is killed, ``path`` stays as it was. The temporary name keeps
    the suffix, because libraries such as matplotlib choose the format by it. :func:`remove_leftovers` removes the
    temporary file of a process that was killed.

    Raises:
        OSError: The folder cannot be created or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{_HOST}{secrets.token_hex(4)}.part{path.suffix}")
    with ExitStack() as held:
        try:
            while not _is_held(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, held):
                pass  # another process took it for a leftover in the moment after its creation
            with told_of_a_full_disk(path):
                yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that is removed when the block ends. :func:`remove_leftovers` removes it if it is killed.

    Args:
        parent: Where the folder is made. `None` means the system's folder for temporary files.

    Raises:
        OSError: The folder cannot be created.
    """
    place = Path(tempfile.gettempdir() if parent is None else parent)
    while True:
        folder = place / f"cemobam-tmp-{secrets.token_hex(4)}"
        with ExitStack() as held:
            try:
                folder.mkdir(mode=0o700)
                if not _is_kept(folder, held):
                    continue  # another process took it for a leftover in the moment after its creation
                yield folder
            finally:
                held.close()
                shutil.rmtree(folder, ignore_errors=True)
        return


def place_for_sockets(longest: int) -> Path | None:
    """Return where to make a :func:`temporary_folder` for sockets, whose paths have at most 107 characters.

    Args:
        longest: The number of characters that the path of a socket has below the place: slash, name of the temporary
            folder (20 characters), slash, and so on.

    Returns:
        `None`, which means the system's folder for temporary files, unless its path is too long.
    """
    return None if len(tempfile.gettempdir()) + longest <= _LONGEST_SOCKET else Path("/tmp")


_LONGEST_SOCKET = 107
"""Characters in the path of a socket on Linux."""


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files and folders of processes of this machine that were killed.

    A process holds a lock on each of its temporary files and folders. The system releases the lock when the process
    ends, however it ends. Where there are no such locks (on Windows, on some network file systems), nothing is removed.

    Args:
        folders: Folders whose files were written with :func:`written_atomically`, with all folders in them. Temporary
            folders are looked for in the system's folders for temporary files.
    """
    files = [path for folder in folders for path in folder.rglob(".*.part*") if _FILES.fullmatch(path.name)]
    places = {Path(tempfile.gettempdir()), Path("/tmp")}
    temporary = [path for place in places for path in place.glob("cemobam-tmp-*") if _FOLDERS.fullmatch(path.name)]
    for path in (*files, *temporary):
        # If it is not certain that no process holds the lock, it stays.
        with suppress(OSError), ExitStack() as held:
            if sys.platform != "win32" and _is_held(path, os.O_RDONLY | os.O_NOFOLLOW, held, wait=False):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine, in the names of temporary files: not every network file system passes locks on to other machines."""

_FILES = re.compile(rf"\..+\.{_HOST}[0-9a-f]{{8}}\.part(\..*)?", re.DOTALL)
"""Names of temporary files."""

_FOLDERS = re.compile("cemobam-tmp-[0-9a-f]{8}")
"""Names of temporary folders."""


def _is_kept(folder: Path, held: ExitStack) -> bool:
    """Hold the lock of a new folder until ``held`` closes. Return whether the folder is still there."""
    if sys.platform == "win32":  # where a folder cannot be opened
        return True
    try:
        return _is_held(folder, os.O_RDONLY, held)
    except FileNotFoundError:
        return False


def _is_held(path: Path, flags: int, held: ExitStack, *, wait: bool = True) -> bool:
    """Open a file or folder and hold its lock until ``held`` closes. Return whether it is still there then.

    Raises:
        BlockingIOError: If another process holds the lock and this one does not wait for it.
        OSError: It cannot be opened, or, if this process does not wait, locked.
    """
    handle = os.open(path, flags, 0o666)
    if sys.platform == "win32":  # an open file could not be moved
        os.close(handle)
        return True
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # the file system has no such locks
        if not wait:
            raise
    return path.exists()


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a pointer that Git LFS left in place of the file itself.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024
"""Bytes. The specification of Git LFS allows no larger pointer."""

"""Files: atomic writing, so that a reader sees the whole old or the whole new content, and pointers of Git LFS."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    the suffix, because libraries such as matplotlib choose the format by it.

    Raises:
        OSError: The folder cannot be created or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with told_of_a_full_disk(path):
            yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp creates a private file, but results follow the umask
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is a pointer that Git LFS left in place of the file itself.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be read.
    """
    if path.stat().st_size > _LARGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024
"""Bytes. The specification of Git LFS allows no larger pointer."""

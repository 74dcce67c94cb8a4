"""Writing files so that a reader sees the whole new content or the whole old one."""

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
    """Whatever a library raises when the disk is full while it writes to ``path``, let it be an OSError that says so.

    safetensors and torch raise errors of their own, in which that is one line among many.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:
        if shutil.disk_usage(path.parent).free > _FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None


_FULL = 2**20
"""Bytes: a disk with less is full for whoever just failed to write to it."""


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move it over ``path`` when the block ends well.

    A full disk, an error or a kill inside the block leaves ``path`` as it was. The temporary name keeps the
    suffix, because writers such as matplotlib choose their format by it.

    Raises:
        OSError: the folder cannot be made or written to.
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
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; a result is for everyone the umask lets
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

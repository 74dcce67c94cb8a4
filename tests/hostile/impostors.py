"""What can be in the place of any file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path


def impostors(path: Path) -> Iterator[tuple[str, Path]]:
    """Put in the place of a file what is no file of its format, one after the other, and nothing in the end."""
    contents = {
        "empty": b"",
        "one byte": b"\x80",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "a web page": b"<!DOCTYPE html><html><head><title>Not found</title></head></html>\n",
        "zeros": b"\0" * 1_000_000,
        "ones": b"\xff" * 1_000_000,
        "noise": bytes(i * i * 7919 % 251 for i in range(100_000)),
        "brackets": b"[" * 1_000_000,
        "compressed": gzip.compress(b"\0" * 10_000_000),
        "escapes": b"\x1b[2J\x1b]0;x\a" * 100,
    }
    for name, content in contents.items():
        path.write_bytes(content)
        yield name, path
    path.unlink()
    yield "missing", path
    with path.open("wb") as file:
        file.truncate(1 << 42)
    yield "four terabytes of holes", path
    path.unlink()
    path.mkdir()
    yield "a folder", path
    path.rmdir()
    os.mkfifo(path)
    yield "a pipe", path
    path.unlink()
    links = {
        "an endless device": "/dev/zero",
        "a terminal": "/dev/tty",
        "a loop of links": path.name,
        "no file": "none",
    }
    for name, target in links.items():
        path.symlink_to(target)
        yield f"a link to {name}", path
        path.unlink()

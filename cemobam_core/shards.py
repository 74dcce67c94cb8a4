"""Splits in several files, which are called shards: their names, and how they are found and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from cemobam_core.rows import Rows, in_chunks

_NAME = re.compile(r"(?P<split>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.safetensors")
_MOST = 99_999
"""Largest number of shards of a split."""

_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64", torch.bool: "BOOL"}
"""Types of numbers that are written, by their name in a safetensors file."""


def shards_in(folder: Path, split: str) -> list[Path]:
    """Return the shards of a split in a folder, in order. There may be too few, or too many."""
    named = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("*.safetensors")]
    return sorted(path for path, name in named if name and name["split"] == split)


def files_of(path: Path) -> list[Path]:
    """Return all files of a split, in order: for a shard the shards of its split, and else only the file itself.

    Args:
        path: A file, or any one shard of a split.

    Raises:
        InputError: A shard is missing or does not belong there, or the split is in one file too.
    """
    name = _NAME.fullmatch(path.name)
    if not name:
        return [path]
    split, count = name["split"], int(name["count"])
    found = shards_in(path.parent, split)
    for other in found:
        division = _NAME.fullmatch(other.name)
        if division and division["count"] != name["count"]:
            raise InputError(
                f"{other}: is one of {int(division['count'])} shards, but {path.name} is one of {count}; keep the "
                f"shards of one division of {split} in the folder"
            )
    wanted = (path.with_name(shard_name(split, number, count)) for number in range(count))
    if missing := next((one for one in wanted if one not in found), None):
        raise InputError(
            f"{missing}: is missing; {split} has {count} shards, of which {len(found)} are there: copy it into the "
            "folder, or make the features again"
        )
    if len(found) > count:
        raise InputError(f"{found[-1]}: {split} has only {count} shards, from number 0 on; remove the file")
    if (plain := path.with_name(f"{split}.safetensors")).exists():
        raise InputError(f"{plain}: is there beside {path.name}; keep one of them in the folder")
    return found


def shard_name(split: str, number: int, count: int) -> str:
    """Return the name of a shard: ``train-00000-of-00008.safetensors``."""
    return f"{split}-{number:05d}-of-{count:05d}.safetensors"


def source_of(files: list[Path]) -> str:
    """Return the name of a split in error messages: its file, or a pattern of its shards."""
    name = _NAME.fullmatch(files[0].name)
    return str(files[0].with_name(f"{name['split']}-*-of-{name['count']}.safetensors") if name else files[0])


def remove_split(path: Path) -> None:
    """Remove the files of a split, whole or in shards, which an earlier attempt may have left.

    Args:
        path: Path of the split as one file.
    """
    for file in (path, *shards_in(path.parent, path.stem)):
        file.unlink(missing_ok=True)


def divided(path: Path, rows: int, size: int, most: int | None) -> Iterator[tuple[Path, int, int]]:
    """Yield the files to write for a split, each with its first row and the row after its last.

    Args:
        path: Path of the split as one file.
        rows: Number of its rows.
        size: Size of the split in bytes.
        most: Largest size of a file in bytes. ``None`` for no limit.
    """
    count = 1 if most is None else min(-(-size // most), rows, _MOST)
    for number in range(count):
        place = path if count == 1 else path.with_name(shard_name(path.stem, number, count))
        yield place, number * rows // count, (number + 1) * rows // count


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor | Rows],
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float32,
    start: int = 0,
    stop: int | None = None,
) -> None:
    """Write tensors to a safetensors file atomically, with little of them in memory.

    Args:
        path: The file.
        tensors: Tensors (N, ...) by name: embeddings, whole numbers and truth values.
        metadata: Metadata by name.
        dtype: Type of the embeddings in the file, float32 or float16.
        start: First row to write.
        stop: Row after the last. ``None`` for all rows.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at, kinds = 0, {name: dtype if x.dtype.is_floating_point else x.dtype for name, x in tensors.items()}
    names = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))  # so that every tensor is aligned
    for name in names:
        shape = [(len(tensors[name]) if stop is None else stop) - start, *tensors[name].shape[1:]]
        end = at + math.prod(shape) * kinds[name].itemsize
        header[name] = {"dtype": _TYPES[kinds[name]], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for chunk in in_chunks(tensors[name], start, stop):
                file.write(chunk.to(kinds[name]).contiguous().numpy().data)

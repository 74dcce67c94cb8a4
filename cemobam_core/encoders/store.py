"""Features on disk: parts during the extraction, and one file per split, or several shards of it, at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.files import written_atomically
from cemobam_core.shards import remove_split
from cemobam_core.wall import tried

SHARD_BYTES = 5 * 10**9
"""Largest size of a feature file in bytes, unless another one is asked for."""


class Parts:
    """The embeddings of one encoder so far: a folder of small files, each of which is written atomically.

    An interrupted extraction can be resumed, and at most one part is held in memory. The division into parts does not
    depend on interruptions, so the last bits of the embeddings do not depend on them either.

    Args:
        folder: Folder of the parts. It is created with the first part.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = 0
        self._steps: dict[Path, dict[str, int]] = {}
        self.bad: dict[str, str] = {}
        """The reason why an utterance has no embedding, by utterance id."""

    @property
    def steps(self) -> dict[str, int]:
        """The number of steps of each utterance's embedding, by utterance id."""
        return {key: steps for part in self._steps.values() for key, steps in part.items()}

    def find(self, ids: Mapping[int, Sequence[str]]) -> set[int]:
        """Add the parts that exist, are complete and have the right utterances. Return their numbers.

        Args:
            ids: The utterances of each part, by its number.
        """
        found = set()
        with tried(_part) as read:
            for number, asked in ids.items():
                path = self._path(number)
                if not path.exists():
                    continue
                try:
                    steps, bad, size = read(path, sorted(asked))
                except InputError:
                    continue
                if size in (0, self._size or size):
                    self._size = size or self._size
                    self._steps[path] = steps
                    self.bad |= bad
                    found.add(number)
        return found

    def add(self, number: int, embeddings: Mapping[str, Tensor], bad: Mapping[str, str]) -> None:
        """Write a part.

        Args:
            number: Number of the part.
            embeddings: Embeddings (T, E) by utterance id.
            bad: Reasons why an utterance has no embedding, by utterance id.

        Raises:
            InputError: The parts of before hold embeddings of another size.
        """
        path = self._path(number)
        steps = {key: len(rows) for key, rows in embeddings.items()}
        told = {"asked": sorted([*embeddings, *bad]), "steps": steps, "bad": dict(bad)}
        if embeddings:
            size = next(iter(embeddings.values())).shape[1]
            if size != (self._size or size):
                raise InputError(
                    f"{self._folder}: holds embeddings of {self._size} numbers, but this encoder's have {size}; remove "
                    "the folder to make them again"
                )
            self._size = size
        tensors = {"rows": torch.cat(list(embeddings.values()))} if embeddings else {"rows": torch.empty(0)}
        with written_atomically(path) as temporary:
            save_file(tensors, temporary, {name: json.dumps(value) for name, value in told.items()})
        self._steps[path] = steps
        self.bad |= bad

    def embeddings(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all embeddings with their utterance ids, with one part at a time in memory."""
        for path, steps in self._steps.items():
            if steps:
                yield from zip(steps, torch.split(load_file(path)["rows"], list(steps.values())), strict=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.safetensors"


def _part(path: Path, asked: list[str]) -> tuple[dict[str, int], dict[str, str], int]:
    """Return the steps of each embedding of a part, why others are missing, and the size of an embedding.

    Raises:
        InputError: The part cannot be read, or has other utterances.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = {name: json.loads(value) for name, value in file.metadata().items()}
            rows = file.get_tensor("rows")
        steps, bad = dict(told["steps"]), dict(told["bad"])
        right = told["asked"] == asked == sorted([*steps, *bad]) and all(type(reason) is str for reason in bad.values())
        whole = all(type(n) is int and n > 0 for n in steps.values()) and sum(steps.values()) == len(rows)
        size = rows.shape[1] if steps else 0
        fits = not steps or (rows.ndim == 2 and size > 0 and bool(torch.isfinite(rows).all()))
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    if not (right and whole and fits and rows.is_floating_point()):
        raise InputError(f"{path}: is not a part of these features")
    return steps, bad, size


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """The utterances of one split, in order, with their metadata.

    Attributes:
        path: File to write. Shards are written beside it.
        ids: Ids of the utterances.
        labels: Labels, as indices into ``class_names``.
        class_names: Names of the classes.
        speakers: Speakers, if all are known.
        sessions: Sessions, if all are known.
        scripts: Scripts or scenarios, if all are known.
        texts: Transcripts, if there are any.
        seconds: Durations of the clips in seconds.
        provenance: Description of how the features were made.
    """

    path: Path
    ids: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    speakers: tuple[str, ...] | None
    sessions: tuple[str, ...] | None
    scripts: tuple[str, ...] | None
    texts: tuple[str, ...] | None
    seconds: Sequence[float]
    provenance: Mapping[str, str] = field(default_factory=dict)


def write_splits(
    splits: Sequence[SplitRows],
    parts: Mapping[str, Parts],
    *,
    sequences: bool,
    scratch: Path,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the parts of both modalities to one feature file per split, or to several shards of a large one.

    Embeddings are collected in memory-mapped files, so the use of memory does not grow with the corpus.

    Args:
        splits: Splits to write.
        parts: Parts by modality. Both must contain every utterance of the splits.
        sequences: Whether embeddings are (N, T, E) with masks. If not, they are (N, E).
        scratch: Folder for temporary files, which are as large as the feature files in float32.
        dtype: Type of the embeddings in the files, float32 or float16.
        shard_bytes: Largest size of a file in bytes.

    Returns:
        The files.

    Raises:
        InputError: A number is too large for float16.
        OSError: The disk is full.
    """
    written: list[Path] = []
    scratch.mkdir(parents=True, exist_ok=True)
    tensors: list[dict[str, Tensor]] = [{} for _ in splits]
    mapped = []
    try:
        for modality in MODALITIES:
            all_steps = parts[modality].steps
            size = next(parts[modality].embeddings())[1].shape[1]
            longest = max(all_steps.values()) if sequences else 1
            places: dict[str, tuple[Tensor, int]] = {}
            for i, split in enumerate(splits):
                mapped.append(scratch / f"{modality}_{i}")
                x = _mapped(mapped[-1], len(split.ids), longest, size)  # (N, T, E)
                places |= {key: (x, row) for row, key in enumerate(split.ids)}
                tensors[i][modality] = x if sequences else x[:, 0]
                if sequences:
                    steps = torch.tensor([all_steps[key] for key in split.ids])
                    tensors[i][f"{modality}_mask"] = torch.arange(longest) < steps[:, None]
            for key, rows in parts[modality].embeddings():
                if key in places:
                    x, row = places[key]
                    x[row, : len(rows)] = rows
        for split, given in zip(splits, tensors, strict=True):
            remove_split(split.path)  # from an attempt with another largest size
            written += FeatureSet(
                audio=given["audio"],
                text=given["text"],
                audio_mask=given.get("audio_mask"),
                text_mask=given.get("text_mask"),
                labels=torch.tensor(split.labels, dtype=torch.int64),
                class_names=split.class_names,
                utterance_ids=tuple(split.ids),
                speakers=split.speakers,
                sessions=split.sessions,
                scripts=split.scripts,
                texts=split.texts,
                seconds=split.seconds,
                provenance=split.provenance,
                source=str(split.path),
            ).save(split.path, dtype=dtype, shard_bytes=shard_bytes)
    finally:
        for path in mapped:
            path.unlink(missing_ok=True)
    return written


def _mapped(path: Path, *shape: int) -> Tensor:
    """Return a float32 tensor of zeros that is stored in a file."""
    numbers = torch.Size(shape).numel()
    with path.open("wb") as file:
        # Reserve the space here: a full disk is an error now, but would kill the process through the mapping.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 4 * numbers)
        else:
            for start in range(0, 4 * numbers, 2**20):
                file.write(bytes(min(2**20, 4 * numbers - start)))
    return torch.from_file(str(path), shared=True, size=numbers, dtype=torch.float32).view(shape)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that people can read."""
    with written_atomically(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file name may not be valid UTF-8

"""Features on disk: parts while they are being made, files by split when they are whole."""

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

from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.files import written_atomically


class Parts:
    """What one encoder has made so far of the utterances of a corpus: a folder of small files, each written whole.

    So an extraction that is stopped goes on where it was, and no more of it is held in memory than a part. Which
    utterances are a part together does not depend on where it was stopped, so neither do the embeddings' last bits.

    Args:
        folder: made when the first part is added.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps: dict[Path, dict[str, int]] = {}
        self.bad: dict[str, str] = {}
        """Why there is no embedding of an utterance that was tried, by utterance id."""

    @property
    def steps(self) -> dict[str, int]:
        """How many steps the embedding of each utterance has, by utterance id."""
        return {key: steps for part in self._steps.values() for key, steps in part.items()}

    def find(self, number: int, ids: Sequence[str]) -> bool:
        """Whether a part is there, whole, and of these utterances; if so it counts from now on."""
        path = self._path(number)
        try:
            with safe_open(path, framework="pt") as file:
                told = {name: json.loads(value) for name, value in file.metadata().items()}
            asked, steps, bad = told["asked"], told["steps"], told["bad"]
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError):
            return False
        if asked != sorted(ids):
            return False
        self._steps[path] = steps
        self.bad |= bad
        return True

    def add(self, number: int, embeddings: Mapping[str, Tensor], bad: Mapping[str, str]) -> None:
        """Keep a part.

        Args:
            number: of the part.
            embeddings: (T, E) each, by utterance id.
            bad: why there is none, by utterance id.
        """
        path = self._path(number)
        steps = {key: len(rows) for key, rows in embeddings.items()}
        told = {"asked": sorted([*embeddings, *bad]), "steps": steps, "bad": dict(bad)}
        tensors = {"rows": torch.cat(list(embeddings.values()))} if embeddings else {"rows": torch.empty(0)}
        with written_atomically(path) as temporary:
            save_file(tensors, temporary, {name: json.dumps(value) for name, value in told.items()})
        self._steps[path] = steps
        self.bad |= bad

    def embeddings(self) -> Iterator[tuple[str, Tensor]]:
        """All of them, by utterance id, a part at a time in memory."""
        for path, steps in self._steps.items():
            if steps:
                yield from zip(steps, torch.split(load_file(path)["rows"], list(steps.values())), strict=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """The utterances of one split, in order, and what is known of them.

    Attributes:
        path: the file to write.
        ids: of the utterances.
        labels: indices into ``class_names``.
        speakers, sessions: where all are known.
        seconds: how long the clips are.
    """

    path: Path
    ids: Sequence[str]
    labels: Sequence[int]
    class_names: tuple[str, ...]
    speakers: tuple[str, ...] | None
    sessions: tuple[str, ...] | None
    seconds: Sequence[float]
    provenance: Mapping[str, str] = field(default_factory=dict)


def write_splits(splits: Sequence[SplitRows], parts: Mapping[str, Parts], *, sequences: bool, scratch: Path) -> None:
    """Gather the parts of both modalities into one feature file per split.

    Embeddings are laid into files mapped into memory, so that memory does not grow with the corpus.

    Args:
        splits: what to write.
        parts: by modality; every utterance of the splits is in both.
        sequences: whether embeddings are (N, T, E) with masks, or (N, E).
        scratch: a folder for temporary files, as large as the feature files.

    Raises:
        OSError: no room.
    """
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
            FeatureSet(
                audio=given["audio"],
                text=given["text"],
                audio_mask=given.get("audio_mask"),
                text_mask=given.get("text_mask"),
                labels=torch.tensor(split.labels, dtype=torch.int64),
                class_names=split.class_names,
                utterance_ids=tuple(split.ids),
                speakers=split.speakers,
                sessions=split.sessions,
                seconds=split.seconds,
                provenance=split.provenance,
                source=str(split.path),
            ).save(split.path)
    finally:
        for path in mapped:
            path.unlink(missing_ok=True)


def _mapped(path: Path, *shape: int) -> Tensor:
    """Return a float32 tensor of zeros that lives in a file."""
    numbers = torch.Size(shape).numel()
    with path.open("wb") as file:
        # A full disk is an error here; met through the mapping, it would kill the process.
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
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may be no UTF-8

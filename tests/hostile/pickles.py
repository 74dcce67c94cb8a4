"""Hostile copies of the authors' feature files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hostile.harness import Reader

from cemobam_core.features import FeatureSet


def _utterances(n: int = 4) -> list[dict[str, Any]]:
    return [{"text_embed": torch.ones(3) * i, "audio_embed": torch.ones(2) * i, "label": i % 2} for i in range(n)]


def _good(folder: Path) -> Path:
    path = folder / "X_BERT_WAV2VEC_val.pkl"
    path.write_bytes(pickle.dumps(_utterances(), 4))
    return path


def _cases(folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / "train.pkl"
    path.write_bytes(b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.")
    yield "a deep key", path


READERS = [Reader("pickled features", _cases, _good, FeatureSet.load)]

"""The calibration of a configuration's probabilities, if they are kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cemobam_core.errors import InputError
from cemobam_core.wall import tried
from study.findings.statistics import Array

BINS = 15
"""Number of bins of equal width, as in Guo et al. (2017)."""

_NAME = "probabilities"
_ROUNDING = 0.01
"""Largest allowed difference from 1 of the sum of probabilities, which are kept in half precision."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """The confidence of a configuration's seeds compared with their accuracy.

    The confidence in an utterance's label is the highest class probability.

    Attributes:
        seeds: One row per seed: ``seed``, ``accuracy``, ``confidence`` (both means), ``ece``, ``brier``.
        bins: One row per bin of the confidence: ``low``, ``high``, ``share`` (of the utterances and seeds),
            ``confidence`` and ``accuracy`` (means, NaN in an empty bin).
        by_seed: (S, bins), the accuracy of each seed. NaN in an empty bin.
        utterances: Number of utterances that each seed labels.
    """

    seeds: pd.DataFrame
    bins: pd.DataFrame
    by_seed: Array
    utterances: int


def calibration(files: Mapping[tuple[int, int], Path], utterances: pd.DataFrame, folds: int) -> Calibration | None:
    """Return the calibration of a configuration's kept probabilities. Unusable files are logged and left out.

    Args:
        files: Files by seed and fold. Missing files are left out.
        utterances: One row for each test utterance of each fold, with ``fold`` and ``label``.
        folds: Number of folds of a complete seed.

    Returns:
        The calibration, or `None` if no seed is complete.
    """
    labels = {fold: column.to_numpy() for fold, column in utterances.groupby("fold")["label"]}
    by_seed: dict[int, list[tuple[Array, npt.NDArray[Any]]]] = {}
    with tried(_read) as read:
        for (seed, fold), path in sorted(files.items()):
            if fold in labels and path.exists():
                try:
                    by_seed.setdefault(seed, []).append((read(path, labels[fold]), labels[fold]))
                except InputError as error:
                    _log.warning("left out of the calibration: %s", error)
    complete = {seed: parts for seed, parts in by_seed.items() if len(parts) == folds}
    if not complete:
        return None
    return measured({seed: (_stacked(parts, 0), _stacked(parts, 1)) for seed, parts in complete.items()})


def _read(path: Path, labels: npt.NDArray[Any]) -> Array:
    """Return the (N, C) probabilities of a file.

    Raises:
        InputError: If the file holds something else.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None
    if _NAME not in tensors:
        raise InputError(f"{path}: it holds no tensor {_NAME!r}")
    values = tensors[_NAME].astype(float)
    if values.ndim != 2 or len(values) != len(labels) or values.shape[1] <= labels.max():
        raise InputError(
            f"{path}: its probabilities have shape {values.shape}, but the test split has {len(labels)} utterances"
        )
    valid = np.isfinite(values).all() and values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=_ROUNDING)
    if not valid:
        raise InputError(f"{path}: its numbers are not probabilities")
    return values


def _stacked(parts: list[tuple[Array, npt.NDArray[Any]]], place: int) -> npt.NDArray[Any]:
    return np.concatenate([one[place] for one in parts])


def measured(by_seed: Mapping[int, tuple[Array, npt.NDArray[Any]]]) -> Calibration:
    """Return the calibration of probabilities, given the labels.

    The expected calibration error is the mean over utterances of |accuracy − confidence| of the utterance's bin (Guo,
    Pleiss, Sun and Weinberger, 2017, "On calibration of modern neural networks", equation 3). The Brier score is the
    mean of Σ_c (p_c − y_c)², from 0 to 2 (Brier, 1950).

    Args:
        by_seed: Probabilities (N, C) and labels (N,) of each seed, for at least one seed.
    """
    edges = np.linspace(0, 1, BINS + 1)
    rows, sums = [], []
    for seed, (probabilities, labels) in by_seed.items():
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        # bins are (0, 1/15], (1/15, 2/15] and so on
        place = np.clip(np.ceil(confidence * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
        n, sure, hits = (np.bincount(place, weights, BINS) for weights in (None, confidence, right.astype(float)))
        truth = np.zeros_like(probabilities)
        truth[np.arange(len(labels)), labels] = 1
        rows.append(
            {
                **{"seed": seed, "accuracy": float(right.mean()), "confidence": float(confidence.mean())},
                "ece": float(np.abs(hits - sure).sum() / len(labels)),
                "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
            }
        )
        sums.append((n, sure, hits))
    counts, sure, hits = np.stack(sums, axis=1).astype(float)  # (S, bins) each
    with np.errstate(invalid="ignore", divide="ignore"):
        bins = pd.DataFrame(
            {
                **{"low": edges[:-1], "high": edges[1:], "share": counts.sum(axis=0) / counts.sum()},
                "confidence": sure.sum(axis=0) / counts.sum(axis=0),
                "accuracy": hits.sum(axis=0) / counts.sum(axis=0),
            }
        )
        return Calibration(seeds=pd.DataFrame(rows), bins=bins, by_seed=hits / counts, utterances=int(counts[0].sum()))

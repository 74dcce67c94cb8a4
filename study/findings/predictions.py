"""What every trial of a study predicted for the test utterances: in arrays, and in the files beside ``trials.csv``."""

from __future__ import annotations

import csv
import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.ledger.outcomes import Outcome
from study.ledger.utterances import TestUtterances

PREDICTIONS = "predictions.npz"
UTTERANCES = "utterances.csv"

_MOST_CLASSES = 255
"""Of a study whose trials' predictions are kept: a byte each."""

_MOST_NUMBERS = 2**31
"""Trials times utterances at most that are read."""

_AGAIN = "make it again with --report-only"

_log = logging.getLogger(__name__)


def _utterances(
    *,
    ids: Iterable[str],
    folds: Iterable[int],
    labels: Iterable[int],
    speakers: Iterable[str] | None,
    sessions: Iterable[str] | None,
    seconds: Iterable[float] | None,
) -> pd.DataFrame:
    """Return the frame of :attr:`Predictions.utterances`."""
    frame = pd.DataFrame({"id": pd.Series(list(ids), dtype=object)})
    frame["fold"] = np.fromiter(folds, np.int64)
    frame["label"] = np.fromiter(labels, np.int64)
    for name, names in (("speaker", speakers), ("session", sessions)):
        frame[name] = pd.Series([None] * len(frame) if names is None else list(names), dtype=object)
    frame["seconds"] = np.full(len(frame), np.nan) if seconds is None else np.fromiter(seconds, np.float64)
    return frame


NO_UTTERANCES = _utterances(ids=(), folds=(), labels=(), speakers=None, sessions=None, seconds=None)
"""The frame of a study that has kept none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """What every trial of a study predicted for the test utterances.

    Attributes:
        utterances: a row per fold and utterance of its test split: ``id``, ``fold``, ``label`` (the index of its
            class), ``speaker``, ``session``, ``seconds``; the last three are empty where not known. An utterance that
            is tested in two folds stands twice.
        predicted: (T, U) indices of classes: row t of the study's trials, column u of the rows of ``utterances``. -1:
            the trial did not predict this utterance, for it is of another fold, it failed, or it is of before
            predictions were kept.
        train_sizes: how many utterances each fold trains on.
    """

    utterances: pd.DataFrame
    predicted: npt.NDArray[np.int16]
    train_sizes: tuple[int, ...]

    @classmethod
    def of(
        cls,
        utterances: TestUtterances | None,
        folds: Sequence[int] | pd.Series,
        outcomes: Sequence[Outcome],
        *,
        classes: int = 0,
    ) -> Predictions | None:
        """Return what trials predicted, as the ledger has it; None: no trial's predictions are kept.

        Args:
            utterances: of the study; None: the ledger does not know them.
            folds: of each trial.
            outcomes: of each trial.
            classes: of the study; 0: not known.

        Raises:
            InputError: an utterance's label is no class.
        """
        if utterances is None or not any(outcome.predicted for outcome in outcomes):
            return None
        classes = classes or _MOST_CLASSES
        if (wrong := max(utterances.labels)) >= classes:
            raise InputError(
                f"the ledger's list of test utterances has the label {wrong}, of {classes} classes; run the study's "
                "command again, with its features and without --report-only: it writes that list anew"
            )
        bounds = np.searchsorted(utterances.folds, np.arange(len(utterances.train_sizes) + 1)).tolist()
        predicted = np.full((len(outcomes), len(utterances.ids)), -1, np.int16)
        damaged = 0
        for row, fold, outcome in zip(predicted, folds, outcomes, strict=True):
            if outcome.predicted:
                place = row[bounds[fold] : bounds[fold + 1]] if fold + 1 < len(bounds) else row[:0]
                given = np.frombuffer(outcome.predicted, np.uint8)
                if len(place) == len(given) and given.max() < classes:
                    place[:] = given
                else:
                    damaged += 1
        if damaged:
            _log.warning("%d trials go without their predictions, which are not of the test utterances", damaged)
        frame = _utterances(
            ids=utterances.ids,
            folds=utterances.folds,
            labels=utterances.labels,
            speakers=utterances.speakers,
            sessions=utterances.sessions,
            seconds=utterances.seconds,
        )
        return cls(utterances=frame, predicted=predicted, train_sizes=utterances.train_sizes)

    def by_seed(self, rows: Sequence[int] | pd.Index, seeds: Sequence[int] | pd.Series) -> pd.DataFrame:
        """Return what each seed predicted, over all folds: a row per seed, a column per row of ``utterances``.

        Args:
            rows: of ``predicted``, the trials of one configuration.
            seeds: of each of these trials.

        Returns:
            Indices of classes, in the order of the seeds; -1 where no trial of the seed predicted an utterance.
        """
        of_rows = np.asarray(seeds, dtype=np.int64)
        order = np.argsort(of_rows, kind="stable")
        distinct, starts = np.unique(of_rows[order], return_index=True)
        known = self.predicted[np.asarray(rows, dtype=np.intp)[order]]
        # a trial predicted nothing of other folds, so that the largest of a seed's is the one that did
        merged = np.maximum.reduceat(known, starts, axis=0) if len(starts) else known
        return pd.DataFrame(merged, index=pd.Index(distinct, name="seed"))

    def matrix(self, trials: pd.DataFrame, folds: int) -> pd.DataFrame:
        """Return what one configuration predicted, by the seeds that predicted every utterance on every fold.

        Args:
            trials: those of the study's trials that are of one configuration; their index numbers rows of
                ``predicted``.
            folds: how many folds a complete seed has.

        Returns:
            A row per seed, a column per row of ``utterances``: indices of classes, without holes.
        """
        complete = trials[(trials["status"] == "done") & self.has[trials.index]]
        counts = complete.groupby("seed")["fold"].nunique()
        complete = complete[complete["seed"].isin(counts.index[counts == folds])]
        return self.by_seed(complete.index, complete["seed"])

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(U,) the index of each utterance's class."""
        return self.utterances["label"].to_numpy(np.int64)

    @property
    def num_classes(self) -> int:
        """C, the number of classes: every one has test utterances."""
        return int(self.labels.max()) + 1

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """(U,) the fold that tests each utterance."""
        return self.utterances["fold"].to_numpy(np.int64)

    @property
    def speakers(self) -> list[str] | None:
        """(U,) each utterance's speaker; None: not known of all."""
        return None if self.utterances["speaker"].isna().any() else self.utterances["speaker"].tolist()

    @cached_property
    def has(self) -> npt.NDArray[np.bool_]:
        """(T,) whether each trial has predictions."""
        return np.asarray((self.predicted >= 0).any(axis=1))

    def frame(self) -> pd.DataFrame:
        """Return a row per trial that has predictions and a column per utterance, as nullable indices of classes."""
        rows = np.flatnonzero(self.has)
        known = self.predicted[rows]
        columns: dict[str, npt.NDArray[np.int16]] = {}
        for place, name in enumerate(self.utterances["id"]):
            column = known[:, place]
            columns[name] = np.maximum(columns[name], column) if name in columns else column
        arrays = {name: pd.arrays.IntegerArray(column.copy(), column < 0) for name, column in columns.items()}
        return pd.DataFrame(arrays, index=pd.Index(rows), copy=False)

    def save(self, folder: Path) -> list[Path]:
        """Write :data:`PREDICTIONS` and :data:`UTTERANCES`, and return their paths."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "predicted": self.predicted,
            "train_sizes": np.array(self.train_sizes, np.int64),
        }
        # numpy's own savez_compressed takes seven times as long, to save a quarter of the space
        with (
            written_atomically(folder / PREDICTIONS) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        with written_atomically(folder / UTTERANCES) as temporary:
            # an id may be no UTF-8, or hold whatever ends a line
            self.utterances.to_csv(temporary, index=False, errors="backslashreplace", quoting=csv.QUOTE_NONNUMERIC)
        return [folder / PREDICTIONS, folder / UTTERANCES]


def load_predictions(folder: Path, trials: pd.DataFrame, *, folds: int, classes: int) -> Predictions | None:
    """Read what :meth:`Predictions.save` wrote; None: it is not there.

    Args:
        folder: of the study's results.
        trials: of the study, which the predictions must be of: they give each trial's WA.
        folds: of the study.
        classes: of the study; 0: not known.

    Raises:
        InputError: files that were changed, or are of other trials.
    """
    if not all((folder / name).is_file() for name in (PREDICTIONS, UTTERANCES)):
        return None
    classes = classes or _MOST_CLASSES
    utterances = _read_utterances(folder / UTTERANCES, folds, classes)
    path = folder / PREDICTIONS
    try:
        predicted, train_sizes = _read_arrays(path, (len(trials), len(utterances)), folds)
        _check_predicted(predicted, trials, utterances, classes)
    except ValueError as error:
        raise InputError(f"{path}: {error}; {_AGAIN}") from None
    return Predictions(utterances=utterances, predicted=predicted, train_sizes=train_sizes)


def _read_utterances(path: Path, folds: int, classes: int) -> pd.DataFrame:
    texts = {"id": str, "speaker": str, "session": str}
    try:
        read = pd.read_csv(path, keep_default_na=False, na_values={"seconds": [""]}, dtype=texts)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as csv ({' '.join(str(error).split())[:120]}); {_AGAIN}") from None

    def refused(what: str) -> InputError:
        return InputError(f"{path}: {what}; {_AGAIN}")

    if missing := [name for name in NO_UTTERANCES.columns if name not in read.columns]:
        raise refused(f"has no column {missing[0]!r}")
    for name, end in (("fold", folds), ("label", classes)):
        if read[name].dtype != np.int64 or not read[name].between(0, end - 1).all():
            raise refused(f"column {name!r} holds what is no whole number from 0 to {end - 1}")
    if not read["fold"].is_monotonic_increasing or read["fold"].nunique() != folds:
        raise refused(f"column 'fold' must be 0 to {folds - 1}, in order")
    if read.duplicated(["fold", "id"]).any():
        raise refused("an utterance is twice in a fold")
    seconds = read["seconds"]
    if not pd.api.types.is_numeric_dtype(seconds) or not (seconds.isna() | seconds.between(0, 1e9)).all():
        raise refused("column 'seconds' holds what is no length")
    known = {name: None if (read[name] == "").all() else read[name].tolist() for name in ("speaker", "session")}
    return _utterances(
        ids=read["id"].tolist(),
        folds=read["fold"].tolist(),
        labels=read["label"].tolist(),
        speakers=known["speaker"],
        sessions=known["session"],
        seconds=seconds.tolist(),
    )


def _read_arrays(path: Path, shape: tuple[int, int], folds: int) -> tuple[npt.NDArray[np.int16], tuple[int, ...]]:
    """Return the arrays of a :data:`PREDICTIONS`; what they claim to be is looked at before they are read.

    Raises:
        ValueError: they are something else.
    """
    if shape[0] * shape[1] > _MOST_NUMBERS:
        raise ValueError(f"{shape[0]} trials of {shape[1]} utterances are more than can be read")
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {
        "predicted": (shape, np.dtype(np.int16)),
        "train_sizes": ((folds,), np.dtype(np.int64)),
    }
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = {name: _claimed(archive, f"{name}.npy") for name in wanted}
        for name, claim in claimed.items():
            if claim != wanted[name]:
                told = [f"{kind} {dimensions}" for dimensions, kind in (claim, wanted[name])]
                raise ValueError(f"{name} is {told[0][:80]}, where the trials and utterances ask for {told[1]}")
        with np.load(path, allow_pickle=False) as arrays:
            predicted, train_sizes = arrays["predicted"], arrays["train_sizes"].tolist()
    except ValueError:
        raise
    except Exception as error:  # zipfile and numpy raise whatever their parts do
        raise ValueError(f"cannot be read as npz ({' '.join(str(error).split())[:120]})") from None
    if min(train_sizes) < 1:
        raise ValueError("train_sizes are not at least 1")
    return predicted, tuple(train_sizes)


def _claimed(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], Any]:
    """Return the shape and the kind of an array, as its head has them."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"{name} is of version {version}")
        shape, _, kind = read[version](file)
    return shape, kind


def _check_predicted(
    predicted: npt.NDArray[np.int16], trials: pd.DataFrame, utterances: pd.DataFrame, classes: int
) -> None:
    """Raise ValueError where predictions are none of these trials."""
    if predicted.size and not (predicted.min() >= -1 and predicted.max() < classes):
        raise ValueError(f"predicted holds what is no class from 0 to {classes - 1}, nor -1")
    labels, of_utterance = utterances["label"].to_numpy(), utterances["fold"].to_numpy()
    for fold in np.unique(of_utterance):
        here = of_utterance == fold
        rows = np.flatnonzero((trials["fold"] == fold).to_numpy(bool))
        own, others = predicted[np.ix_(rows, here)], predicted[np.ix_(rows, ~here)]
        has = (own >= 0).any(axis=1)
        if (own[has] < 0).any() or (others >= 0).any():
            raise ValueError(f"a trial of fold {fold} does not predict the utterances of its fold, and these alone")
        found = trials.iloc[rows[has]]
        right = (own[has] == labels[here]).mean(axis=1)
        if not (np.abs(right - found["test_wa"].to_numpy(float)) < 1e-6).all() or (found["status"] != "done").any():
            raise ValueError("what is predicted does not give the trials' test_wa, so it is of other trials")

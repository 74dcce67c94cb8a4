"""The predictions of a study's trials for the test utterances: as arrays, and in files beside ``trials.csv``."""

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
"""Largest number of classes of a study whose predictions are kept, because a prediction is one byte."""

_MOST_NUMBERS = 2**28
"""Largest number of trials times utterances that is read."""

_LARGEST_CSV = 128 * 2**20
"""Largest size of a CSV file in bytes. A row of trials has 500 bytes."""
_LONGEST_HEAD = 2**14
"""Largest size in bytes of the names of the columns: reading many columns takes minutes."""
_LONGEST_HEADER = 20_000
"""Largest size in bytes of what precedes the numbers of an array."""

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
"""The frame of a study that has kept no utterances."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """The predictions of all trials of a study for the test utterances.

    Attributes:
        utterances: One row per fold and utterance of its test split: ``id``, ``fold``, ``label`` (index of the
            class), ``speaker``, ``session`` and ``seconds``. The last three are empty if they are not known. An
            utterance that is tested in two folds has two rows.
        predicted: (T, U) class indices: rows are the study's trials, columns are the rows of ``utterances``. -1 means
            that the trial did not predict the utterance, because the trial is of another fold, it failed, or it is
            older than the keeping of predictions.
        train_sizes: Number of training utterances of each fold.
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
        """Return the predictions in the ledger, or `None` if no trial's predictions are kept.

        Args:
            utterances: Test utterances of the study. `None` if the ledger does not have them.
            folds: Fold of each trial.
            outcomes: Outcome of each trial.
            classes: Number of classes of the study. 0 if it is not known.

        Raises:
            InputError: If the label of an utterance is not a class.
        """
        if utterances is None or not any(outcome.predicted for outcome in outcomes):
            return None
        classes = classes or _MOST_CLASSES
        if (wrong := max(utterances.labels)) >= classes:
            raise InputError(
                f"the ledger's list of test utterances has the label {wrong}, but there are {classes} classes; run the "
                "study's command again with its features and without --report-only, which writes the list again"
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
            _log.warning("%d trials are read without their predictions, which do not fit the test utterances", damaged)
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
        """Return the predictions of each seed over all folds: one row per seed, one column per row of ``utterances``.

        Args:
            rows: Rows of ``predicted`` with the trials of one configuration.
            seeds: Seed of each of these trials.

        Returns:
            Class indices, in the order of the seeds. -1 if no trial of the seed predicted an utterance.
        """
        of_rows = np.asarray(seeds, dtype=np.int64)
        order = np.argsort(of_rows, kind="stable")
        distinct, starts = np.unique(of_rows[order], return_index=True)
        known = self.predicted[np.asarray(rows, dtype=np.intp)[order]]
        # a trial has -1 for the utterances of other folds, so the largest number of a seed's trials is the prediction
        merged = np.maximum.reduceat(known, starts, axis=0) if len(starts) else known
        return pd.DataFrame(merged, index=pd.Index(distinct, name="seed"))

    def matrix(self, trials: pd.DataFrame, folds: int) -> pd.DataFrame:
        """Return the predictions of one configuration for the seeds that predicted every utterance on every fold.

        Args:
            trials: The study's trials of one configuration. Their index refers to rows of ``predicted``.
            folds: Number of folds of a complete seed.

        Returns:
            One row per seed, one column per row of ``utterances``: class indices, without missing values.
        """
        complete = trials[(trials["status"] == "done") & self.has[trials.index]]
        counts = complete.groupby("seed")["fold"].nunique()
        complete = complete[complete["seed"].isin(counts.index[counts == folds])]
        return self.by_seed(complete.index, complete["seed"])

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The (U,) class indices of the utterances."""
        return self.utterances["label"].to_numpy(np.int64)

    @property
    def num_classes(self) -> int:
        """C, the number of classes. Every class has test utterances."""
        return int(self.labels.max()) + 1

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        """The (U,) folds that test the utterances."""
        return self.utterances["fold"].to_numpy(np.int64)

    @property
    def speakers(self) -> list[str] | None:
        """The (U,) speakers of the utterances. `None` if not all are known."""
        return None if self.utterances["speaker"].isna().any() else self.utterances["speaker"].tolist()

    @cached_property
    def has(self) -> npt.NDArray[np.bool_]:
        """The (T,) flags that say whether each trial has predictions."""
        return np.asarray((self.predicted >= 0).any(axis=1))

    def frame(self) -> pd.DataFrame:
        """Return one row per trial that has predictions and one column per utterance, as nullable class indices."""
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
        # numpy's own savez_compressed takes seven times as long and saves a quarter of the space
        with (
            written_atomically(folder / PREDICTIONS) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        with written_atomically(folder / UTTERANCES) as temporary:
            # an id may contain line breaks or characters that UTF-8 cannot encode
            self.utterances.to_csv(temporary, index=False, errors="backslashreplace", quoting=csv.QUOTE_NONNUMERIC)
        return [folder / PREDICTIONS, folder / UTTERANCES]


def load_predictions(folder: Path, trials: pd.DataFrame, *, folds: int, classes: int) -> Predictions | None:
    """Read the files that :meth:`Predictions.save` wrote. Return `None` if they do not exist.

    Args:
        folder: Folder of the study's results.
        trials: Trials of the study. The predictions must give the WA of each trial.
        folds: Number of folds of the study.
        classes: Number of classes of the study. 0 if it is not known.

    Raises:
        InputError: If a file was changed or belongs to other trials.
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


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Return the frame in a CSV file.

    Args:
        path: The file.
        options: Options of ``pandas.read_csv``.

    Raises:
        InputError: If the file is too large, or cannot be read as CSV.
    """
    if path.stat().st_size > _LARGEST_CSV:
        raise InputError(f"{path}: is larger than {_LARGEST_CSV / 1e6:.0f} MB, so no study wrote it; {_AGAIN}")
    with path.open("rb") as file:
        if len(file.readline(_LONGEST_HEAD + 1)) > _LONGEST_HEAD:
            raise InputError(f"{path}: its head is longer than any study writes; {_AGAIN}")
    try:
        frame: pd.DataFrame = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as csv ({' '.join(str(error).split())[:120]}); {_AGAIN}") from None
    return frame


def _read_utterances(path: Path, folds: int, classes: int) -> pd.DataFrame:
    texts = {"id": str, "speaker": str, "session": str}
    read = read_csv(path, keep_default_na=False, na_values={"seconds": [""]}, dtype=texts)

    def refused(fault: str) -> InputError:
        return InputError(f"{path}: {fault}; {_AGAIN}")

    if missing := [name for name in NO_UTTERANCES.columns if name not in read.columns]:
        raise refused(f"has no column {missing[0]!r}")
    for name, end in (("fold", folds), ("label", classes)):
        if read[name].dtype != np.int64 or not read[name].between(0, end - 1).all():
            raise refused(f"column {name!r} must have whole numbers from 0 to {end - 1}")
    if not read["fold"].is_monotonic_increasing or read["fold"].nunique() != folds:
        raise refused(f"column 'fold' must be 0 to {folds - 1}, in order")
    if read.duplicated(["fold", "id"]).any():
        raise refused("an utterance is listed twice in a fold")
    seconds = read["seconds"]
    if not pd.api.types.is_numeric_dtype(seconds) or not (seconds.isna() | seconds.between(0, 1e9)).all():
        raise refused("column 'seconds' must have numbers from 0 to 1e9, or be empty")
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
    """Return the arrays of a :data:`PREDICTIONS` file. Their shapes and types are checked before they are read.

    Raises:
        ValueError: If the arrays are something else.
    """
    if shape[0] * shape[1] > _MOST_NUMBERS:
        raise ValueError(f"{shape[0]} trials times {shape[1]} utterances are too many to read")
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {
        "predicted": (shape, np.dtype(np.int16)),
        "train_sizes": ((folds,), np.dtype(np.int64)),
    }
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [_array(archive, name, *wanted[name]) for name in wanted]
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile and numpy may raise any error of their parts
        raise ValueError(f"cannot be read as npz ({' '.join(str(error).split())[:120]})") from None
    predicted, train_sizes = arrays[0], tuple(arrays[1].tolist())
    if not 1 <= min(train_sizes) <= max(train_sizes) <= _MOST_NUMBERS:
        raise ValueError(f"train_sizes must be from 1 to {_MOST_NUMBERS}")
    return predicted, train_sizes


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: Any) -> npt.NDArray[Any]:
    """Return an array of this shape and type. Its claims are checked before it is read.

    Raises:
        ValueError: If it is something else.
    """
    member = f"{name}.npy"
    if archive.getinfo(member).file_size > kind.itemsize * np.prod(shape, dtype=np.int64) + _LONGEST_HEADER:
        raise ValueError(f"{name} is larger than the trials and utterances ask for")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"{name} has the unknown version {version}")
        claimed, _, found = read[version](file)
    if (claimed, found) != (shape, kind):
        told = f"{found} {claimed}"[:80]
        raise ValueError(f"{name} is {told}, but the trials and utterances ask for {kind} {shape}")
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_predicted(
    predicted: npt.NDArray[np.int16], trials: pd.DataFrame, utterances: pd.DataFrame, classes: int
) -> None:
    """Raise ValueError if the predictions do not belong to these trials."""
    if predicted.size and not (predicted.min() >= -1 and predicted.max() < classes):
        raise ValueError(f"predicted must have classes from 0 to {classes - 1}, or -1")
    labels, of_utterance = utterances["label"].to_numpy(), utterances["fold"].to_numpy()
    for fold in np.unique(of_utterance):
        here = of_utterance == fold
        rows = np.flatnonzero((trials["fold"] == fold).to_numpy(bool))
        own, others = predicted[np.ix_(rows, here)], predicted[np.ix_(rows, ~here)]
        has = (own >= 0).any(axis=1)
        if (own[has] < 0).any() or (others >= 0).any():
            raise ValueError(f"a trial of fold {fold} must predict all utterances of its fold, and no others")
        found = trials.iloc[rows[has]]
        right = (own[has] == labels[here]).mean(axis=1)
        if not (np.abs(right - found["test_wa"].to_numpy(float)) < 1e-6).all() or (found["status"] != "done").any():
            raise ValueError("the predictions do not give the trials' test_wa, so they belong to other trials")

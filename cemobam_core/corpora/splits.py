"""Split protocols: which utterances go into train, val and test, for raw corpora and for single feature files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cemobam_core.corpora.utterances import RawCorpus, Utterance
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold

DEFAULT_PROTOCOL = "random:80/10/10"
SPLITS = ("train", "val", "test")

Rows = npt.NDArray[np.int64]


def load_folds(
    path: Path,
    *,
    corpus: str = "",
    class_names: Sequence[str] | None = None,
    protocol: str | None = None,
    split_seed: int | None = None,
) -> tuple[Fold, ...]:
    """Read features and split them.

    Args:
        path: A folder with ``train``, ``val`` and ``test`` (``.safetensors``, or the authors' ``.pkl``, also as
            ``<CORPUS>_BERT_WAV2VEC_<split>.pkl``), a folder with one such folder per fold (``fold_0`` and so on), or
            one file, which is split here.
        corpus: Name of the corpus, which selects the files if the folder contains several corpora.
        class_names: Names of the classes for files that do not store them.
        protocol: Split protocol for one file. ``None`` for ``random:80/10/10``. Not allowed for a folder, which is
            already split.
        split_seed: Seed of the random protocols. ``None`` for 0.

    Returns:
        One fold, or five for leave-one-session-out with five sessions.

    Raises:
        InputError: A file is missing or invalid, or does not allow the protocol.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the features with --features DIR or FILE")
    if path.is_file():
        features = FeatureSet.load(path, class_names)
        if protocol == "session" and split_seed is not None:
            raise InputError("--split-seed: the protocol session is not random; leave the option out")
        return split(features, protocol or DEFAULT_PROTOCOL, split_seed or 0)
    for option, value in (("--split-protocol", protocol), ("--split-seed", split_seed)):
        if value is not None:
            raise InputError(
                f"{option} {value}: {path} is a folder of files that are already split; "
                "leave the option out, or give one file for the tool to split"
            )
    return tuple(
        Fold(**{name: FeatureSet.load(_split_file(folder, name, corpus), class_names) for name in SPLITS})
        for folder in _fold_folders(path)
    )


def split(features: FeatureSet, protocol: str = DEFAULT_PROTOCOL, seed: int = 0) -> tuple[Fold, ...]:
    """Split one feature set by a protocol of ``assign``.

    Args:
        features: Features of all utterances.
        protocol: ``random:TRAIN/VAL/TEST``, ``speaker`` or ``session``.
        seed: Seed of ``random`` and ``speaker``.

    Raises:
        InputError: The protocol is unknown, or the features do not allow it.
    """
    if protocol == "manifest":
        raise InputError(
            f"--split-protocol manifest: {features.source} is one feature file, which does not store splits; "
            f"use {DEFAULT_PROTOCOL}, or give a folder of train, val and test"
        )
    folds = assign(
        features.labels.numpy(),
        features.class_names,
        protocol,
        seed,
        source=features.source,
        speakers=features.speakers,
        sessions=features.sessions,
    )
    return tuple(
        Fold(
            **{
                name: features.select(rows.tolist(), source=f"{features.source} ({protocol})")
                for name, rows in zip(SPLITS, fold, strict=True)
            }
        )
        for fold in folds
    )


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One assignment of a raw corpus's utterances to train, val and test: a fold without features.

    Attributes:
        train: Utterances of the train split.
        val: Utterances of the validation split.
        test: Utterances of the test split.
    """

    train: tuple[Utterance, ...]
    val: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    @property
    def splits(self) -> dict[str, tuple[Utterance, ...]]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def without(self, ids: Collection[str]) -> Assignment:
        """Return the assignment without the utterances with these ids."""
        return Assignment(
            **{name: tuple(u for u in utterances if u.id not in ids) for name, utterances in self.splits.items()}
        )


def split_utterances(corpus: RawCorpus, protocol: str = DEFAULT_PROTOCOL, seed: int = 0) -> tuple[Assignment, ...]:
    """Split a raw corpus by a protocol of ``assign``.

    Args:
        corpus: Corpus with all utterances.
        protocol: ``random:TRAIN/VAL/TEST``, ``speaker``, ``session`` or ``manifest``.
        seed: Seed of ``random`` and ``speaker``.

    Returns:
        One assignment, or one per session. Utterances keep the order of the corpus.

    Raises:
        InputError: The protocol is unknown, the corpus does not allow it, or a split lacks a class.
    """
    utterances = corpus.utterances
    number = {name: c for c, name in enumerate(corpus.class_names)}
    labels = np.array([number[u.label] for u in utterances], dtype=np.int64)
    folds = assign(
        labels,
        corpus.class_names,
        protocol,
        seed,
        source=str(corpus.root),
        speakers=[u.speaker for u in utterances],
        sessions=[u.session for u in utterances],
        splits=[u.splits[0] if u.splits else None for u in utterances],
        ids=[u.id for u in utterances],
    )
    for fold in folds:
        for name, rows in zip(SPLITS, fold, strict=True):
            for c in np.flatnonzero(np.bincount(labels[rows], minlength=len(number)) == 0)[:1]:
                raise InputError(
                    f"{corpus.root}: --split-protocol {protocol} leaves no utterance of class "
                    f"{corpus.class_names[c]!r} in the {name} split ({len(rows)} utterances); every split needs every "
                    "class, so use another protocol"
                )
    return tuple(
        Assignment(**{name: tuple(utterances[i] for i in rows) for name, rows in zip(SPLITS, fold, strict=True)})
        for fold in folds
    )


def assign(
    labels: Rows,
    class_names: Sequence[str],
    protocol: str,
    seed: int,
    *,
    source: str,
    speakers: Sequence[str | None] | None = None,
    sessions: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
) -> list[tuple[Rows, Rows, Rows]]:
    """Assign rows to train, val and test, for each fold.

    The protocols are: ``random:TRAIN/VAL/TEST`` in percent, stratified by class (as in the paper); ``speaker``, about
    80/10/10 without a speaker in two splits; ``session``, leave-one-session-out, in which each session is the test
    split of one fold and the next session is its validation split; and ``manifest``, the splits of the corpus itself.

    Args:
        labels: (N,), class indices.
        class_names: Names of the C classes.
        protocol: One of the protocols above.
        seed: Seed of ``random`` and ``speaker``.
        source: Name of the utterances in error messages, usually their file.
        speakers: Speakers of the N utterances, if known.
        sessions: Sessions of the N utterances, if known.
        splits: Splits (train, val or test) of the N utterances, if known.
        ids: Names of the N utterances in error messages.

    Returns:
        For each fold, the sorted rows of train, val and test. Each row is in exactly one of them.

    Raises:
        InputError: The protocol is unknown, or the utterances do not allow it.
    """
    given = _Given(
        labels=labels,
        class_names=class_names,
        source=source,
        ids=ids,
        columns={"speakers": speakers, "sessions": sessions, "splits": splits},
    )
    shares = re.fullmatch(r"random:(\d+)/(\d+)/(\d+)", protocol)
    if shares:
        percents = [int(share) for share in shares.groups()]
        if sum(percents) != 100 or 0 in percents:
            raise InputError(f"--split-protocol {protocol}: give three shares above 0 that sum to 100")
        folds = [_random(given, percents, seed)]
    elif protocol == "speaker":
        folds = [_by_speaker(given, seed)]
    elif protocol == "session":
        folds = _by_session(given)
    elif protocol == "manifest":
        folds = [_by_manifest(given)]
    else:
        raise InputError(
            f"--split-protocol {protocol}: unknown; choose random:80/10/10 (any shares), speaker, session or manifest"
        )
    return [(np.sort(train), np.sort(val), np.sort(test)) for train, val, test in folds]


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The data that the protocols use."""

    labels: Rows
    class_names: Sequence[str]
    source: str
    ids: Sequence[str] | None
    columns: dict[str, Sequence[str | None] | None]

    def named(self, column: str, protocol: str) -> npt.NDArray[Any]:
        """Return the speakers, sessions or splits, and raise an error if any of them is unknown."""
        values = self.columns[column]
        unnamed = [] if values is None else [i for i, value in enumerate(values) if value is None]
        if values is None or len(unnamed) == len(values):
            where = (
                f"add a column {column.removesuffix('s')} to the manifest"
                if self.ids
                else "add them to the file's metadata"
            )
            raise InputError(
                f"{self.source}: does not contain its {column}, which --split-protocol {protocol} needs; "
                f"{where}, or use {DEFAULT_PROTOCOL}"
            )
        if unnamed:
            which = repr(self.ids[unnamed[0]]) if self.ids else f"row {unnamed[0]}"
            raise InputError(
                f"{self.source}: {len(unnamed)} of {len(values)} utterances have no {column.removesuffix('s')} (first "
                f"{which}), which --split-protocol {protocol} needs; fill it in, or use {DEFAULT_PROTOCOL}"
            )
        return np.array(values, dtype=np.str_)

    def fewest_of_a_class(self) -> int:
        """Return the size of the smallest class, and raise an error if it is too small for three splits."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        rarest = int(counts.argmin())
        if counts[rarest] < 3:
            raise InputError(
                f"{self.source}: {int(counts[rarest])} utterances of class {self.class_names[rarest]!r}; give at least "
                "three, so that every split has one"
            )
        return int(counts[rarest])


def _random(given: _Given, percents: Sequence[int], seed: int) -> tuple[Rows, Rows, Rows]:
    labels = given.labels
    everyone = np.arange(len(labels))
    n_val, n_test = (round(len(labels) * percent / 100) for percent in percents[1:])
    given.fewest_of_a_class()
    try:
        rest, test = _stratified(everyone, labels, n_test, seed)
        train, val = _stratified(rest, labels, n_val, seed)
    except ValueError as error:
        raise InputError(
            f"{given.source}: {len(labels)} utterances are too few for --split-protocol random:"
            f"{'/'.join(map(str, percents))} by class ({str(error).rstrip('.')})"
        ) from None
    return train, val, test


def _stratified(rows: Rows, labels: Rows, n_second: int, seed: int) -> tuple[Rows, Rows]:
    from sklearn.model_selection import StratifiedShuffleSplit  # noqa: PLC0415  (slow to import)

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_second, random_state=seed)
    first, second = next(splitter.split(rows, labels[rows]))
    return rows[first], rows[second]


def _by_speaker(given: _Given, seed: int) -> tuple[Rows, Rows, Rows]:
    speakers = given.named("speakers", "speaker")
    distinct = len(set(speakers))
    if distinct < 3:
        raise InputError(f"{given.source}: {distinct} speakers; --split-protocol speaker needs at least three")
    # Ten parts with different speakers and similar class frequencies: one for test, one for val, eight for train.
    fewest = given.fewest_of_a_class()
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415

    splitter = StratifiedGroupKFold(n_splits=min(10, distinct, fewest), shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(given.labels, given.labels, speakers)]
    return np.concatenate(parts[2:]), parts[1], parts[0]


def _by_session(given: _Given) -> list[tuple[Rows, Rows, Rows]]:
    sessions = given.named("sessions", "session")
    distinct = sorted(set(sessions))
    if len(distinct) < 3:
        raise InputError(f"{given.source}: {len(distinct)} sessions; --split-protocol session needs at least three")
    folds = []
    for i, test in enumerate(distinct):
        val = distinct[(i + 1) % len(distinct)]
        train = (sessions != test) & (sessions != val)
        folds.append((np.flatnonzero(train), np.flatnonzero(sessions == val), np.flatnonzero(sessions == test)))
    return folds


def _by_manifest(given: _Given) -> tuple[Rows, Rows, Rows]:
    splits = given.named("splits", "manifest")
    train, val, test = (np.flatnonzero(splits == name) for name in SPLITS)
    for name, rows in zip(SPLITS, (train, val, test), strict=True):
        if not len(rows):
            raise InputError(
                f"{given.source}: no utterance is in the split {name}; --split-protocol manifest needs some in each of "
                f"{', '.join(SPLITS)}"
            )
    return train, val, test


def _fold_folders(path: Path) -> list[Path]:
    """Return the folders ``fold_0``, ``fold_1`` and so on if they exist, and the folder itself otherwise."""
    folders = list(itertools.takewhile(Path.is_dir, (path / f"fold_{i}" for i in itertools.count())))
    return folders or [path]


def _split_file(folder: Path, split_name: str, corpus: str) -> Path:
    plain = [folder / f"{split_name}{suffix}" for suffix in (".safetensors", ".pkl")]
    found = [file for file in plain if file.is_file()]
    if not found:
        found = sorted(folder.glob(f"*_BERT_WAV2VEC_{split_name}.pkl"))
        ours = [file for file in found if file.name.lower().startswith(f"{corpus.lower()}_")]
        found = ours or found
    if not found:
        raise InputError(
            f"{folder}: no {split_name}.safetensors, {split_name}.pkl or <CORPUS>_BERT_WAV2VEC_{split_name}.pkl; a "
            "folder of features needs train, val and test (for a single file, give --features FILE)"
        )
    if len(found) > 1:
        raise InputError(
            f"{folder}: both {found[0].name} and {found[1].name} could be the {split_name} split; "
            "keep one of them in the folder"
        )
    return found[0]

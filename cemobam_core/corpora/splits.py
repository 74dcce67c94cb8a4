"""Who goes into train, val and test: split protocols for features that come in one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold

DEFAULT_PROTOCOL = "random:80/10/10"
SPLITS = ("train", "val", "test")

_Rows = npt.NDArray[np.int64]


def load_folds(
    path: Path,
    *,
    corpus: str = "",
    class_names: Sequence[str] | None = None,
    protocol: str | None = None,
    split_seed: int | None = None,
) -> tuple[Fold, ...]:
    """Read features and say who goes where.

    Args:
        path: a folder that holds ``train``, ``val`` and ``test`` (``.safetensors``, or the authors' ``.pkl``, also as
            ``<CORPUS>_BERT_WAV2VEC_<split>.pkl``), or one file, which is split here.
        corpus: chooses among the files of several corpora in one folder.
        class_names: the emotions, for files that do not say.
        protocol: how to split one file; None: ``random:80/10/10``. A folder is split already.
        split_seed: varies the protocols that draw lots; None: 0.

    Returns:
        One fold, or five for leave-one-session-out over five sessions.

    Raises:
        InputError: files that are missing or invalid, a protocol that they do not allow.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the features with --features DIR or FILE")
    if path.is_file():
        features = FeatureSet.load(path, class_names)
        if protocol == "session" and split_seed is not None:
            raise InputError("--split-seed: the protocol session draws no lots; leave the option out")
        return split(features, protocol or DEFAULT_PROTOCOL, split_seed or 0)
    for option, value in (("--split-protocol", protocol), ("--split-seed", split_seed)):
        if value is not None:
            raise InputError(
                f"{option} {value}: {path} is a folder of files split already; "
                "leave the option out, or give one file for the tool to split"
            )
    files = {name: _split_file(path, name, corpus) for name in SPLITS}
    return (Fold(**{name: FeatureSet.load(file, class_names) for name, file in files.items()}),)


def split(features: FeatureSet, protocol: str = DEFAULT_PROTOCOL, seed: int = 0) -> tuple[Fold, ...]:
    """Split one feature set.

    Protocols: ``random:TRAIN/VAL/TEST`` in percent, stratified by class (the paper's way); ``speaker``, no speaker in
    two splits, about 80/10/10; ``session``, leave-one-session-out: each session is the test split of one fold, the
    next one its validation split.

    Args:
        features: all utterances.
        protocol: one of the above.
        seed: varies ``random`` and ``speaker``.

    Raises:
        InputError: an unknown protocol, or features that do not allow it.
    """
    makers: dict[str, Callable[[FeatureSet, int], list[tuple[_Rows, _Rows, _Rows]]]] = {
        "speaker": _by_speaker,
        "session": _by_session,
    }
    shares = re.fullmatch(r"random:(\d+)/(\d+)/(\d+)", protocol)
    if shares:
        percents = [int(share) for share in shares.groups()]
        if sum(percents) != 100 or 0 in percents:
            raise InputError(f"--split-protocol {protocol}: three shares above 0 that sum to 100 are needed")
        folds = [_random(features, percents, seed)]
    elif protocol in makers:
        folds = makers[protocol](features, seed)
    else:
        raise InputError(
            f"--split-protocol {protocol}: unknown; choose random:80/10/10 (any shares), speaker or session"
        )
    return tuple(
        Fold(
            **{
                name: features.select(sorted(rows.tolist()), source=f"{features.source} ({protocol})")
                for name, rows in zip(SPLITS, fold, strict=True)
            }
        )
        for fold in folds
    )


def _random(features: FeatureSet, percents: Sequence[int], seed: int) -> tuple[_Rows, _Rows, _Rows]:
    labels = features.labels.numpy()
    everyone = np.arange(len(labels))
    n_val, n_test = (round(len(labels) * percent / 100) for percent in percents[1:])
    _fewest_of_a_class(features)
    try:
        rest, test = _stratified(everyone, labels, n_test, seed)
        train, val = _stratified(rest, labels, n_val, seed)
    except ValueError as error:
        raise InputError(
            f"{features.source}: {len(labels)} utterances are too few to split "
            f"{'/'.join(map(str, percents))} by class ({str(error).rstrip('.')})"
        ) from None
    return train, val, test


def _fewest_of_a_class(features: FeatureSet) -> int:
    """How many utterances the rarest class has: enough for one in every split, or it is an error."""
    counts = features.labels.bincount(minlength=features.num_classes)
    rarest = int(counts.argmin())
    if counts[rarest] < 3:
        raise InputError(
            f"{features.source}: {int(counts[rarest])} utterances of class {features.class_names[rarest]!r}; three are "
            "needed to have one in every split"
        )
    return int(counts[rarest])


def _stratified(rows: _Rows, labels: _Rows, n_second: int, seed: int) -> tuple[_Rows, _Rows]:
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_second, random_state=seed)
    first, second = next(splitter.split(rows, labels[rows]))
    return rows[first], rows[second]


def _by_speaker(features: FeatureSet, seed: int) -> list[tuple[_Rows, _Rows, _Rows]]:
    speakers = np.array(_named(features, "speakers", "speaker"))
    labels = features.labels.numpy()
    distinct = len(set(speakers))
    if distinct < 3:
        raise InputError(f"{features.source}: {distinct} speakers; --split-protocol speaker needs three at least")
    # Ten parts without a speaker in common, alike in their classes: one to test, one to validate, eight to train.
    fewest = _fewest_of_a_class(features)
    splitter = StratifiedGroupKFold(n_splits=min(10, distinct, fewest), shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(labels, labels, speakers)]
    return [(np.concatenate(parts[2:]), parts[1], parts[0])]


def _by_session(features: FeatureSet, _seed: int) -> list[tuple[_Rows, _Rows, _Rows]]:
    sessions = np.array(_named(features, "sessions", "session"))
    distinct = sorted(set(sessions))
    if len(distinct) < 3:
        raise InputError(f"{features.source}: {len(distinct)} sessions; --split-protocol session needs three at least")
    folds = []
    for i, test in enumerate(distinct):
        val = distinct[(i + 1) % len(distinct)]
        train = (sessions != test) & (sessions != val)
        folds.append((np.flatnonzero(train), np.flatnonzero(sessions == val), np.flatnonzero(sessions == test)))
    return folds


def _named(features: FeatureSet, name: str, protocol: str) -> tuple[str, ...]:
    values: tuple[str, ...] | None = getattr(features, name)
    if values is None:
        raise InputError(
            f"{features.source}: does not say its {name}, which --split-protocol {protocol} needs; "
            f"add them to the file's metadata or use {DEFAULT_PROTOCOL}"
        )
    return values


def _split_file(folder: Path, split_name: str, corpus: str) -> Path:
    plain = [folder / f"{split_name}{suffix}" for suffix in (".safetensors", ".pkl")]
    found = [file for file in plain if file.is_file()]
    if not found:
        found = sorted(folder.glob(f"*_BERT_WAV2VEC_{split_name}.pkl"))
        ours = [file for file in found if file.name.lower().startswith(f"{corpus.lower()}_")]
        found = ours or found
    if not found:
        raise InputError(
            f"{folder}: no {split_name}.safetensors, {split_name}.pkl or <CORPUS>_BERT_WAV2VEC_{split_name}.pkl in it; "
            "a folder of features holds train, val and test (one file alone: --features FILE)"
        )
    if len(found) > 1:
        raise InputError(
            f"{folder}: both {found[0].name} and {found[1].name} could be the {split_name} split; "
            "keep one of them in the folder"
        )
    return found[0]

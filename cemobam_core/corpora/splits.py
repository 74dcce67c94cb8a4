"""Splits: which utterances are train, val and test, of raw corpora, of single feature files and of folders."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.protocols import cut, default_protocol, is_drawn
from cemobam_core.corpora.protocols.protocol import Cut
from cemobam_core.corpora.split_file import SplitFile
from cemobam_core.corpora.utterances import RawCorpus, Utterance
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold
from cemobam_core.shards import shards_in
from cemobam_core.wall import refuse_irregular

SPLITS = ("train", "val", "test")

Say = Callable[[str], object]
"""Function that receives lines for the user."""


def quietly(_: str) -> None:
    """Drop a line for the user."""


def split_features(
    features: FeatureSet, protocol: str | None, split_seed: int | None, split_file: Path | None, *, say: Say = quietly
) -> tuple[Fold, ...]:
    """Split the utterances of one feature file.

    Args:
        features: All utterances.
        protocol: As for :func:`load_folds`.
        split_seed: As for :func:`load_folds`.
        split_file: As for :func:`load_folds`.
        say: Function that receives lines on the splits.

    Raises:
        InputError: The features do not allow the protocol, or the file of splits is invalid.
    """
    chosen = chosen_split(Columns.of_features(features), protocol, split_seed, split_file)
    return split(features, chosen, split_seed or 0, say=say)


def load_folds(
    path: Path,
    *,
    corpus: str = "",
    class_names: Sequence[str] | None = None,
    protocol: str | None = None,
    split_seed: int | None = None,
    split_file: Path | None = None,
    say: Say = quietly,
) -> tuple[Fold, ...]:
    """Read features and split them.

    Args:
        path: A folder with ``train``, ``val`` and ``test`` (``.safetensors``, in shards or not, or the authors'
            ``.pkl``, also as ``<CORPUS>_BERT_WAV2VEC_<split>.pkl``), a folder with one such folder per fold (``fold_0``
            and so on), or one file, which is split here. Any one of several shards stands for all of them.
        corpus: Name of the corpus, which selects the files if the folder contains several corpora.
        class_names: Names of the classes for files that do not store them.
        protocol: Split protocol for one file. ``None`` for ``random:80/10/10``. Not allowed for a folder, which is
            already split.
        split_seed: Seed of the random protocols. ``None`` for 0.
        split_file: File of splits for one feature file, instead of a protocol.
        say: Function that receives lines on the splits.

    Returns:
        The folds of the protocol, the file or the folder.

    Raises:
        InputError: A file is missing or invalid, or does not allow the protocol.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the features with --features DIR or FILE")
    if path.is_file():
        return split_features(FeatureSet.load(path, class_names), protocol, split_seed, split_file, say=say)
    given = (("--split-protocol", protocol), ("--split-seed", split_seed), ("--split-file", split_file))
    for option, value in given:
        if value is not None:
            raise InputError(
                f"{option} {value}: {path} is a folder of files that are already split; "
                "leave the option out, or give one file for the tool to split"
            )
    files = [_split_file(folder, name, corpus) for folder in _fold_folders(path) for name in SPLITS]
    parts = iter(FeatureSet.load_all(files, class_names))
    folds = tuple(Fold(**dict(zip(SPLITS, three, strict=True))) for three in zip(parts, parts, parts, strict=True))
    say(told(folds, str(path)))
    return folds


def chosen_split(
    columns: Columns, protocol: str | None, split_seed: int | None, split_file: Path | None
) -> str | SplitFile:
    """Return the split protocol or the split file that a user's options mean.

    Args:
        columns: The utterances to split.
        protocol: Protocol that the user gave, if any.
        split_seed: Seed that the user gave, if any.
        split_file: File or folder of splits that the user gave, if any.

    Raises:
        InputError: The options do not fit together, or the file cannot be read.
    """
    if split_file is not None:
        for option, value in (("--split-protocol", protocol), ("--split-seed", split_seed)):
            if value is not None:
                raise InputError(f"{option} {value} with --split-file: the file has the splits; leave one of them out")
        return SplitFile.read(split_file)
    chosen = protocol or default_protocol(columns)
    if not is_drawn(columns, chosen) and split_seed is not None:
        raise InputError(
            f"--split-seed {split_seed}: the split protocol {chosen} is not random for this corpus; leave the option "
            "out"
        )
    return chosen


def split(
    features: FeatureSet, protocol: str | SplitFile | None = None, seed: int = 0, *, say: Say = quietly
) -> tuple[Fold, ...]:
    """Split one feature set.

    Args:
        features: Features of all utterances.
        protocol: A split protocol (see :mod:`cemobam_core.corpora.protocols`), or a file of splits. ``None`` for
            ``random:80/10/10``.
        seed: Seed of a random protocol.
        say: Function that receives lines on the splits.

    Raises:
        InputError: The protocol is unknown, the features do not allow it, or a split lacks a class.
    """
    columns = Columns.of_features(features)
    protocol = protocol or default_protocol(columns)
    cuts, lines = _cut(columns, protocol, seed)
    folds = tuple(
        Fold(
            **{
                name: features.select(np.sort(columns.places[rows]).tolist(), source=f"{features.source} ({protocol})")
                for name, rows in fold._asdict().items()
            }
        )
        for fold in cuts
    )
    for line in (told(folds, str(protocol)), *lines):
        say(line)
    return folds


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


def split_utterances(
    corpus: RawCorpus, protocol: str | SplitFile | None = None, seed: int = 0, *, say: Say = quietly
) -> tuple[Assignment, ...]:
    """Split a raw corpus.

    Args:
        corpus: Corpus with all utterances.
        protocol: A split protocol (see :mod:`cemobam_core.corpora.protocols`), or a file of splits. ``None`` for the
            corpus's own splits, or ``random:80/10/10`` if it has none.
        seed: Seed of a random protocol.
        say: Function that receives lines on the splits.

    Returns:
        One assignment per fold. Utterances keep the order of the corpus. Some may be in no split.

    Raises:
        InputError: The protocol is unknown, the corpus does not allow it, or a split lacks a class.
    """
    columns = Columns.of_corpus(corpus)
    protocol = protocol or default_protocol(columns)
    cuts, lines = _cut(columns, protocol, seed)
    folds = tuple(
        Assignment(
            **{
                name: tuple(corpus.utterances[i] for i in np.sort(columns.places[rows]))
                for name, rows in fold._asdict().items()
            }
        )
        for fold in cuts
    )
    for line in (told(folds, str(protocol)), *lines):
        say(line)
    return folds


def _cut(columns: Columns, protocol: str | SplitFile, seed: int) -> tuple[list[Cut], list[str]]:
    """Return the folds by a protocol or a file, and lines on the utterances that are left out."""
    lines: list[str] = []
    if isinstance(protocol, SplitFile):
        folds = protocol.cut(columns)
        what, remedy = f"{protocol.path}:", "list some of them there"
    else:
        folds, lines = cut(columns, protocol, seed)
        what, remedy = f"{columns.source}: --split-protocol {protocol}", "use another protocol"
    for i, fold in enumerate(folds):
        where = f" of fold {i}" if len(folds) > 1 else ""
        for name, rows in fold._asdict().items():
            for c in np.flatnonzero(np.bincount(columns.labels[rows], minlength=len(columns.class_names)) == 0)[:1]:
                raise InputError(
                    f"{what} leaves no utterance of class {columns.class_names[c]!r} in the {name} split{where} "
                    f"({len(rows)} utterances); every split needs every class, so {remedy}"
                )
    asked, used = len(columns) * len(folds), sum(len(part) for fold in folds for part in fold)
    if used < asked and not lines:
        over = f" (over {len(folds)} folds)" if len(folds) > 1 else ""
        lines = [f"left out: {asked - used} of {asked} utterances, which are in no split{over}"]
    return folds, lines


def told(folds: Sequence[Assignment] | Sequence[Fold], how: str) -> str:
    """Return a line for the user on how utterances are split: sizes, shares and fingerprint."""
    total = sum(map(len, folds[0].splits.values()))
    sizes = ", ".join(f"{name} {len(part)} ({len(part) / total:.0%})" for name, part in folds[0].splits.items())
    first = f" in the first of {len(folds)} folds" if len(folds) > 1 else ""
    return f"split by {how}: {sizes} utterances{first}; fingerprint {splits_fingerprint(folds)}"


def splits_fingerprint(folds: Iterable[Assignment | Fold]) -> str:
    """Return 16 hexadecimal digits that identify splits: the id, fold and split of each utterance.

    It does not depend on how the splits were made, on the order of the utterances, or on their features.
    """
    rows = sorted(
        (key, i, name)
        for i, fold in enumerate(folds)
        for name, part in fold.splits.items()
        for key in (part.utterance_ids if isinstance(part, FeatureSet) else (u.id for u in part))
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _fold_folders(path: Path) -> list[Path]:
    """Return the folders ``fold_0``, ``fold_1`` and so on if they exist, and the folder itself otherwise."""
    folders = list(itertools.takewhile(Path.is_dir, (path / f"fold_{i}" for i in itertools.count())))
    return folders or [path]


def _split_file(folder: Path, split_name: str, corpus: str) -> Path:
    plain = [folder / f"{split_name}{suffix}" for suffix in (".safetensors", ".pkl")]
    found = [file for file in plain if file.is_file()] + shards_in(folder, split_name)[:1]
    if not found:
        found = sorted(folder.glob(f"*_BERT_WAV2VEC_{split_name}.pkl"))
        ours = [file for file in found if file.name.lower().startswith(f"{corpus.lower()}_")]
        found = ours or found
    if not found:
        if folder.exists() and not folder.is_dir():
            refuse_irregular(folder)
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

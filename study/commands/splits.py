"""``cemobam splits``: show how utterances are split, and write the splits to a file for others."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.corpora import CORPORA, READABLE
from cemobam_core.errors import InputError
from study.commands.options import CORPUS, DATASET, FEATURES
from study.commands.parsing import parser_with_examples

if TYPE_CHECKING:
    from cemobam_core.corpora.splits import Assignment
    from cemobam_core.features import Fold

_EXAMPLES = """
examples:
  cemobam splits --dataset iemocap --data-root IEMOCAP_full_release \\
      --split-protocol session --to iemocap-session.csv
  cemobam splits --features features/iemocap --to splits.csv
  cemobam splits --dataset iemocap --data-root IEMOCAP_full_release \\
      --split-file iemocap-session.csv
      Does the file fit the corpus, and what does it leak?
"""


def build_parser(prog: str = "cemobam splits") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Show the number of utterances in each split by class, the speakers, and what train shares with "
        "val and test. With --to, write the splits to a csv that --split-file reads. No audio is read and nothing is "
        "trained.",
        epilog=_EXAMPLES,
    )
    data = parser.add_argument_group("data")
    known = ", ".join(READABLE)
    DATASET.add_to(data, help=f"the data set: {known}, or a name of your choice (needed for a raw corpus)")
    FEATURES.add_to(
        data,
        help="features made before: a folder with train, val and test, or one file, which is split (default: none)",
    )
    for option in CORPUS:
        option.add_to(data)
    parser.add_argument(
        "--to",
        metavar="FILE.csv",
        type=Path,
        help="write id, fold and split of each utterance here (default: only print)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the splits, write them if asked to, and return the exit status."""
    from cemobam_core.corpora.leaks import leaks
    from cemobam_core.corpora.split_file import write_split_file

    if args.to and args.to.suffix.lower() != ".csv":
        raise InputError(f"--to {args.to}: splits are written as csv; give a name that ends in .csv")
    ids, class_names, folds = _split(args)
    print()
    for line in _table(class_names, len(ids), folds):
        print(line)
    print()
    for leak in leaks(*folds):
        print(leak)
    if args.to:
        splits = [{key: name for name, part in fold.items() for key, _, _ in part} for fold in map(_rows, folds)]
        write_split_file(args.to, ids, splits)
        print(f"splits: {args.to}, written")
    return 0


def _split(args: argparse.Namespace) -> tuple[list[str], Sequence[str], Sequence[Assignment | Fold]]:
    """Print how the data are split. Return the ids of all utterances, sorted, the classes, and the folds."""
    from cemobam_core.corpora.columns import Columns
    from cemobam_core.corpora.splits import chosen_split, load_folds, split_features, split_utterances
    from cemobam_core.features import FeatureSet
    from study.commands.data import raw_corpus

    if args.dataset is None and (args.data_root or args.manifest):
        raise InputError("--data-root or --manifest without --dataset: name the data set (iemocap, esd, …)")
    raw = raw_corpus(args)
    if raw is not None:
        print(*raw.notes, sep="\n")
        chosen = chosen_split(Columns.of_corpus(raw), args.split_protocol, args.split_seed, args.split_file)
        assigned = split_utterances(raw, chosen, args.split_seed or 0, say=print)
        return sorted(u.id for u in raw.utterances), raw.class_names, assigned
    if args.features is None:
        raise InputError(
            "no data given; give --data-root DIR or --manifest FILE with --dataset for a raw corpus, or --features PATH"
        )
    known = CORPORA.get(args.dataset or "")
    class_names = (known.class_names or None) if known else None
    if args.features.is_file():
        features = FeatureSet.load(args.features, class_names)
        of_file = split_features(features, args.split_protocol, args.split_seed, args.split_file, say=print)
        return sorted(features.utterance_ids), features.class_names, of_file
    folds = load_folds(
        args.features,
        corpus=args.dataset or "",
        class_names=class_names,
        protocol=args.split_protocol,
        split_seed=args.split_seed,
        split_file=args.split_file,
        say=print,
    )
    ids = sorted({key for fold in folds for part in fold.splits.values() for key in part.utterance_ids})
    return ids, folds[0].train.class_names, folds


_Row = tuple[str, str, str | None]
"""Id, class and speaker of an utterance."""


def _rows(fold: Assignment | Fold) -> dict[str, list[_Row]]:
    """Return the utterances of each split."""
    from cemobam_core.features import FeatureSet

    rows: dict[str, list[_Row]] = {}
    for name, part in fold.splits.items():
        if isinstance(part, FeatureSet):
            labels = [part.class_names[label] for label in part.labels.tolist()]
            speakers: Sequence[str | None] = part.speakers or [None] * len(part)
            rows[name] = list(zip(part.utterance_ids, labels, speakers, strict=True))
        else:
            rows[name] = [(u.id, u.label, u.speaker) for u in part]
    return rows


def _table(class_names: Sequence[str], total: int, folds: Sequence[Assignment | Fold]) -> Iterator[str]:
    """Return the lines of a table with a row per fold and split."""
    table = [["fold", "split", "utterances", *class_names, "speakers"]]
    for i, fold in enumerate(folds):
        used = 0
        for name, part in _rows(fold).items():
            used += len(part)
            classes = Counter(label for _, label, _ in part)
            speakers = {speaker for _, _, speaker in part}
            known = "unknown" if None in speakers else str(len(speakers))
            table.append([str(i), name, str(len(part)), *(str(classes[one]) for one in class_names), known])
        if used < total:
            table.append([str(i), "left out", str(total - used), *[""] * len(class_names), ""])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:<{w}}" if i == 1 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()

"""The data that a command line names: features made before, or a raw corpus to make them from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.corpora import CORPORA, READABLE
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from study.commands.machine import device_type
from study.commands.options import MAKING

# torch is imported where it is used, so that typing errors answer at once.
if TYPE_CHECKING:
    from cemobam_core.corpora.utterances import RawCorpus
    from cemobam_core.encoders.settings import Dtype, Recipe
    from cemobam_core.features import Fold


def raw_corpus(args: argparse.Namespace) -> RawCorpus | None:
    """Read the corpus that ``--data-root`` or ``--manifest`` names, in its classes. Return `None` if neither is given.

    Print which labels form a class together, and which are left out.

    Raises:
        InputError: Two sources of data are given, ``--data-root`` does not know the data set, the corpus cannot be
            read, or the classes do not fit it.
    """
    given = [
        f"--{name.replace('_', '-')}" for name in ("data_root", "manifest", "features") if getattr(args, name, None)
    ]
    if len(given) > 1:
        raise InputError(f"{given[0]} with {given[1]}: these are two sources of data; give only one")
    if args.manifest:
        raw = _of_manifest(args)
    elif args.data_root:
        raw = _of_release(args)
    else:
        return None
    if raw.reduction:
        print(raw.reduction)
    return raw


def _of_manifest(args: argparse.Namespace) -> RawCorpus:
    from cemobam_core.corpora.classes import chosen_classes, reduced
    from cemobam_core.corpora.manifest import read_manifest

    if args.classes is None:
        known = CORPORA.get(args.dataset)
        return read_manifest(args.manifest, name=args.dataset, class_names=known.class_names if known else None)
    raw = read_manifest(args.manifest, name=args.dataset)
    return reduced(raw, chosen_classes(raw, args.classes, {}))


def _of_release(args: argparse.Namespace) -> RawCorpus:
    from cemobam_core.corpora.classes import read_corpus

    known = CORPORA.get(args.dataset)
    if known is None or known.reader is None:
        raise InputError(
            f"--dataset {args.dataset}: --data-root reads only {', '.join(READABLE)}; "
            "give any other corpus with --manifest: a CSV or JSONL list of it, or EmoBox's folder of it"
        )
    return read_corpus(known, args.data_root, args.classes)


def recipe(args: argparse.Namespace, raw: RawCorpus, *, dtype: Dtype = "float32") -> Recipe:
    """Return the recipe for the features of a raw corpus, according to the options.

    Args:
        args: The options.
        raw: The corpus.
        dtype: Type of the numbers in the files.

    Raises:
        InputError: The corpus has no transcripts, options do not fit together, or an encoder cannot be found.
    """
    from cemobam_core.corpora.columns import Columns
    from cemobam_core.corpora.splits import chosen_split
    from cemobam_core.encoders.settings import FeatureSettings, Recipe

    names = [option.name for option in MAKING.options if option.name != "max_bad"]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    chosen = chosen_split(Columns.of_corpus(raw), args.split_protocol, args.split_seed, args.split_file)
    given |= {"protocol": chosen, "split_seed": args.split_seed or 0} if isinstance(chosen, str) else {}
    settings = FeatureSettings(**given, split_file=args.split_file, dtype=dtype)
    return Recipe.of(raw, settings)


def make(args: argparse.Namespace, recipe: Recipe, out: Path, *, shard_bytes: int | None = None) -> None:
    """Make the features of a recipe in a folder, see :func:`~cemobam_core.encoders.extract.make_features`."""
    from cemobam_core.encoders.extract import make_features

    given = {"max_bad": args.max_bad, "shard_bytes": shard_bytes}
    make_features(
        recipe, out, device=device_type(args), **{name: value for name, value in given.items() if value is not None}
    )


def folds(args: argparse.Namespace, corpus: Corpus) -> tuple[Fold, ...]:
    """Load the features that ``--features`` names, or the demo's, and print the leakage between the splits.

    Raises:
        InputError: No features are named, files cannot be used, or options have no effect.
    """
    from cemobam_core.corpora.leaks import leaks
    from cemobam_core.corpora.splits import load_folds

    if corpus.name == "demo":
        for option in ("features", "split_protocol", "split_seed", "split_file"):
            if getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag}: the demo has its own features and split; name your data with --dataset")
        if args.classes is not None:
            raise InputError(
                f"--classes {args.classes}: the demo has its own four classes; name your corpus with --dataset"
            )
        _refuse_idle(args, "on the demo, which has its own features; name your data with --dataset")
        from cemobam_core.corpora.synthetic import demo_fold

        return (demo_fold(),)
    if args.features is None:
        what = f"{corpus.about}. " if corpus.about else ""
        known = "" if corpus.about else f" (known by name: {', '.join(CORPORA)})"
        raise InputError(
            f"--dataset {corpus.name}: no data given{known}. {what}Give one of these: --data-root DIR, the corpus as "
            "you unpacked it; --manifest FILE, a CSV or JSONL list of any corpus; --features DIR, features made before "
            "(train, val and test as .safetensors, or the .pkl files that the authors publish); --features FILE, one "
            f"such file to split. {args.command} without options runs the demo"
        )
    if args.classes is not None:
        raise InputError(
            f"--classes {args.classes}: the features in {args.features} have their classes already; make the features "
            "again with this option (cemobam features with --data-root or --manifest), or leave it out"
        )
    _refuse_idle(args, "with --features; it is for feature extraction, with --data-root or --manifest")
    loaded = load_folds(
        args.features,
        corpus=corpus.name,
        class_names=corpus.class_names or None,
        protocol=args.split_protocol,
        split_seed=args.split_seed,
        split_file=args.split_file,
        say=print,
    )
    for leak in leaks(*loaded):
        print(leak)
    return loaded


def _refuse_idle(args: argparse.Namespace, why: str) -> None:
    for option in MAKING.options:
        if getattr(args, option.name) is not None:
            raise InputError(f"{option.flag}: has no effect {why}")

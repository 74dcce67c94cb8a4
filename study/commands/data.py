"""The data that a command line names: features made before, or a raw corpus to make them of."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from study.commands.machine import device_type
from study.commands.options import MAKING

# torch is imported where it is used: a typing error answers at once.
if TYPE_CHECKING:
    from cemobam_core.corpora.utterances import RawCorpus
    from cemobam_core.encoders.settings import Recipe
    from cemobam_core.features import Fold


def raw_corpus(args: argparse.Namespace) -> RawCorpus | None:
    """Read the corpus that ``--data-root`` or ``--manifest`` names; return None if neither is given.

    Raises:
        InputError: two sources of data, a data set that ``--data-root`` does not know, a corpus that cannot be read.
    """
    given = [
        f"--{name.replace('_', '-')}" for name in ("data_root", "manifest", "features") if getattr(args, name, None)
    ]
    if len(given) > 1:
        raise InputError(f"{given[0]} with {given[1]}: two sources of data; give one of them")
    known = CORPORA.get(args.dataset)
    if args.manifest:
        from cemobam_core.corpora.manifest import read_manifest

        class_names = known.class_names if known else None
        return read_manifest(args.manifest, name=args.dataset, class_names=class_names)
    if args.data_root:
        if known is None or known.reader is None:
            raise InputError(
                f"--dataset {args.dataset}: --data-root reads {' and '.join(_readable())}; "
                "describe any other corpus in a CSV or JSONL and give it with --manifest"
            )
        return known.reader(args.data_root)
    return None


def _readable() -> list[str]:
    return [name for name, corpus in CORPORA.items() if corpus.reader]


def recipe(args: argparse.Namespace, raw: RawCorpus) -> Recipe:
    """Return how the options say that features are made of a raw corpus.

    Raises:
        InputError: options that do not fit, an encoder that is not to be had.
    """
    from cemobam_core.corpora.splits import DEFAULT_PROTOCOL
    from cemobam_core.encoders.settings import FeatureSettings, Recipe

    names = [option.name for option in MAKING.options if option.name != "max_bad"]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    says = args.manifest and any(utterance.split for utterance in raw.utterances)
    protocol = args.split_protocol or ("manifest" if says else DEFAULT_PROTOCOL)
    if args.split_seed is not None and protocol in {"session", "manifest"}:
        raise InputError(f"--split-seed: the protocol {protocol} draws no lots; leave the option out")
    settings = FeatureSettings(**given, protocol=protocol, split_seed=args.split_seed or 0)
    return Recipe.of(raw, settings)


def make(args: argparse.Namespace, recipe: Recipe, out: Path) -> None:
    """Make the features of a recipe in a folder, see :func:`~cemobam_core.encoders.extract.make_features`."""
    from cemobam_core.encoders.extract import make_features

    max_bad = {} if args.max_bad is None else {"max_bad": args.max_bad}
    make_features(recipe, out, device=device_type(args), **max_bad)


def folds(args: argparse.Namespace, corpus: Corpus) -> tuple[Fold, ...]:
    """Load the features that ``--features`` names, or the demo's, and print what leaks, as far as they tell.

    Raises:
        InputError: none named, files that cannot be used, options without effect.
    """
    from cemobam_core.corpora.leaks import leaks
    from cemobam_core.corpora.splits import load_folds

    if corpus.name == "demo":
        for option in ("features", "split_protocol", "split_seed"):
            if getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag}: the demo brings its own features and split; name your data with --dataset")
        _refuse_idle(args, "on the demo, which brings its own features; name your data with --dataset")
        from cemobam_core.corpora.synthetic import demo_fold

        return (demo_fold(),)
    if args.features is None:
        what = f"{corpus.about}. " if corpus.about else ""
        known = "" if corpus.about else f" (known by name: {', '.join(CORPORA)})"
        raise InputError(
            f"--dataset {corpus.name}: no data given{known}. {what}Ways to go on: --data-root DIR, the corpus as it "
            "was unpacked; --manifest FILE, any corpus as a CSV or JSONL; --features DIR, features made before (train, "
            "val and test as .safetensors or as the .pkl files that the authors publish), or --features FILE, one such "
            "file to split. python run_grid.py alone runs the demo"
        )
    _refuse_idle(args, "with --features; they are for making features, with --data-root or --manifest")
    loaded = load_folds(
        args.features,
        corpus=corpus.name,
        class_names=corpus.class_names or None,
        protocol=args.split_protocol,
        split_seed=args.split_seed,
    )
    for leak in leaks(*loaded):
        print(leak)
    return loaded


def _refuse_idle(args: argparse.Namespace, why: str) -> None:
    for option in MAKING.options:
        if getattr(args, option.name) is not None:
            raise InputError(f"{option.flag}: has no effect {why}")

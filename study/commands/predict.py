"""``cemobam predict``: label utterances with a model of a study, or with a checkpoint of the authors' code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import DATASET, FEATURES, FUSION, K_AUDIO, K_TEXT, SYSTEM
from study.commands.parsing import parser_with_examples

_EXAMPLES = """
examples:
  cemobam predict --model results/demo/models/NAME \\
      --features new.safetensors --to labels.csv
      With a kept model. The features need no labels.
  cemobam predict --released-checkpoint FILE.pt --features FILE.pkl \\
      --dataset iemocap --fusion min --k-audio 8 --k-text 7 --to labels.csv
      With a checkpoint of the authors' code.
"""


def build_parser(prog: str = "cemobam predict") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Label utterances with a model that a study kept (cemobam run --keep-models), or with a checkpoint "
        "of the authors' code. A kept model labels each utterance on its own, linked to the nearest training "
        "utterances. No code in the files is run.",
        epilog=_EXAMPLES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        help="a folder under results/NAME/models, which holds all settings and the classes (this or "
        "--released-checkpoint is required)",
    )
    what.add_argument(
        "--released-checkpoint",
        metavar="FILE.pt",
        type=Path,
        help="weights of the authors' code: sizes, heads, classes and layers are read from the file; --fusion, "
        "--k-audio and --k-text must be given",
    )
    SYSTEM.add_to(
        parser,
        default=None,
        metavar="FILE.py:NAME",
        help="with --model: the file of its system, if that is your own; the file is run (default: a built-in system)",
    )
    FEATURES.add_to(
        parser,
        metavar="FILE",
        required=True,
        help="a .safetensors feature file, without labels if you like, or the authors' .pkl (required)",
    )
    DATASET.add_to(
        parser,
        metavar=None,
        type=None,
        choices=[name for name, corpus in CORPORA.items() if corpus.name != "demo"],
        help="with --released-checkpoint: the data set that names the classes (default: the names in the file)",
    )
    FUSION.add_to(parser, default=None, help="with --released-checkpoint: the fusion strategy of its training")
    for option, name in ((K_AUDIO, "K_audio"), (K_TEXT, "K_text")):
        option.add_to(
            parser,
            type=values.at_least_one,
            default=None,
            help=f"with --released-checkpoint: the {name} of its training",
        )
    parser.add_argument(
        "--graph",
        choices=("anchored", "among"),
        help="the neighbours of an utterance: anchored, the nearest training utterances, so that its label does not "
        "depend on the other utterances of the file; among, the other utterances of the file, as in training, so give "
        "many at once (default: anchored with --model; among with --released-checkpoint, which has no other)",
    )
    parser.add_argument(
        "--to",
        metavar="FILE.csv",
        type=Path,
        required=True,
        help="the file to write: id, predicted label, and the probability of each class (required)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the labels and return the exit status."""
    from study.output.predict import predict, predict_released
    from study.papers.cemobam.profiles import PROFILES

    options = {"--fusion": args.fusion, "--k-audio": args.k_audio, "--k-text": args.k_text}
    if args.model:
        if given := [name for name, value in {**options, "--dataset": args.dataset}.items() if value is not None]:
            raise InputError(f"{given[0]}: the model has its own setting; leave the option out with --model")
        print(predict(args.model, args.features, to=args.to, system=args.system, neighbours=args.graph or "anchored"))
        return 0
    if args.system:
        raise InputError("--system: only for --model; a checkpoint of the authors' code has their system")
    if args.graph == "anchored":
        raise InputError(
            "--graph anchored: a checkpoint of the authors' code does not hold its training utterances; leave the "
            "option out, so that neighbours are utterances of the file"
        )
    if missing := [name for name, value in options.items() if value is None]:
        raise InputError(f"{missing[0]} is required with --released-checkpoint, because the file does not hold it")
    class_names = CORPORA[args.dataset].class_names if args.dataset else None
    print(
        predict_released(
            args.released_checkpoint,
            args.features,
            graph=replace(PROFILES["released"].graph, k_audio=args.k_audio, k_text=args.k_text),
            fusion=args.fusion,
            class_names=class_names,
            to=args.to,
        )
    )
    return 0

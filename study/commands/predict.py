"""``cemobam predict``: label utterances with a kept model, or with a checkpoint of the authors' code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import DATASET, FEATURES, FUSION, K_AUDIO, K_TEXT, SYSTEM
from study.commands.parsing import Parser


def build_parser(prog: str = "cemobam predict") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog,
        description="Label utterances with a model that a study kept (--keep-models), or with a checkpoint that the "
        "authors' code wrote. A kept model labels each utterance by itself, linked to the training utterances nearest "
        "to it. Nothing in the files is run.",
        epilog="example: cemobam predict --model results/demo/models/NAME --features new.safetensors --to out.csv",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        help="a folder under results/NAME/models; it says K, fusion, modules and classes",
    )
    what.add_argument(
        "--released-checkpoint",
        metavar="FILE.pt",
        type=Path,
        help="weights of the authors' code; sizes, heads, classes and layers are read off them, the rest must be given",
    )
    SYSTEM.add_to(
        parser,
        default=None,
        metavar="FILE.py:NAME",
        help="with --model: the file of its system, if that is one of yours; the file is run",
    )
    FEATURES.add_to(
        parser,
        metavar="FILE",
        required=True,
        help="a .safetensors feature file (labels may be missing) or the authors' .pkl",
    )
    DATASET.add_to(
        parser,
        metavar=None,
        type=None,
        choices=[name for name, corpus in CORPORA.items() if corpus.name != "demo"],
        help="names the classes of a file that does not",
    )
    FUSION.add_to(parser, default=None, help="which the checkpoint was trained with")
    for option in (K_AUDIO, K_TEXT):
        option.add_to(parser, type=values.at_least_one, default=None, help="likewise")
    parser.add_argument(
        "--graph",
        choices=("anchored", "among"),
        help="whom an utterance has as neighbours: anchored, the training utterances nearest to it (default with "
        "--model), so that its label does not depend on the others in the file; among, the others in the file (the "
        "only way with --released-checkpoint), as training does in its split: give many at once",
    )
    parser.add_argument(
        "--to",
        metavar="FILE.csv",
        type=Path,
        required=True,
        help="where to write id, predicted, and a probability per class",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the labels and return the exit status."""
    from study.output.predict import predict, predict_released
    from study.papers.cemobam.profiles import PROFILES

    options = {"--fusion": args.fusion, "--k-audio": args.k_audio, "--k-text": args.k_text}
    if args.model:
        if told := [name for name, value in {**options, "--dataset": args.dataset}.items() if value is not None]:
            raise InputError(f"{told[0]}: the model's own configuration says this; leave it out with --model")
        print(predict(args.model, args.features, to=args.to, system=args.system, neighbours=args.graph or "anchored"))
        return 0
    if args.system:
        raise InputError("--system: goes with --model; a checkpoint of the authors' code is of their system")
    if args.graph == "anchored":
        raise InputError(
            "--graph anchored: a checkpoint of the authors' code does not hold its training utterances; leave it out, "
            "so that neighbours are taken among the utterances of the file"
        )
    if missing := [name for name, value in options.items() if value is None]:
        raise InputError(f"{missing[0]} is needed with --released-checkpoint: the file does not say it")
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

"""``cemobam predict``: label clips or features with a model of a study, or with a checkpoint of the authors' code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from study.commands import values
from study.commands.clips import CLIP_OPTIONS, add_clip_options, labeller_of
from study.commands.options import DATASET, FEATURES, FUSION, K_AUDIO, K_TEXT, SYSTEM
from study.commands.parsing import parser_with_examples

if TYPE_CHECKING:
    from study.output.labelling import Labeller
    from study.output.predict import Neighbourhood

_EXAMPLES = """
examples:
  cemobam predict --model results/iemocap/models/NAME --audio clip.wav \\
      --transcript "I am so glad that you came."
      One clip: its label, the probability of each class, and the training
      utterances that it was linked to.
  cemobam predict --model results/iemocap/models/NAME --audio clip.wav \\
      --asr openai/whisper-small
      Without a transcript: a Whisper model writes one.
  cemobam predict --model results/iemocap/models/NAME --audio clips/ \\
      --to labels.csv
      Every sound file in a folder, each with its transcript in a .txt file of
      the same name.
  cemobam predict --model results/iemocap/models/NAME --manifest clips.csv \\
      --to labels.csv
      The clips of a CSV or JSONL file: columns audio and text, and label if you
      know it, for the metrics.
  cemobam predict --model results/demo/models/NAME \\
      --features new.safetensors --to labels.csv
      Features made before. They need no labels.
  cemobam predict --released-checkpoint FILE.pt --features FILE.pkl \\
      --dataset iemocap --fusion min --k-audio 8 --k-text 7 --to labels.csv
      With a checkpoint of the authors' code.
"""


def build_parser(prog: str = "cemobam predict") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Label clips or features with a model that a study kept (cemobam run --keep-models), or with a "
        "checkpoint of the authors' code. A kept model labels each utterance on its own, linked to the nearest "
        "training utterances. It knows the encoders of its features, and encodes clips the same way; this needs the "
        "extra `features`: pip install 'cemobam-study[features]'. No code in the files is run.",
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
    clips = parser.add_argument_group("what to label (one of --audio, --manifest and --features)")
    clips.add_argument(
        "--audio",
        metavar="CLIP",
        type=Path,
        help="a sound file, or a folder: every sound file in it, with a transcript in NAME.txt beside each",
    )
    clips.add_argument(
        "--transcript",
        metavar="TEXT",
        help="what is said in the one clip of --audio; alone, for a model that does not use the audio, what to label",
    )
    clips.add_argument(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="a CSV or JSONL file that lists clips: column audio, and text, label and id if they are known",
    )
    FEATURES.add_to(
        clips, metavar="FILE", help="a .safetensors feature file, without labels if you like, or the authors' .pkl"
    )
    add_clip_options(parser.add_argument_group("how clips are encoded"))
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
        help="the file to write: id, predicted label, the probability of each class, and the transcript of a clip "
        "(required, but for one clip, whose label is printed)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the labels and return the exit status."""
    from study.output.predict import predict, predict_released
    from study.papers.cemobam.profiles import PROFILES

    _check_sources(args)
    options = {"--fusion": args.fusion, "--k-audio": args.k_audio, "--k-text": args.k_text}
    if args.model:
        if given := [name for name, value in {**options, "--dataset": args.dataset}.items() if value is not None]:
            raise InputError(f"{given[0]}: the model has its own setting; leave the option out with --model")
        neighbours: Neighbourhood = args.graph or "anchored"
        if args.features:
            print(predict(args.model, args.features, to=args.to, system=args.system, neighbours=neighbours))
        else:
            print(_labelled_clips(args, labeller_of(args, args.model)))
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


def _check_sources(args: argparse.Namespace) -> None:
    """Check that the command line names one thing to label, and no option without effect.

    Raises:
        InputError: It does not.
    """
    named = [f"--{name}" for name in ("audio", "manifest", "features") if getattr(args, name) is not None]
    if len(named) > 1:
        raise InputError(f"{named[0]} with {named[1]}: these are two sources; give only one")
    if not named and args.transcript is None:
        raise InputError(
            "nothing to label is given; give --audio CLIP with --transcript TEXT, --audio FOLDER, --manifest FILE, or "
            "--features FILE"
        )
    if args.transcript is not None:
        if not args.transcript.strip():
            raise InputError(
                "--transcript: is empty; write what is said, or let a Whisper model do so (--asr MODEL), or take a "
                "model trained without text, such as audio_mlp"
            )
        if args.asr:
            raise InputError("--asr with --transcript: these are two transcripts; give only one")
        if named and named != ["--audio"]:
            raise InputError(f"--transcript: is for the one clip of --audio; leave it out with {named[0]}")
    if args.released_checkpoint and named != ["--features"]:
        raise InputError(
            f"{named[0] if named else '--transcript'}: a checkpoint of the authors' code does not name its encoders; "
            "give features with --features"
        )
    if args.features:
        for option in CLIP_OPTIONS:
            if getattr(args, option.name) is not None:
                raise InputError(f"{option.flag}: has no effect on --features, which are encoded already")
    many = args.features or args.manifest or (args.audio and args.audio.is_dir())
    if many and args.to is None:
        raise InputError("--to FILE.csv: is required here, because there can be many labels")


def _labelled_clips(args: argparse.Namespace, labeller: Labeller) -> str:
    """Label the clips of the command line, and return what to print."""
    from study.output.labelling import Clip, clips_in, clips_of, predict_clip, predict_clips

    neighbours: Neighbourhood = args.graph or "anchored"
    kept = labeller.kept
    if args.manifest or (args.audio and args.audio.is_dir()):
        source = args.manifest or args.audio
        if args.manifest:
            clips = clips_of(source, kept.class_names)
            if args.asr and any(clip.text for clip in clips):
                raise InputError(f"--asr: {source} has transcripts; leave the option out, or the column text")
        elif args.transcript is not None:
            raise InputError(
                f"--transcript: {source} is a folder; write each transcript into NAME.txt beside its clip, or give "
                "--asr MODEL"
            )
        else:
            clips = clips_in(source, transcribed=labeller.reads)
        return predict_clips(labeller, clips, source=str(source), to=args.to, neighbours=neighbours)
    text = " ".join((args.transcript or "").split())
    for option, modality in (("--audio", "audio"), ("--transcript", "text")):
        given = args.audio if modality == "audio" else text
        if given and modality not in kept.modalities and not (modality == "audio" and args.asr):
            raise InputError(f"{option}: the model in {kept.folder} does not use the {modality}; leave the option out")
    clip = Clip(id=args.audio.name if args.audio else "the transcript", audio=args.audio, text=text)
    return predict_clip(labeller, clip, to=args.to, neighbours=neighbours)

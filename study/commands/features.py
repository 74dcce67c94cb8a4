"""``cemobam features``: make features from a raw corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from cemobam_core.corpora import CORPORA, READABLE
from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import CORPUS, DATASET, DEVICE, MAKING
from study.commands.parsing import parser_with_examples

_EXAMPLES = """
examples:
  cemobam features --dataset iemocap --data-root IEMOCAP_full_release \\
      --out features/iemocap
  cemobam features --dataset esd --data-root ESD --level sequence \\
      --tune-layers 0 --out features/esd-sequences
  cemobam features --dataset meld --data-root MELD.Raw --out features/meld
  cemobam features --dataset iemocap --data-root IEMOCAP_full_release \\
      --split-protocol session --out features/iemocap-sessions
  cemobam features --dataset mine --manifest metadata.csv \\
      --split-file splits.csv --out features/mine
  cemobam features --dataset mine --manifest metadata.csv --level sequence \\
      --dtype float16 --shard-size 2GB --out features/mine-sequences
  cemobam run --dataset iemocap --features features/iemocap
      Then run the study on them.
"""


def build_parser(prog: str = "cemobam features") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Make features from a raw corpus: wav2vec 2.0 for the audio and BERT for the transcripts, with the "
        "upper layers of both fine-tuned on the train split. An interrupted run continues where it stopped, and "
        "features that exist are not made again. Needs the extra `features`: pip install 'cemobam-study[features]'.",
        epilog=_EXAMPLES,
    )
    corpus = parser.add_argument_group("the corpus")
    DATASET.add_to(
        corpus,
        required=True,
        help=f"the corpus: {', '.join(READABLE)}, or with --manifest a name of your choice (required)",
    )
    for option in CORPUS:
        option.add_to(corpus)
    MAKING.add_to(parser, title="feature extraction")
    files = parser.add_argument_group("the feature files")
    files.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="the numbers in the files: float16 takes half the space and keeps 11 bits, so a number changes by at most "
        "0.05 per cent; training still computes in float32 (default: float32)",
    )
    files.add_argument(
        "--shard-size",
        metavar="SIZE",
        type=values.size_in_bytes,
        help="write a split that is larger in several files of at most this size, such as 500MB or 2GB: "
        "train-00000-of-00008.safetensors and so on (default: 5GB)",
    )
    machine = parser.add_argument_group("the machine")
    DEVICE.add_to(machine)
    machine.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="write the features here, for --features (required)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the features and return the exit status."""
    from study.commands.data import make, raw_corpus, recipe

    raw = raw_corpus(args)
    if raw is None:
        known = CORPORA.get(args.dataset)
        about = f" ({known.about})" if known else ""
        raise InputError(
            f"--dataset {args.dataset}: no corpus given; give --data-root DIR, the corpus as you unpacked it{about}, "
            "or --manifest FILE, a CSV or JSONL list of any corpus"
        )
    make(args, recipe(args, raw, dtype=args.dtype), args.out, shard_bytes=args.shard_size)
    return 0

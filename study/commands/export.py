"""``cemobam export``: write a study for MLflow, Weights & Biases or TensorBoard."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cemobam_core.errors import InputError
from study.commands.options import STUDY
from study.commands.parsing import add_version, parser_with_examples
from study.output.export import TARGETS

_EXAMPLES = """
examples:
  cemobam export --to mlflow exported/mlflow
      The only study under results, as MLflow runs: an experiment for each block.
  cemobam export --to wandb exported/wandb --name iemocap
      Offline runs of Weights & Biases; wandb sync uploads them.
  cemobam export --to tensorboard exported/tensorboard --dataset iemocap
      An event file for each trial.

Run the same command again after the study has grown: it writes only what is new. The demo's 530 trials take a quarter
to half a minute. Each target is an optional extra: pip install 'cemobam-study[mlflow]', [wandb] or [tensorboard].
"""


def build_parser(prog: str = "cemobam export") -> argparse.ArgumentParser:
    """Return the parser of the command: it takes all options of the study, and shows those that choose trials."""
    parser = parser_with_examples(
        prog,
        description="Write the trials of a study, its tables and its figures for another experiment tracker, running "
        "nothing. The study is the only one under --results, or the one that --dataset, --name or its settings "
        "(--epochs, --profile …) name. Options that you leave out are those that the study was last run with.",
        epilog=_EXAMPLES,
    )
    parser.usage = f"{prog} --to TARGET DIR [--dataset NAME] [options of the study]"
    add_version(parser)
    for group in STUDY:
        group.add_to(parser, hidden={"data", "machine", "run"})
    # Neither is required for argparse, which also parses the recorded options alone.
    parser.add_argument("--to", choices=list(TARGETS), help="what the trials are written for")
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path, help="a new folder, or that of an earlier export"
    )
    parser.set_defaults(report_only=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write what the folder does not have yet, and return the exit status."""
    if args.to is None or args.folder is None:
        raise InputError("say what to write and where, as: cemobam export --to mlflow DIR")
    from study.commands.recall import recorded
    from study.commands.request import Request
    from study.findings.evidence import Evidence
    from study.output.export import export
    from study.output.export.runs import runs_of

    request = Request.of(args)
    study = recorded(request)
    runs = runs_of(study, Evidence.of(study, name=request.name, models=request.models))
    start = time.monotonic()
    exported = export(runs, args.to, args.folder)
    seconds = time.monotonic() - start
    rate = f" in {seconds:.0f} s, {exported.written / seconds:.0f} a second" if exported.written else ""
    held = f"; {exported.held} were there already" if exported.held else ""
    print(f"{TARGETS[args.to]}: {exported.written} runs written{rate}{held}")
    print("open it:", *exported.open_with, sep="\n  ")
    return 0

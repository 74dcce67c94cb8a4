"""``cemobam demo``: run the study on the embedded demo data, or show a kept model at work on a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from study.commands import run as run_command
from study.commands import values
from study.commands.clips import CLIP_OPTIONS, add_clip_options, labeller_of
from study.commands.options import DEVICE, OPEN, PLOTS, RESULTS, SYSTEM, WORKERS
from study.commands.parsing import add_version, parser_with_examples

_TAKEN = (OPEN, WORKERS, DEVICE, RESULTS, PLOTS)
_STUDY = ("quick", "open", "workers", "results", "plots")
"""Arguments that only concern the demo study."""
_ENCODING = tuple(option for option in CLIP_OPTIONS if option is not DEVICE)
_PAGE = ("port", "system", *(option.name for option in _ENCODING))
"""Arguments that only concern the page."""

_QUICK = ("--k-audio", "1,4,7,10", "--k-text", "1,4,7,10", "--seeds", "2")

_EXAMPLES = """
examples:
  cemobam demo --quick --open
      A first look: a small study, then the report in your browser.
  cemobam demo
      The whole study: a 10 × 10 grid, the fusion strategies and the ablation,
      with five seeds each.
  cemobam demo --model results/iemocap/models/NAME
      A page in your browser: record or upload a clip, type what is said, and
      see its label and the training utterances that it was linked to.
  cemobam demo --model results/iemocap/models/NAME --asr openai/whisper-small
      The same, with a Whisper model that writes the transcript.
  cemobam run --help
      Every other option, and your own data.

The whole study continues from the quick one: finished trials are not run again.
"""


def build_parser(prog: str = "cemobam demo") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Run the study on the embedded demo: synthetic features, no download, no GPU. Tables and the "
        "report go to results/demo, figures to plots/demo. With --model: show a kept model at work on a page, which "
        "only this machine can reach, and which asks no other machine for anything.",
        epilog=_EXAMPLES,
    )
    add_version(parser)
    study = parser.add_argument_group("the demo study")
    study.add_argument(
        "--quick",
        action="store_true",
        default=None,
        help="take a 4 × 4 grid (K 1, 4, 7 and 10) and two seeds, about half a minute",
    )
    for option in _TAKEN:
        if option is not DEVICE:
            option.add_to(study)
            study.set_defaults(**{option.name: None})
    page = parser.add_argument_group("the page (needs the extras `features` and `page`)")
    page.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        help="serve a page for this kept model, a folder under results/NAME/models (default: run the demo study)",
    )
    SYSTEM.add_to(
        page,
        metavar="FILE.py:NAME",
        help="the file of the model's system, if that is your own; the file is run (default: a built-in system)",
    )
    page.add_argument(
        "--port", metavar="N", type=values.port, help="the port to listen on (default: 8080, or the next free port)"
    )
    add_clip_options(page, _ENCODING)
    DEVICE.add_to(parser.add_argument_group("the machine"))
    parser.set_defaults(system=None, device=None)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the demo's study or serve the page, and return the exit status."""
    idle, when = (_STUDY, "with --model") if args.model else (_PAGE, "without --model")
    for name in idle:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: has no effect {when}; leave the option out")
    if args.model:
        require("features", "--model")
        require("page", "--model")
        from study.output.page import serve

        serve(labeller_of(args, args.model), args.port)
        return 0
    from study.commands.running import run_study

    asked = run_command.build_parser().parse_args(_QUICK if args.quick else ())
    for option in _TAKEN:
        if (value := getattr(args, option.name)) is not None:
            setattr(asked, option.name, value)
    return run_study(asked)

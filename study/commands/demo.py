"""``cemobam demo``: run the study on the embedded demo data."""

from __future__ import annotations

import argparse

from study.commands import run as run_command
from study.commands.options import DEVICE, OPEN, PLOTS, RESULTS, WORKERS
from study.commands.parsing import add_version, parser_with_examples

_TAKEN = (OPEN, WORKERS, DEVICE, RESULTS, PLOTS)

_QUICK = ("--k-audio", "1,4,7,10", "--k-text", "1,4,7,10", "--seeds", "2")

_EXAMPLES = """
examples:
  cemobam demo --quick --open
      A first look: a small study, then the report in your browser.
  cemobam demo
      The whole study: a 10 × 10 grid, the fusion strategies and the ablation,
      with five seeds each.
  cemobam run --help
      Every other option, and your own data.

The whole study continues from the quick one: finished trials are not run again.
"""


def build_parser(prog: str = "cemobam demo") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Run the study on the embedded demo: synthetic features, no download, no GPU. Tables and the "
        "report go to results/demo, figures to plots/demo.",
        epilog=_EXAMPLES,
    )
    add_version(parser)
    parser.add_argument(
        "--quick", action="store_true", help="take a 4 × 4 grid (K 1, 4, 7 and 10) and two seeds, about half a minute"
    )
    for option in _TAKEN:
        option.add_to(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the demo's study and return the exit status."""
    from study.commands.running import run_study

    asked = run_command.build_parser().parse_args(_QUICK if args.quick else ())
    for option in _TAKEN:
        setattr(asked, option.name, getattr(args, option.name))
    return run_study(asked)

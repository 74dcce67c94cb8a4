"""``cemobam run``, which is also ``python run_grid.py``: run the study."""

from __future__ import annotations

import argparse

from study.commands.options import STUDY
from study.commands.parsing import add_version, as_command, parser_with_examples

_EXAMPLES = """
examples:
  COMMAND
      The whole study on the embedded demo: synthetic features, a few minutes.
  COMMAND --dataset iemocap --features DIR
      The paper's study on features made before. DIR holds train, val and
      test (.safetensors, or the authors' .pkl).
  COMMAND --dataset iemocap --features FILE --split-protocol random:80/10/10
      The same study from one file, which is split here.
  COMMAND --dataset iemocap --data-root IEMOCAP_full_release
      The same study from the raw corpus. The features are made first, once.
  COMMAND --dataset iemocap --features DIR --engine ray --ray-address auto
      The same study on the Ray cluster that this machine belongs to.
  COMMAND --dry-run --k-audio 1,4,8 --k-text 1:10 --seeds 3
      The plan only: how many trials, how many are done, how long the rest takes.

If a run stops for any reason, run the same command again: it continues where
it stopped.

exit status:
  0    all trials are done
  1    some trials failed; the next run tries them again
  2    a mistake in the command or the data, explained in one line
  130  interrupted
"""


def build_parser(prog: str = "cemobam run") -> argparse.ArgumentParser:
    """Return the parser of the command.

    Args:
        prog: The name of the program in help, examples and errors.
    """
    command = as_command(prog)
    parser = parser_with_examples(
        prog,
        description="Run the CemoBAM study: the K grid (Fig. 2), the fusion strategies (Table I) and the ablation "
        "(Table II), with five seeds each. Without options it runs on the embedded demo.",
        epilog=_EXAMPLES.replace("COMMAND", command),
    )
    parser.usage = f"{prog} [-h] [--dataset NAME] [options]"
    add_version(parser)
    for group in STUDY:
        group.add_to(parser)
    parser.set_defaults(command=command)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the study, print its plan or write its report again, and return the exit status."""
    from study.commands.running import run_study

    return run_study(args)

"""``run_grid.py``, which is also ``cemobam grid``: run the study."""

from __future__ import annotations

import argparse

from study.commands.options import STUDY
from study.commands.parsing import add_version, parser_with_examples

_EXAMPLES = """
examples:
  python run_grid.py
      The whole study on the embedded demo: synthetic features, minutes on a laptop.
  python run_grid.py --dataset iemocap --features DIR
      The paper's study on features made before: DIR holds train, val and test (.safetensors, or the authors' .pkl).
  python run_grid.py --dataset iemocap --features FILE --split-protocol random:80/10/10
      The same from one file, which the tool splits.
  python run_grid.py --dataset iemocap --data-root IEMOCAP_full_release
      The same from the raw corpus: features are made first, once.
  python run_grid.py --dataset iemocap --features DIR --engine ray --ray-address auto
      The same on the Ray cluster that this machine is part of.
  python run_grid.py --dry-run --k-audio 1,4,8 --k-text 1:10 --seeds 3
      The plan alone: how many trials, how many are done, how long the rest will take.

Whatever stops a run, the same command goes on where it stopped. Exit status: 0 all trials done; 1 some failed (the
next run tries those again); 2 a mistake in what was given, told in one line; 130 interrupted.
"""


def build_parser(prog: str = "run_grid.py") -> argparse.ArgumentParser:
    """Return the parser of the command.

    Args:
        prog: what the help, its examples and the errors call the command.
    """
    parser = parser_with_examples(
        prog,
        description="Rerun the CemoBAM study: the K grid (Fig. 2), the fusion strategies (Table I) and the ablation "
        "(Table II), five seeds each.",
        epilog=_EXAMPLES if prog == "run_grid.py" else _EXAMPLES.replace("python run_grid.py", prog),
    )
    add_version(parser)
    for group in STUDY:
        group.add_to(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the study, tell its plan or write its report again, and return the exit status."""
    from study.commands.running import run_study

    return run_study(args)

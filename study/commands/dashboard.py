"""``cemobam dashboard``: browse the ledger of a study."""

from __future__ import annotations

import argparse

from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import DATASET, LEDGER
from study.commands.parsing import parser_with_examples

_EXAMPLES = """
examples:
  cemobam dashboard
      The demo's study, in results/demo/study.db.
  cemobam dashboard --dataset iemocap --port 9000
  cemobam dashboard --dataset iemocap --storage postgresql://me@db.example.org/cemobam
  ssh -C -L 8080:127.0.0.1:8080 HOST
      From another machine: then http://127.0.0.1:8080/ there is the dashboard that listens on HOST.
"""


def build_parser(prog: str = "cemobam dashboard") -> argparse.ArgumentParser:
    """Return the parser of the command: whose ledger, and where to listen."""
    parser = parser_with_examples(
        prog,
        description="Browse a study's ledger: the Optuna dashboard with every trial, its learning curve, and the "
        "study's own figures and tables, which a running study keeps current. Ctrl-C ends it; the study goes on.",
        epilog=_EXAMPLES,
    )
    DATASET.add_to(
        parser, help="demo, iemocap, esd, or the name of data of yours (default: the only study under --results)"
    )
    for option in LEDGER:
        option.add_to(parser)
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="where to listen (default 127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it, and there is no "
        "password)",
    )
    parser.add_argument(
        "--port", metavar="N", type=values.port, help="to listen at (default: 8080, or the next that is free)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve the dashboard until it is interrupted, and return the exit status."""
    from study.commands.recall import names_in, only_name, storage_of
    from study.ledger.ledger import Ledger
    from study.ledger.storages import ledger_file, masked
    from study.output.dashboard import serve

    # A storage is shown with all that it has: nothing need be chosen in one that is given.
    name = args.name or args.dataset or (None if args.storage else only_name(args))
    storage = storage_of(args, name)
    if (file := ledger_file(storage)) and not file.exists():
        raise InputError(
            f"{file}: no ledger there yet; run the study first (python run_grid.py …), or say where it is kept with "
            "--dataset, --name, --results or --storage, as it was run"
        )
    names = names_in(storage)
    if not names or name not in {None, *names}:
        there = f"it has {', '.join(names)}" if names else "it has none yet: run the study first"
        raise InputError(f"the ledger {masked(storage)} has no study{f' {name!r}' if name else ''}; {there}")
    serve(Ledger(storage, name="").storage, host=args.host, port=args.port)
    return 0

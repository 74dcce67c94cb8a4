"""``cemobam dashboard``: browse the ledger of a study."""

from __future__ import annotations

import argparse

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from study.commands import values
from study.commands.options import DATASET, LEDGER
from study.commands.parsing import parser_with_examples

_EXAMPLES = """
examples:
  cemobam dashboard
      The demo's study, in results/demo/study.db.
  cemobam dashboard --dataset iemocap --port 9000
  cemobam dashboard --dataset iemocap --read-only
      To look only: nobody can change or delete a study.
  cemobam dashboard --dataset iemocap --storage postgresql://me@HOST/cemobam
  ssh -C -L 8080:127.0.0.1:8080 HOST
      From another machine: run this there, then open http://127.0.0.1:8080/ to
      see the dashboard of HOST.
"""


def build_parser(prog: str = "cemobam dashboard") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Browse the ledger of a study in the Optuna dashboard: every trial with its learning curve, and "
        "the figures and tables of the study, which a running study keeps current. Ctrl-C stops the dashboard; the "
        "study continues. Needs the extra `dashboard`: pip install 'cemobam-study[dashboard]'.",
        epilog=_EXAMPLES,
    )
    DATASET.add_to(
        parser,
        help="the name of the data set, such as demo or iemocap (default: the only study under --results)",
    )
    for option in LEDGER:
        option.add_to(parser)
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the address to listen on. 127.0.0.1 is for this machine only; with 0.0.0.0 anyone who reaches this "
        "machine can use the dashboard, without a password (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", metavar="N", type=values.port, help="the port to listen on (default: 8080, or the next free port)"
    )
    parser.add_argument(
        "--read-only",
        action="store_true",
        help="let nobody change or delete a study. Figures that are missing are not drawn, because they would be kept "
        "in the ledger",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve the dashboard until it is interrupted, and return the exit status."""
    require("dashboard", "cemobam dashboard")
    from study.commands.publish import publish_missing
    from study.commands.recall import names_in, only_name, storage_of
    from study.ledger.ledger import Ledger
    from study.ledger.storages import ledger_file, masked
    from study.output.dashboard import serve

    # The dashboard shows everything in a storage, so a storage that is given needs no name.
    name = args.name or args.dataset or (None if args.storage else only_name(args))
    storage = storage_of(args, name)
    if (file := ledger_file(storage)) and not file.exists():
        raise InputError(
            f"{file}: there is no ledger; run the study first (cemobam run), or say where its ledger is with "
            "--dataset, --name, --results or --storage"
        )
    names = names_in(storage)
    if not names or name not in {None, *names}:
        there = f"it has {', '.join(names)}" if names else "it is empty: run the study first"
        raise InputError(f"the ledger {masked(storage)} has no study{f' {name!r}' if name else ''}; {there}")
    if not args.read_only:
        publish_missing(storage, args)
    serve(Ledger(storage, name="").storage, url=storage, host=args.host, port=args.port, read_only=args.read_only)
    return 0

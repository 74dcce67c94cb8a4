"""``cemobam doctor``: check a ledger, and save what is whole of a damaged one."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.commands.options import DATASET, LEDGER
from study.commands.parsing import parser_with_examples

if TYPE_CHECKING:
    from study.ledger.doctor import Diagnosis

_EXAMPLES = """
examples:
  cemobam doctor --dataset iemocap
      Check results/iemocap/study.db.
  cemobam doctor --dataset iemocap --to results/iemocap/whole.db
      Also write what is whole into a new ledger. To continue the study with it:
      cemobam run --dataset iemocap --features DIR --storage sqlite:///results/iemocap/whole.db
  cemobam doctor --storage journal:///shared/iemocap.journal --to whole.db

exit status:
  0  the ledger is whole
  1  it is damaged; with --to, what is whole is in the new ledger
  2  there is no ledger, nothing of it can be read, or a mistake in the command
"""

_LISTED = 20
"""Largest number of faults that are printed."""


def build_parser(prog: str = "cemobam doctor") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="Check a ledger: its pages or lines, its studies, and every trial. With --to, write what is whole "
        "into a new ledger, from which a run continues: it trains again what was lost, and nothing else. The damaged "
        "ledger is only read.",
        epilog=_EXAMPLES,
    )
    DATASET.add_to(
        parser,
        help="the data set: demo, iemocap, esd, or the name of your own data (default: the only study under --results)",
    )
    for option in LEDGER:
        option.add_to(parser)
    parser.add_argument("--to", metavar="FILE", type=Path, help="a new SQLite file for what is whole")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print what is whole and what is not, save what is whole if asked to, and return the exit status."""
    from study.ledger.doctor import examine, write
    from study.ledger.storages import place_of

    storage = _storage(args)
    with _no_run(storage):
        diagnosis = examine(storage)
    print(f"{place_of(storage)}: {'whole' if diagnosis.whole else 'damaged'}\n")
    print(_table(diagnosis))
    if diagnosis.faults:
        print("\nwhat is damaged or lost:")
        print("\n".join(f"  {' '.join(fault.split())}" for fault in diagnosis.faults[:_LISTED]))
        if (more := len(diagnosis.faults) - _LISTED) > 0:
            print(f"  and {more} more")
    if diagnosis.others:
        print(f"\n{diagnosis.others} trials were added by another program; they are left out")
    if args.to:
        write(diagnosis, args.to)
        lost = sum(study.lost for study in diagnosis.studies)
        left_out = f"; {lost} damaged trials are left out, and will be trained again" if lost else ""
        print(f"\nwritten: {args.to}, with {diagnosis.done} done trials{left_out}")
        print(f"continue with: the study's command and --storage {shlex.quote(f'sqlite:///{args.to}')}")
    elif not diagnosis.whole:
        print("\nto save what is whole, give a new file with --to FILE.db")
    return 0 if diagnosis.whole else 1


def _storage(args: argparse.Namespace) -> str:
    """Return the URL of the ledger. The name of its only study is found without opening it."""
    from study.commands.recall import only_name, storage_of

    if args.storage:
        return str(args.storage)
    return storage_of(args, args.name or args.dataset or only_name(args))


@contextmanager
def _no_run(storage: str) -> Iterator[None]:
    """Refuse to read an SQLite file that a run is writing to."""
    from filelock import FileLock, Timeout

    from cemobam_core.errors import InputError
    from study.ledger.storages import ledger_file

    file = ledger_file(storage) if storage.startswith("sqlite") else None
    if file is None or not (lock := file.with_suffix(".lock")).exists():
        yield
        return
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise InputError(f"{lock}: a run is writing to this ledger; wait for it, or stop it with Ctrl-C") from None


def _table(diagnosis: Diagnosis) -> str:
    """Return the table of what is whole and what is not."""
    from tabulate import tabulate

    rows: list[tuple[object, ...]] = [(diagnosis.unit, *diagnosis.units)]
    rows += [(f"{study.name}: trials", len(study.trials), study.lost) for study in diagnosis.studies]
    return tabulate(rows, headers=["", "whole", "damaged"], tablefmt="simple", disable_numparse=True)

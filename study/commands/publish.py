"""Publish the figures and notes that the dashboard shows, for studies that ran where it was not installed."""

from __future__ import annotations

import argparse
import sys

from cemobam_core.errors import InputError
from study.commands.recall import completed, recorded
from study.commands.request import Request
from study.commands.retyped import as_typed
from study.commands.run import build_parser
from study.ledger.ledger import Ledger, Recorded, taken_apart


def publish_missing(storage: str, args: argparse.Namespace) -> None:
    """Publish the figures and notes of every study that has trials without them.

    Args:
        storage: URL of the ledger.
        args: Arguments of the dashboard, which say where the ledger is.
    """
    from study.output.publishing import is_current

    ledger = Ledger(storage, name="")
    with ledger.guarded():
        waiting = {
            taken_apart(study.study_name)[::2]
            for study in ledger.storage.get_all_studies()
            if not is_current(ledger.storage, study)
        }
    for study in ledger.recorded():
        if (study.name, study.tag) in waiting:
            print(f"drawing the figures of {study.name} {study.tag}".rstrip() + " …", flush=True)
            try:
                _publish(study, args)
            except InputError as error:
                print(f"figures and notes of {study.name} are not current: {error}", file=sys.stderr)


def _publish(study: Recorded, args: argparse.Namespace) -> None:
    from study.findings.evidence import Evidence
    from study.output.publishing import publish_report
    from study.output.report import make_report

    words = ["--results", str(args.results), *(["--storage", args.storage] if args.storage else [])]
    parser = build_parser()
    request = Request.of(completed(parser, words, parser.parse_args(words), study))
    run = recorded(request)
    evidence = Evidence.of(run, name=request.name, models=request.models)
    publish_report(run, make_report(evidence, again=as_typed(request.args)))

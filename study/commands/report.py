"""Write the report of a study: from its ledger alone, moving a report of other settings aside."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from study.commands.request import Request
from study.commands.retyped import as_typed
from study.commands.wording import by_folder

# What a report needs is slow to import, and a run has trials to start first.
if TYPE_CHECKING:
    from study.driver import StudyRun


def write_report(request: Request, run: StudyRun, *, printed: bool = True) -> None:
    """Write the tables, the figures and the report of what the ledger holds, and print the summary.

    Args:
        request: for the study.
        run: the study against its ledger.
        printed: whether to print the summary.
    """
    from study.findings.evidence import Evidence
    from study.output.aside import drop_covered, set_aside
    from study.output.publishing import publish_report
    from study.output.report import make_report

    gc.freeze()  # libraries collect garbage now and then, and what was loaded so far is none
    evidence = Evidence.of(run, name=request.name, models=request.models)
    report = make_report(evidence, again=as_typed(request.args))
    moved = set_aside(evidence.about, request.results, request.plots)
    written = report.write(request.results, request.plots)
    drop_covered(evidence.about, request.results, request.plots)
    publish_report(run, report)
    if not printed:
        return
    print(f"\nopen {request.results / 'report.html'}")
    if moved:
        print(moved)
    print("\n" + "\n\n".join(report.summary))
    print("\nwritten:", *by_folder(written), sep="\n  ")

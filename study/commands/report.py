"""Write the report of a study from its ledger. A report of other settings is moved aside."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from cemobam_core.extras import missing
from study.commands.request import Request
from study.commands.retyped import as_typed
from study.commands.wording import by_folder

# The packages behind a report are slow to import, and a run starts its trials first.
if TYPE_CHECKING:
    from study.driver import StudyRun


def write_report(request: Request, run: StudyRun, *, printed: bool = True) -> None:
    """Write the tables, the figures and the report from the ledger, and print the summary.

    Args:
        request: Request for the study.
        run: The study against its ledger.
        printed: Whether to print the summary.
    """
    from study.findings.evidence import Evidence
    from study.output.aside import drop_covered, set_aside
    from study.output.report import make_report

    gc.freeze()  # libraries start garbage collections, and nothing loaded so far is garbage
    evidence = Evidence.of(run, name=request.name, models=request.models)
    report = make_report(evidence, again=as_typed(request.args))
    moved = set_aside(evidence.about, request.results, request.plots)
    written = report.write(request.results, request.plots)
    drop_covered(evidence.about, request.results, request.plots)
    if not missing("dashboard"):
        from study.output.publishing import publish_report

        publish_report(run, report)
    if not printed:
        return
    print(f"\nopen {request.results / 'report.html'}")
    if moved:
        print(moved)
    print("\n" + "\n\n".join(report.summary))
    print("\nwritten:", *by_folder(written), sep="\n  ")

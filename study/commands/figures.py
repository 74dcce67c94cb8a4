"""``cemobam figures``: draw the figures of a study from its ledger, all or one alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import STUDY
from study.commands.parsing import add_version, parser_with_examples

_FIGURES = """
figures:
  topk, topk-sd  a plane over K_audio and K_text (Fig. 2): the mean over seeds, the standard deviation
  marginal       each K whatever the other
  fusion, ablation, gaps, and every block of yours by its name
  curves         learning curves of the study's own configuration and of the blocks'
  confusion      its confusion matrix
  confusion-difference  of each block with few configurations, the reference's less each other's
  errors         its recall by class, speaker, session and length
  calibration    how far its probabilities can be believed, where they are kept
  embedding      a t-SNE of what the classifier of a kept model sees
"""


def build_parser(prog: str = "cemobam figures") -> argparse.ArgumentParser:
    """Return the parser of the command: it takes all options of the study, and shows those that choose trials."""
    parser = parser_with_examples(
        prog,
        description="Draw the figures of a study from its ledger, running nothing: of the only study under --results, "
        "or of the one that --dataset, --name or its settings (--epochs, --profile …) name. Options that you leave out "
        "are those that the study was last run with.",
        epilog=_FIGURES,
    )
    parser.usage = f"{prog} [--only NAME] [--dataset NAME] [options of the study]"
    add_version(parser)
    for group in STUDY:
        group.add_to(parser, hidden={"data", "machine", "run"})
    parser.add_argument(
        "--only",
        metavar="NAME",
        type=values.blocks,
        help="one figure, or several as topk,curves (default: all of those below)",
    )
    parser.set_defaults(report_only=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw the figures and return the exit status."""
    from study.commands.recall import recorded
    from study.commands.request import Request
    from study.commands.wording import by_folder
    from study.findings.evidence import Evidence
    from study.output.aside import figures_folder
    from study.output.figures import FORMS, drawings, save

    request = Request.of(args)
    evidence = Evidence.of(recorded(request), name=request.name, models=request.models)
    plots = figures_folder(evidence.about, request.results, request.plots)
    known, written = drawings(evidence), list[Path]()
    for name in args.only or known:
        if name not in known:
            raise InputError(f"--only {name}: no such figure; choose from {', '.join(known)}")
        figure = known[name].draw(evidence)
        if not isinstance(figure, str):
            written += save(figure, plots / known[name].file)
        elif args.only:
            raise InputError(f"--only {name}: {figure}")
        else:
            print(f"{name}: {figure}")
            for form in FORMS:  # of an earlier command: it would be of other trials
                (plots / f"{known[name].file}.{form}").unlink(missing_ok=True)
    print("written:", *by_folder(written), sep="\n  ")
    return 0

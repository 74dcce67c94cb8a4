"""``cemobam figures``: draw the figures of a study from its ledger, all or one alone."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.errors import InputError
from study.commands import values
from study.commands.options import DRAWN, STUDY
from study.commands.parsing import add_version, parser_with_examples

if TYPE_CHECKING:
    from study.output.figures.style import Look

_FIGURES = """
figures:
  topk, topk-sd  a plane over K_audio and K_text (Fig. 2): the mean over seeds, the standard deviation
  marginal       the effect of each K on its own
  fusion, ablation, gaps, and every block of yours by its name
  curves         learning curves of the study's own configuration and of the blocks'
  confusion      its confusion matrix
  confusion-difference  of each block with few configurations, the reference's less each other's
  errors         its recall by class, speaker, session and length
  calibration    how far its probabilities can be believed, where they are kept
  embedding      a t-SNE of what the classifier of a kept model sees

Figures go into the folder of the report's. Those with --dpi, --no-title or --style go into its folder custom, which
no later report writes to.

example: cemobam figures --only topk --format svg,pdf --no-title --style grayscale
"""

CUSTOM = "custom"
"""The folder, beside the report's figures, of those that are drawn in another way."""


def build_parser(prog: str = "cemobam figures") -> argparse.ArgumentParser:
    """Return the parser of the command: it takes all options of the study, and shows those that choose trials."""
    parser = parser_with_examples(
        prog,
        description="Draw the figures of a study from its ledger, running nothing: of the only study under --results, "
        "or of the one that --dataset, --name or its settings (--epochs, --profile …) name. Options that you leave out "
        "are those that the study was last run with.",
        epilog=_FIGURES,
    )
    parser.usage = f"{prog} [--only NAME] [--format F1,F2] [--dataset NAME] [options of the study]"
    add_version(parser)
    parser.add_argument(
        "--only",
        metavar="NAME",
        type=values.blocks,
        help="one figure, or several as topk,curves (default: all of those below)",
    )
    DRAWN.add_to(parser)
    for group in STUDY:
        group.add_to(parser, hidden={"data", "machine", "run"})
    parser.set_defaults(report_only=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw the figures and return the exit status."""
    from study.commands.recall import recorded
    from study.commands.request import Request
    from study.commands.wording import by_folder
    from study.findings.evidence import Evidence
    from study.output.aside import figures_folder
    from study.output.figures import drawings, save

    look = look_of(args)
    request = Request.of(args)
    evidence = Evidence.of(recorded(request), name=request.name, models=request.models)
    plots = figures_folder(evidence.about, request.results, request.plots) / ("" if look.usual else CUSTOM)
    known, written, captions = drawings(evidence), list[Path](), dict[str, str]()
    if unknown := [name for name in args.only or () if name not in known]:
        raise InputError(f"--only {unknown[0]}: no such figure; choose from {', '.join(known)}")
    with look.applied():
        for name in args.only or known:
            drawing = known[name]
            figure = drawing.draw(evidence)
            if not isinstance(figure, str):
                written += save(figure, plots / drawing.file, look)
                captions[drawing.file] = drawing.shows
            elif args.only:
                raise InputError(f"--only {name}: {figure}")
            else:
                print(f"{name}: {figure}")
                for form in look.forms:  # an earlier command's file would be of other trials
                    (plots / f"{drawing.file}.{form}").unlink(missing_ok=True)
    if not look.title:
        print_captions(captions)
    print("written:", *by_folder(written), sep="\n  ")
    return 0


def look_of(args: argparse.Namespace) -> Look:
    """Return the look of figures, according to the options.

    Args:
        args: Parsed arguments with the options of :data:`study.commands.options.DRAWN`.

    Raises:
        InputError: The style does not exist, or a resolution is given without the format PNG.
    """
    from study.output.figures.style import DPI, Look, read_style

    if args.dpi and "png" not in args.format:
        raise InputError(f"--dpi {args.dpi} is the resolution of a PNG; add png to --format, or leave --dpi out")
    return Look(
        forms=args.format,
        dpi=args.dpi or DPI,
        title=not args.no_title,
        style=read_style(args.style) if args.style else {},
    )


def print_captions(captions: Mapping[str, str]) -> None:
    """Print the caption of each figure, by the name of its files."""
    for file, caption in captions.items():
        print(textwrap.fill(f"{file}: {caption}", 110, subsequent_indent="  ", break_on_hyphens=False))

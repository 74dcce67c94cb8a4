"""``cemobam compare``: put several studies side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from cemobam_core.errors import InputError
from study.commands.figures import look_of, print_captions
from study.commands.options import DRAWN
from study.commands.parsing import Parser


def build_parser(prog: str = "cemobam compare") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog,
        description="Put studies side by side: their chosen configurations, fusion strategies, ablations, systems, "
        "their verdicts on the paper's claims, and their K grids in one figure. Reads the files that cemobam run wrote "
        "into their folders.",
        epilog="example: cemobam compare results/iemocap results/esd --to results/both",
    )
    parser.add_argument("results", metavar="RESULTS_DIR", nargs="+", type=Path, help="such as results/iemocap")
    parser.add_argument(
        "--to",
        metavar="DIR",
        type=Path,
        help="also write the tables there, as csv, Markdown and LaTeX, and the figures",
    )
    DRAWN.add_to(parser, title="how figures are drawn (with --to)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the comparison, write its tables and figures if asked to, and return the exit status."""
    from study.commands.wording import by_folder
    from study.findings.results import load_studies
    from study.output.compare import compare, grids_figure, joint_grids, ranks_figure
    from study.output.figures import Look, save
    from study.output.tables import TABLE_FORMS

    look = look_of(args)
    if not args.to and look != Look():
        raise InputError("--format, --dpi, --no-title and --style are for the figures that --to writes; add --to DIR")
    folders: list[Path] = list(dict.fromkeys(folder.resolve() for folder in args.results))
    if len(folders) < 2:
        raise InputError("give the folders of at least two different studies, as results/iemocap results/esd")
    studies = load_studies(folders)
    names = [results.about.name for results in studies]
    labels = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, start=1)]
    labelled = dict(zip(labels, studies, strict=True))
    tables = compare(labelled)
    print("\n\n".join(table.markdown().rstrip() for table in tables))
    planes, left_out = joint_grids(labelled)
    if left_out:
        print(f"\n{'Joint figure of the K grids' if planes else 'No joint figure of the K grids'}:", *left_out)
    with look.applied():
        ranks = ranks_figure(labelled) if any(table.name == "compare_systems" for table in tables) else None
        joint = grids_figure(planes, labelled) if planes and args.to else None
        if isinstance(ranks, str):
            print(f"\nNo critical-difference diagram: {ranks}.")
        if args.to:
            written = [path for table in tables for path in table.write(args.to)]
            if joint:
                written += save(joint[0], args.to / "compare_topk", look)
                print()
                print_captions({"compare_topk": joint[1]})
            if ranks is not None and not isinstance(ranks, str):
                written += save(ranks, args.to / "compare_ranks", look)
    if args.to:
        forms = (*TABLE_FORMS, *look.forms)
        for path in {old for form in forms for old in args.to.glob(f"compare*.{form}")} - set(written):
            path.unlink()  # an earlier command's
        print("\nwritten:", *by_folder(written), sep="\n  ")
    return 0

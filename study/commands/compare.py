"""``cemobam compare``: put several studies side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from cemobam_core.errors import InputError
from study.commands.parsing import Parser


def build_parser(prog: str = "cemobam compare") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog,
        description="Put studies side by side: their chosen configurations, fusion strategies, ablations, systems and "
        "what they say to the paper's claims. Reads what run_grid.py wrote into their folders.",
        epilog="example: cemobam compare results/iemocap results/esd --to results/both",
    )
    parser.add_argument("results", metavar="RESULTS_DIR", nargs="+", type=Path, help="such as results/iemocap")
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="also write the tables there, as csv, Markdown and LaTeX"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the comparison, write its tables if asked to, and return the exit status."""
    from study.commands.wording import by_folder
    from study.findings.results import load_results
    from study.output.compare import compare, ranks_figure
    from study.output.figures.style import FORMS, save
    from study.output.tables import TABLE_FORMS

    folders: list[Path] = list(dict.fromkeys(folder.resolve() for folder in args.results))
    if len(folders) < 2:
        raise InputError("give the folders of at least two different studies, as results/iemocap results/esd")
    studies = [load_results(folder) for folder in folders]
    names = [results.about.name for results in studies]
    labels = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, start=1)]
    labelled = dict(zip(labels, studies, strict=True))
    tables = compare(labelled)
    print("\n\n".join(table.markdown().rstrip() for table in tables))
    figure = None
    if any(table.name == "compare_systems" for table in tables):
        figure = ranks_figure(labelled)
        if isinstance(figure, str):
            print(f"\nNo critical-difference diagram: {figure}.")
    if args.to:
        written = [path for table in tables for path in table.write(args.to)]
        if figure is not None and not isinstance(figure, str):
            written += save(figure, args.to / "compare_ranks")
        for path in {old for form in (*TABLE_FORMS, *FORMS) for old in args.to.glob(f"compare*.{form}")} - set(written):
            path.unlink()  # of an earlier command
        print("\nwritten:", *by_folder(written), sep="\n  ")
    return 0

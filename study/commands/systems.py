"""``cemobam systems``: what systems there are; a system's fields, their defaults and its source."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from cemobam_core.systems import names, system_class, version_of
from study.commands import values
from study.commands.parsing import Parser


def build_parser(prog: str = "cemobam systems") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog,
        description="List the systems that --system and --systems take, or tell of one: its source, its settings and "
        "their defaults, which --set and --vary change.",
        epilog="examples: cemobam systems; cemobam systems gcn; cemobam systems mine.py:MyModel",
    )
    parser.add_argument(
        "system",
        metavar="NAME",
        nargs="?",
        type=values.system,
        help="one system: its name, or FILE.py:NAME (it is run)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the systems, or one of them, and return the exit status."""
    if args.system:
        print(_told(args.system))
        return 0
    width = max(map(len, names()))
    for name in names():
        kind = system_class(name)
        graph = "uses the graph" if kind.uses_graph else "no graph"
        print(f"  {name:<{width}}  {_summary(kind)} ({graph})")
    print("\nOne of your own: FILE.py:NAME. cemobam systems NAME tells of one.")
    return 0


def _told(name: str) -> str:
    kind = system_class(name)
    hints = get_type_hints(kind)
    settings = [(f.name, f"{f.default}", _values(hints[f.name])) for f in fields(kind)]
    widths = [max(len(row[i]) for row in [("setting", "default", ""), *settings]) for i in (0, 1)]
    graph = "uses the graph" if kind.uses_graph else "does not use the graph: it is trained once, not for every K"
    return "\n".join(
        [
            f"{name} ({kind.__name__}, version {version_of(kind)}; {graph})",
            "",
            inspect.cleandoc(kind.__doc__ or "No docstring says where it comes from."),
            "",
            f"{'setting':<{widths[0]}}  {'default':<{widths[1]}}  values",
            *(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in settings),
        ]
    )


def _summary(kind: type[Any]) -> str:
    """Return the first sentence of a system's docstring."""
    text = " ".join((kind.__doc__ or "").split())
    return text.partition(". ")[0].partition(";")[0].rstrip(".")


def _values(hint: Any) -> str:
    """Return what a setting may be, in words."""
    if choices := get_args(hint):
        return ", ".join(map(str, choices))
    return {int: "a whole number of at least 1", float: "a number of at least 0", bool: "true or false"}.get(
        hint, "text"
    )

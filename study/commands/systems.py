"""``cemobam systems``: list the systems, or show the settings, defaults and source of one."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from cemobam_core.systems import GROUPS, System, names, system_class, version_of
from cemobam_core.systems.search import Between, OneOf
from study.commands import values
from study.commands.parsing import parser_with_examples

_TITLES = {
    "": "The system of the paper",
    "paper": "Systems that the paper compares with",
    "baselines": "Baselines",
    "graphs": "Systems on the graph",
}
"""Title of the list of each group."""

_EXAMPLES = """
examples:
  cemobam systems
  cemobam systems gcn
  cemobam systems mine.py:MyModel
  cemobam run --systems cemobam,gcn,mine.py:MyModel
"""


def build_parser(prog: str = "cemobam systems") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="List the systems that --system and --systems accept, or show one system: its source, its settings "
        "and their defaults. --set and --vary change settings.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "system",
        metavar="NAME",
        nargs="?",
        type=values.system,
        help="one system: its name, or FILE.py:NAME; the file is run (default: list all systems)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the systems, or one of them, and return the exit status."""
    if args.system:
        print(_description(args.system))
        return 0
    width = max(map(len, names()))
    by_group: dict[str, list[str]] = {group: [] for group in _TITLES}
    for name in names():
        by_group.setdefault(system_class(name).group, []).append(name)
    for group, of in by_group.items():
        if of:
            print(f"{_TITLES.get(group, group)}{f' (--systems {group})' if group in GROUPS else ''}:")
            for name in of:
                kind = system_class(name)
                print(f"  {name:<{width}}  {_summary(kind)}{_uses(kind)}")
            print()
    print("Your own system: FILE.py:NAME. To see the settings of a system: cemobam systems NAME.")
    return 0


def _description(name: str) -> str:
    """Return the description of a system: its version, docstring, settings, and what --budget searches."""
    kind = system_class(name)
    hints = get_type_hints(kind)
    settings = [(f.name, f"{f.default}", _values(hints[f.name])) for f in fields(kind)]
    widths = [max(len(row[i]) for row in [("setting", "default", ""), *settings]) for i in (0, 1)]
    graph = "uses the graph" if kind.uses_graph else "does not use the graph, so it is trained once and not for every K"
    listed = [
        f"{'setting':<{widths[0]}}  {'default':<{widths[1]}}  values",
        *(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in settings),
    ]
    return "\n".join(
        [
            f"{name} ({kind.__name__}, version {version_of(kind)}; {graph})",
            "",
            inspect.cleandoc(kind.__doc__ or "It has no docstring that names its source."),
            "",
            *(listed if settings else ["It has no settings."]),
            *_prescribed(kind),
            *_searched(kind),
        ]
    )


def _prescribed(kind: type[System]) -> list[str]:
    """Return lines on the settings of training and graph that the source of a system prescribes."""
    if not kind.prescribed:
        return []
    return ["", "Settings of its source, which replace the profile's:", *_columns(kind.prescribed)]


def _searched(kind: type[System]) -> list[str]:
    """Return lines on the settings that --budget tunes."""
    if not kind.search:
        return ["", "It has no search space, so --budget does not tune it."]
    return ["", "Searched with --budget:", *_columns({name: _values_of(of) for name, of in kind.search.items()})]


def _columns(of: Mapping[str, object]) -> list[str]:
    width = max(map(len, of))
    return [f"  {name:<{width}}  {value}" for name, value in of.items()]


def _values_of(searched: Between | OneOf) -> str:
    """Describe the values of a setting that tuning may try."""
    if isinstance(searched, OneOf):
        return ", ".join(map(str, searched.values))
    return f"{searched.low:g} to {searched.high:g}{', on a log scale' if searched.log else ''}"


def _uses(kind: type[System]) -> str:
    """Return in brackets whether a system uses the graph, and whether it is transductive."""
    if not kind.uses_graph:
        return ""
    return " (graph, transductive)" if kind.prescribed.get("evaluation_graph") == "joint" else " (graph)"


def _summary(kind: type[Any]) -> str:
    """Return the first sentence of a system's docstring."""
    text = " ".join((kind.__doc__ or "").split())
    return text.partition(". ")[0].partition(";")[0].rstrip(".")


def _values(hint: Any) -> str:
    """Describe the values that a setting may have."""
    if choices := get_args(hint):
        return ", ".join(map(str, choices))
    return {int: "a whole number of at least 1", float: "a number of at least 0", bool: "true or false"}.get(
        hint, "text"
    )

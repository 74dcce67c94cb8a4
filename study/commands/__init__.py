"""The command line: ``run_grid.py`` and ``cemobam COMMAND``, a module a command.

A command's module has a function ``build_parser(prog)``, which returns its parser, and a function ``run(args)``, which
does what it is for and returns the exit status. A new command is a module here and a line in ``COMMANDS``. Its module
is imported when it is asked for, and imports what is slow to import in ``run``: ``--help`` and a typing error answer at
once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from study.commands.exit_status import status_of
from study.commands.parsing import add_version, did_you_mean

COMMANDS = {
    "grid": "the study, as run_grid.py",
    "features": "features of a raw corpus: IEMOCAP, ESD, or any by a manifest",
    "figures": "figures of a study, drawn from its ledger, all or one alone",
    "dashboard": "the trials, figures and tables of a study in a browser, also while it runs",
    "compare": "several studies side by side",
    "export": "the trials of a study, for MLflow, Weights & Biases or TensorBoard",
    "systems": "the systems that there are; a system's settings, their defaults and its source",
    "predict": "label utterances with a model of a study, or with a checkpoint of the authors' code",
}
"""The commands by name, which is also their module's, and what the help says of them."""


class _Command(Protocol):
    """The module of a command."""

    def build_parser(self, prog: str) -> argparse.ArgumentParser: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, as ``run_grid.py`` does, and return the exit status."""
    return _run("grid", "run_grid.py", sys.argv[1:] if argv is None else list(argv))


def cemobam(argv: Sequence[str] | None = None) -> int:
    """Run ``cemobam COMMAND``, as the package installs it, and return the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in COMMANDS:
        return _run(words[0], f"cemobam {words[0]}", words[1:])
    if words == ["--version"]:
        versioned = argparse.ArgumentParser(prog="cemobam")
        add_version(versioned)
        versioned.parse_args(words)
    if words in (["-h"], ["--help"]):
        print(_usage())
        return 0
    said = f"unknown command {words[0]!r}{did_you_mean(words[:1], COMMANDS)}" if words else "no command given"
    print(f"cemobam: error: {said}; choose from {', '.join(COMMANDS)} (see cemobam --help)", file=sys.stderr)
    return 2


def _run(name: str, prog: str, words: Sequence[str]) -> int:
    command = cast(_Command, import_module(f"study.commands.{name}"))
    return status_of(command.run, command.build_parser(prog), words)


def _usage() -> str:
    listed = "\n".join(f"  {name:<9} {summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: cemobam COMMAND …\n\n{listed}\n\n"
        "cemobam COMMAND --help says what a command takes; cemobam --version prints the version."
    )

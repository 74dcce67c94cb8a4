"""The command line: ``python run_grid.py`` and ``cemobam COMMAND``, one module per command.

The module of a command has two functions. ``build_parser(prog)`` returns its parser. ``run(args)`` does the work and
returns the exit status. To add a command, add a module here and a line in ``COMMANDS``. A module is imported only when
its command is used, and it imports slow packages inside ``run``, so that ``--help`` and typing errors answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from study.commands.exit_status import status_of
from study.commands.interruption import STATUS, end_workers, interruptible, is_interruption, say_interrupted
from study.commands.parsing import add_version, did_you_mean

COMMANDS = {
    "run": "run the study, as python run_grid.py does",
    "demo": "run the study on the embedded demo data (--quick: 30 seconds), or show a model at work (--model)",
    "features": "make features from a raw corpus: IEMOCAP, ESD, or any other",
    "splits": "show the splits of a corpus or of features, and write them to a file",
    "encoders": "list the encoders of audio and text, or show what one is",
    "figures": "draw the figures of a study again, all or some",
    "dashboard": "browse the trials, figures and tables of a study, also while it runs",
    "doctor": "check a ledger, and save what is whole of a damaged one",
    "compare": "compare several studies",
    "export": "export the trials of a study to MLflow, Weights & Biases or TensorBoard",
    "systems": "list the systems, or show the settings and source of one",
    "predict": "label sound files or features with a trained model",
}
"""The commands by name, with one line of help each. The name is also the name of the module."""


class _Command(Protocol):
    """The module of a command."""

    def build_parser(self, prog: str) -> argparse.ArgumentParser: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, as ``run_grid.py`` does, and return the exit status.

    Args:
        argv: The words of the command line. `None` means those of this process, which ends after this function.
    """
    return _to_the_end(lambda words: _run("run", "run_grid.py", words), argv)


def cemobam(argv: Sequence[str] | None = None) -> int:
    """Run ``cemobam COMMAND``, the command that the package installs, and return the exit status.

    Args:
        argv: The words of the command line. `None` means those of this process, which ends after this function.
    """
    return _to_the_end(_cemobam, argv)


def _to_the_end(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command and return its exit status: 130 after an interruption."""
    with interruptible(to_the_end=argv is None) as interruption:
        try:
            return command(sys.argv[1:] if argv is None else list(argv))
        except BaseException as error:
            if not is_interruption(error):
                raise
            interruption.ending = True
            end_workers()
            say_interrupted()
            return STATUS


def _cemobam(words: Sequence[str]) -> int:
    if words and words[0] in COMMANDS:
        return _run(words[0], f"cemobam {words[0]}", words[1:])
    if words == ["--version"]:
        versioned = argparse.ArgumentParser(prog="cemobam")
        add_version(versioned)
        versioned.parse_args(words)
    if words in (["-h"], ["--help"]):
        print(_usage())
        return 0
    wrong = f"unknown command {words[0]!r}{did_you_mean(words[:1], COMMANDS)}" if words else "no command given"
    print(f"cemobam: error: {wrong}; choose from {', '.join(COMMANDS)} (see cemobam --help)", file=sys.stderr)
    return 2


def _run(name: str, prog: str, words: Sequence[str]) -> int:
    command = cast(_Command, import_module(f"study.commands.{name}"))
    return status_of(command.run, command.build_parser(prog), words)


def _usage() -> str:
    listed = "\n".join(f"  {name:<9} {summary}" for name, summary in COMMANDS.items())
    return f"""usage: cemobam COMMAND [options]

Rerun, check and extend the CemoBAM study of speech emotion recognition.

commands:
{listed}

examples:
  cemobam demo --quick --open
  cemobam run --dataset iemocap --features DIR
  cemobam run --help

cemobam COMMAND --help shows the options of a command; cemobam --version prints the version."""

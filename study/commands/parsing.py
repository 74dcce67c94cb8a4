"""The parts of a command line: options that are declared once, groups of options, and the parser."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NoReturn

HIDDEN = argparse.SUPPRESS
"""The help of an option that a command accepts but does not show."""

Concern = Literal["study", "data", "machine", "ledger", "run"]
"""The subject of an option: the study, its data, the machine that runs its trials, the place of its ledger, or this one
run of the command."""


@dataclass(frozen=True)
class Option:
    """An option, with the arguments of :meth:`argparse.ArgumentParser.add_argument`.

    Attributes:
        flag: The option as it is typed: ``--k-audio``.
        help: A short description with the default.
        metavar: Placeholder of the value in the help.
        type: Function that reads the value.
        choices: Values that are allowed.
        default: Value if the option is not given.
        action: ``store_true`` for an option without a value, ``append`` for one that may be repeated.
        concerns: Subject of the option. A command can hide all options of a subject, and a recorded command line can
            leave them out.
    """

    flag: str
    _: KW_ONLY
    help: str
    metavar: str | None = None
    type: Callable[[str], Any] | None = None
    choices: Sequence[str] | None = None
    default: Any = None
    action: str | None = None
    concerns: Concern = "study"

    @property
    def name(self) -> str:
        """Name of the parsed argument: ``k_audio``."""
        return self.flag.removeprefix("--").replace("-", "_")

    def add_to(self, container: argparse._ActionsContainer, **changes: Any) -> None:
        """Add the option to a parser or to a group of one.

        Args:
            container: The parser or the group.
            changes: Arguments of ``add_argument`` that replace the option's own in this command.
        """
        declared = {name: getattr(self, name) for name in ("help", "metavar", "type", "choices", "default", "action")}
        given = {name: value for name, value in {**declared, **changes}.items() if value is not None}
        container.add_argument(self.flag, **given)


@dataclass(frozen=True)
class Group:
    """Options under one title in the help.

    Attributes:
        title: The title.
        options: The options, in the order of the help.
        exclusive: Whether only one of them may be given.
    """

    title: str
    options: tuple[Option, ...]
    exclusive: bool = False

    def add_to(
        self, parser: argparse.ArgumentParser, *, title: str | None = None, hidden: Collection[Concern] = ()
    ) -> None:
        """Add the options to a parser.

        Args:
            parser: The parser.
            title: A title to show instead of the group's own.
            hidden: Subjects whose options are accepted but not shown.
        """
        container: argparse._ActionsContainer = parser.add_argument_group(title or self.title)
        if self.exclusive:
            container = container.add_mutually_exclusive_group()
        for option in self.options:
            option.add_to(container, help=HIDDEN if option.concerns in hidden else option.help)


class Parser(argparse.ArgumentParser):
    """A parser that accepts no abbreviations and reports a mistake in one line.

    Args:
        prog: The name of the program in help and errors.
        settings: Other arguments of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the error in one line, with the closest known option and the command that shows the help."""
        from study.ledger.storages import masked  # with Optuna: --help does not wait for it

        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message):
            known = [option for action in self._actions for option in action.option_strings if action.help != HIDDEN]
            message += did_you_mean((word for word in unknown[1].split() if word.startswith("-")), known)
        print(f"{self.prog}: error: {masked(message)} (see {as_command(self.prog)} --help)", file=sys.stderr)
        raise SystemExit(2)


def parser_with_examples(prog: str, *, description: str, epilog: str) -> Parser:
    """Return a parser whose help keeps the lines of ``epilog`` as they are.

    Args:
        prog: The name of the program in help and errors.
        description: What the command does. It is wrapped here, because such a parser does not wrap text.
        epilog: Examples, or another list.
    """
    return Parser(
        prog,
        description=textwrap.fill(description, min(100, shutil.get_terminal_size().columns - 2)),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``: the versions of the package and of the method, which is part of every trial's signature."""
    from cemobam_core.training.config import METHOD_VERSION

    try:
        package = version("cemobam-study")
    except PackageNotFoundError:
        package = "(from a checkout that is not installed)"
    text = f"cemobam-study {package}, method {METHOD_VERSION}"
    parser.add_argument("--version", action="version", version=text, help="print the version and exit")


def as_command(prog: str) -> str:
    """Return the command line that starts a program: ``python run_grid.py`` for ``run_grid.py``."""
    return f"python {prog}" if prog.endswith(".py") else prog


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` with the closest known words, or an empty string if none is close."""
    known = list(known)
    close = [
        match
        for word in words
        for match in difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, 1)
    ]
    return f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""

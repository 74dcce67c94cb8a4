"""What a command line is made of: options that are declared once, groups of them, and the parser that takes them."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NoReturn

HIDDEN = argparse.SUPPRESS
"""The help of an option that a command takes and does not show."""

Concern = Literal["study", "data", "machine", "ledger", "run"]
"""What an option is about: the study that is asked for, the data it is made from, what executes its trials, where its
ledger is, or this one run of the command."""


@dataclass(frozen=True)
class Option:
    """One option, as :meth:`argparse.ArgumentParser.add_argument` takes it.

    Attributes:
        flag: how it is typed: ``--k-audio``.
        help: what it does, in a few words.
        metavar: what stands for its value in the help.
        type: reads its value.
        choices: the values that it may have.
        default: its value if it is not given.
        action: ``store_true`` for an option without a value, ``append`` for one that may be repeated.
        concerns: what it is about; a command hides, and a kept command line leaves out, all options of one concern.
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
        """Its name among the parsed arguments: ``k_audio``."""
        return self.flag.removeprefix("--").replace("-", "_")

    def add_to(self, container: argparse._ActionsContainer, **changes: Any) -> None:
        """Add the option to a parser or to a group of one.

        Args:
            container: the parser or the group.
            changes: what ``add_argument`` is given instead, where a command means something else by the option.
        """
        declared = {name: getattr(self, name) for name in ("help", "metavar", "type", "choices", "default", "action")}
        given = {name: value for name, value in {**declared, **changes}.items() if value is not None}
        container.add_argument(self.flag, **given)


@dataclass(frozen=True)
class Group:
    """Options under one title in the help.

    Attributes:
        title: the title.
        options: in the order of the help.
        exclusive: whether only one of them may be given.
    """

    title: str
    options: tuple[Option, ...]
    exclusive: bool = False

    def add_to(
        self, parser: argparse.ArgumentParser, *, title: str | None = None, hidden: Collection[Concern] = ()
    ) -> None:
        """Add the options to a parser.

        Args:
            parser: the parser.
            title: the title to show instead.
            hidden: concerns whose options are taken and not shown.
        """
        container: argparse._ActionsContainer = parser.add_argument_group(title or self.title)
        if self.exclusive:
            container = container.add_mutually_exclusive_group()
        for option in self.options:
            option.add_to(container, help=HIDDEN if option.concerns in hidden else option.help)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and tells a mistake in one line.

    Args:
        prog: what the help and the errors call the command.
        settings: as :class:`argparse.ArgumentParser` takes them.
    """

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print one line: the error, the option that an unknown one is like, and where to learn more."""
        from study.ledger.storages import masked  # with Optuna: --help does not wait for it

        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message):
            known = [option for action in self._actions for option in action.option_strings if action.help != HIDDEN]
            message += did_you_mean((word for word in unknown[1].split() if word.startswith("-")), known)
        print(f"{self.prog}: error: {masked(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def parser_with_examples(prog: str, *, description: str, epilog: str) -> Parser:
    """Return a parser whose help shows the lines of ``epilog`` as they are.

    Args:
        prog: what the help and the errors call the command.
        description: what the command does; it is wrapped here, because such a parser wraps nothing itself.
        epilog: examples, or another list.
    """
    return Parser(
        prog,
        description=textwrap.fill(description, 100),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``: the package's version, and that of the method, which every trial's signature holds."""
    from cemobam_core.training.config import METHOD_VERSION

    try:
        package = version("cemobam-study")
    except PackageNotFoundError:
        package = "(run from a checkout that is not installed)"
    said = f"cemobam-study {package}, method {METHOD_VERSION}"
    parser.add_argument("--version", action="version", version=said, help="print the version and end")


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the words that are like a known one; an empty string where none is."""
    known = list(known)
    meant = [
        match
        for word in words
        for match in difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, 1)
    ]
    return f"; did you mean {', '.join(dict.fromkeys(meant))}?" if meant else ""

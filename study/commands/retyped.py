"""Command lines made from arguments: what a user types to ask for the same again."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Iterable
from typing import Any

from study.commands.options import DATASET, LEDGER, STUDY
from study.commands.parsing import Concern, Option
from study.ledger.storages import masked


def as_typed(args: argparse.Namespace) -> str:
    """Return the command that gives these arguments, without defaults and without options of this one run."""
    return shlex.join([*args.command.split(), *_words(_study_options(), args)])


def as_asked(args: argparse.Namespace) -> list[str]:
    """Return the options that ask for the same study again, which the ledger keeps.

    The options of the ledger and of the machine are left out, because another machine may ask for the report.
    """
    return _words(_study_options(), args, without={"machine", "ledger", "run"})


def dashboard_as_typed(args: argparse.Namespace) -> str:
    """Return the command that opens the dashboard on the ledger of a study with these arguments."""
    named = argparse.Namespace(**vars(args))
    if not (args.dataset or args.name or args.storage):
        named.dataset = "demo"  # there may be other studies in the same folder
    return shlex.join(["cemobam", "dashboard", *_words([DATASET, *LEDGER], named)])


def option(name: str, value: Any) -> list[str]:
    """Return the words that give an option a value, as a user types them: ``--seeds 0,1``."""
    if isinstance(value, list):  # of an option that may be repeated
        return [word for one in value for word in option(name, "=".join([one[0], _listed(one[1])]))]
    if value is True:
        return [f"--{name.replace('_', '-')}"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if name == "seeds" and len(value) == 1:
        text += ","
    return [f"--{name.replace('_', '-')}", masked(text)]


def _listed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _study_options() -> list[Option]:
    return [declared for group in STUDY for declared in group.options]


def _words(
    options: Iterable[Option], args: argparse.Namespace, without: Collection[Concern] = frozenset({"run"})
) -> list[str]:
    """Return the words for the options that are not at their defaults, without the options of some subjects."""
    return [
        word
        for declared in options
        if declared.concerns not in without
        and (value := getattr(args, declared.name, declared.default)) != declared.default
        for word in option(declared.name, value)
    ]

"""Which recorded study a command means, and the options that it was last run with: nobody types them twice."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

from cemobam_core.errors import InputError
from study.commands.arguments import as_asked, option
from study.commands.request import SETTINGS, Request
from study.ledger.ledger import Ledger, Recorded
from study.ledger.storages import ledger_file, masked


def recalled(parser: argparse.ArgumentParser, words: Sequence[str], args: argparse.Namespace) -> argparse.Namespace:
    """Complete a command on a recorded study with the options that the study was last run with.

    Args:
        parser: of the command.
        words: the command line; its options replace the recorded ones.
        args: what ``parser`` makes of it.

    Returns:
        The arguments, or ``args`` themselves where no such study is recorded.

    Raises:
        InputError: several studies are meant, or none of those that are recorded; lists them.
    """
    name = only_name(args)
    storage = storage_of(args, name)
    if name is None or not _is_there(storage):
        return args
    there = [study for study in Ledger(storage, name=name).recorded() if study.name == name]
    full = [_completed(parser, words, study) for study in there]
    meant = [x for study, x in zip(there, full, strict=True) if Request.of(x).tag == study.tag]
    if len(meant) == 1 or not there:
        return meant[0] if meant else args
    listed = "; ".join(_choice(study, there) for study in there)
    where = ledger_file(storage) or masked(storage)
    if meant:
        raise InputError(f"{where}: has several studies named {name!r}; choose one by its settings: {listed}")
    raise InputError(f"{where}: has no study {name!r} with these settings; it has: {listed}")


def only_name(args: argparse.Namespace) -> str | None:
    """Return the name of the study that is meant: the one given, or the only one there is; None: there is none.

    If there are several and options such as ``--epochs 2`` are given, return ``demo``, as running does.

    Raises:
        InputError: no name is given and there are several studies; lists them.
    """
    if args.name or args.dataset:
        return str(args.name or args.dataset)
    if args.storage:
        names = names_in(args.storage)
        where = str(ledger_file(args.storage) or masked(args.storage))
    else:
        names = sorted(path.parent.name for path in Path(args.results).glob("*/study.db"))
        where = str(args.results)
    if "demo" in names and as_asked(args):
        return "demo"
    if len(names) > 1:
        listed = ", ".join(f"--name {name}" for name in names)
        raise InputError(f"{where}: has several studies; choose one: {listed}")
    return names[0] if names else None


def names_in(storage: str) -> list[str]:
    """Return the names of the studies in a storage, without making one."""
    if not _is_there(storage):
        return []
    return list(dict.fromkeys(study.name for study in Ledger(storage, name="").recorded()))


def storage_of(args: argparse.Namespace, name: str | None) -> str:
    """Return where the ledger of a name is kept."""
    return args.storage or f"sqlite:///{args.results / (name or 'demo') / 'study.db'}"


def _is_there(storage: str) -> bool:
    file = ledger_file(storage)
    return file is None or file.exists()


def _completed(parser: argparse.ArgumentParser, words: Sequence[str], study: Recorded) -> argparse.Namespace:
    """Parse the recorded options and then the given ones, so that these win."""
    asked = study.asked or ("--dataset", study.facts.dataset)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = parser.parse_args([*asked, *words])
    except SystemExit:
        raise InputError(
            f"the ledger's study {study.name!r} was run with {shlex.join(asked)}, which does not go with these options "
            f"or with this version ({said.getvalue().strip()})"
        ) from None
    if study.name != (args.dataset or "demo"):
        args.name = study.name
    return args


def _choice(study: Recorded, among: Sequence[Recorded]) -> str:
    """What a user types to choose one of the studies of one name."""
    known = ("profile", *SETTINGS)
    tags = [{part.partition("=")[0] for part in other.tag.split(",")} for other in among]
    apart = [name for name in known if name in study.facts.settings and any(name in tag for tag in tags)]
    return " ".join(" ".join(option(name, study.facts.settings[name])) for name in apart) or "the default settings"

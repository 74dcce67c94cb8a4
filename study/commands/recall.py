"""Find the recorded study that a command means, with the options that it was last run with: nobody types them twice."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.errors import InputError
from study.commands.options import CONFIGURED
from study.commands.request import Request
from study.commands.retyped import as_asked, option
from study.ledger.ledger import Ledger, Recorded
from study.ledger.storages import ledger_file, masked

if TYPE_CHECKING:
    from study.driver import StudyRun


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
    meant, refused = [], []
    for study in there:
        try:
            full = _completed(parser, words, args, study)
            if Request.of(full).tag == study.tag:
                meant.append(full)
        except InputError as error:  # another study's options need not go with these
            refused.append(error)
    if refused and not meant:
        raise refused[0]
    if len(meant) == 1 or not there:
        return meant[0] if meant else args
    listed = "; ".join(_choice(study, there) for study in there)
    where = ledger_file(storage) or masked(storage)
    if meant:
        raise InputError(f"{where}: has several studies named {name!r}; choose one by its settings: {listed}")
    raise InputError(f"{where}: has no study {name!r} with these settings; it has: {listed}")


def recorded(request: Request) -> StudyRun:
    """Return what the ledger holds of the trials asked for.

    Raises:
        InputError: there is no such ledger, or no such study or none of the trials in it.
    """
    from study.driver import StudyRun
    from study.findings.looks import catch_up

    if request.database and not request.database.exists():
        raise InputError(f"{request.database}: no ledger there; run the study first, without --report-only")
    ledger = request.ledger()
    facts = ledger.facts()
    if facts is None:
        tagged = f" with {request.tag}" if request.tag else ""
        raise InputError(
            f"the ledger {masked(request.storage)} has no study {request.name!r}{tagged}; give the --name and the "
            "settings (--epochs, --hidden-dim, --lr …) that it was run with"
        )
    if facts.dataset != request.corpus.name:
        raise InputError(f"the ledger's trials are of the data set {facts.dataset}; give --dataset {facts.dataset}")
    request.set_folds(facts.folds)
    run = StudyRun(request.plan(ledger), ledger, facts)
    catch_up(run, name=request.name)
    if not run.knows_any():
        raise InputError(
            f"the ledger {masked(request.storage)} has none of the trials asked for; give the settings (--k-audio, "
            "--k-text, --seeds, --fusion …) that it was run with"
        )
    return run


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


def _completed(
    parser: argparse.ArgumentParser, words: Sequence[str], given: argparse.Namespace, study: Recorded
) -> argparse.Namespace:
    """Parse the recorded options and then the given ones, so that these win.

    Options that may be repeated add up when they are parsed: a ``--set`` that is given replaces that of its setting,
    and ``--vary`` all of them.
    """
    asked = study.asked or ("--dataset", study.facts.dataset)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args, before = parser.parse_args([*asked, *words]), parser.parse_args(asked)
    except SystemExit:
        raise InputError(
            f"the ledger's study {study.name!r} was run with {shlex.join(asked)}, which does not go with these options "
            f"or with this version ({said.getvalue().strip()})"
        ) from None
    if given.set:
        named = {name for name, _ in given.set}
        args.set = [*(one for one in before.set or [] if one[0] not in named), *given.set]
    if given.vary:
        args.vary = given.vary
    elif given.study or given.systems:
        args.vary = None
    if study.name != (args.dataset or "demo"):
        args.name = study.name
    return args


def _choice(study: Recorded, among: Sequence[Recorded]) -> str:
    """Return what a user types to choose one of the studies of one name."""
    tags = [part.partition("=")[0] for other in among for part in other.tag.split(",")]
    apart = [name for name in dict.fromkeys(tags) if name in study.facts.settings]
    own = {"profile", "system", *(configured.name for configured in CONFIGURED)}
    words = [
        " ".join(option(name, value) if name in own else ["--set", f"{name}={value}"])
        for name in apart
        for value in [study.facts.settings[name]]
    ]
    return " ".join(words) or "the default settings"

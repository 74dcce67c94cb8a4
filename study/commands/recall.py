"""Find the recorded study that a command means, and complete the command with the options of that study's last run."""

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
from study.ledger.outcomes import StudyFacts
from study.ledger.storages import ledger_file, masked

if TYPE_CHECKING:
    from study.driver import StudyRun


def recalled(parser: argparse.ArgumentParser, words: Sequence[str], args: argparse.Namespace) -> argparse.Namespace:
    """Complete a command on a recorded study with the options of that study's last run.

    Args:
        parser: Parser of the command.
        words: The command line. Its options replace the recorded ones.
        args: The parsed command line.

    Returns:
        The completed arguments, or ``args`` if no such study is recorded.

    Raises:
        InputError: Several recorded studies fit the command, or none does. The message lists them.
    """
    name = only_name(args)
    storage = storage_of(args, name)
    if name is None or not _is_there(storage):
        return args
    there = [study for study in Ledger(storage, name=name).recorded() if study.name == name]
    meant, refused = [], []
    for study in there:
        try:
            full = completed(parser, words, args, study)
            if Request.of(full).tag == study.tag:
                meant.append(full)
        except InputError as error:  # the options of another study may not fit these
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
    """Return the study that is asked for, with what the ledger holds of its trials.

    Raises:
        InputError: There is no such ledger, no such study in it, or none of the trials.
    """
    from study.driver import StudyRun
    from study.findings.looks import catch_up

    if request.database and not request.database.exists():
        raise InputError(f"{request.database}: there is no ledger; run the study first, without --report-only")
    ledger = request.ledger()
    facts = ledger.facts()
    if facts is None:
        tagged = f" with {request.tag}" if request.tag else ""
        raise InputError(
            f"the ledger {masked(request.storage)} has no study {request.name!r}{tagged}; give the --name and the "
            "settings of its run (--epochs, --hidden-dim, --lr …)"
        )
    if facts.dataset != request.corpus.name:
        raise InputError(
            f"the trials in the ledger are of the data set {facts.dataset}; give --dataset {facts.dataset}"
        )
    request.set_folds(facts.folds)
    run = StudyRun(request.plan(ledger), ledger, facts)
    catch_up(run, name=request.name)
    if not run.knows_any():
        raise InputError(
            f"the ledger {masked(request.storage)} has none of the trials asked for; give the settings of its run "
            "(--k-audio, --k-text, --seeds, --fusion …)"
        )
    return run


def so_far(request: Request, facts: StudyFacts) -> StudyRun:
    """Return the study that is asked for, with the trials of it that are done, and write nothing.

    Args:
        request: The study.
        facts: Its facts.
    """
    from study.driver import StudyRun
    from study.findings.looks import catch_up

    ledger = request.ledger(facts, new="sqlite:///:memory:")
    run = StudyRun(request.plan(ledger), ledger, facts)
    catch_up(run, name=request.name)
    return run


def only_name(args: argparse.Namespace) -> str | None:
    """Return the name of the study: the given one, or the only one. Return `None` if there is no study.

    If there are several studies and options such as ``--epochs 2`` are given, return ``demo``, as a run does.

    Raises:
        InputError: No name is given and there are several studies. The message lists them.
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
    """Return the names of the studies in a storage. A storage that does not exist is not created."""
    if not _is_there(storage):
        return []
    return list(dict.fromkeys(study.name for study in Ledger(storage, name="").recorded()))


def storage_of(args: argparse.Namespace, name: str | None) -> str:
    """Return the URL of the ledger of a study."""
    return args.storage or f"sqlite:///{args.results / (name or 'demo') / 'study.db'}"


def _is_there(storage: str) -> bool:
    file = ledger_file(storage)
    return file is None or file.exists()


def completed(
    parser: argparse.ArgumentParser, words: Sequence[str], given: argparse.Namespace, study: Recorded
) -> argparse.Namespace:
    """Return the options of a recorded study, replaced by those that are given.

    Args:
        parser: Parser of the command.
        words: The command line.
        given: The parsed command line. A ``--set`` replaces the recorded one of the same setting, and ``--vary`` all
            recorded ones.
        study: The recorded study.

    Raises:
        InputError: The recorded options do not fit the given ones, or this version.
    """
    asked = study.asked or ("--dataset", study.facts.dataset)
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            args, before = parser.parse_args([*asked, *words]), parser.parse_args(asked)
    except SystemExit:
        raise InputError(
            f"the study {study.name!r} in the ledger was run with {shlex.join(asked)}, which does not fit these "
            f"options or this version ({refusal.getvalue().strip()})"
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
    """Return the options that choose one of several studies of the same name."""
    tags = [part.partition("=")[0] for other in among for part in other.tag.split(",")]
    apart = [name for name in dict.fromkeys(tags) if name in study.facts.settings]
    own = {"profile", "system", *(configured.name for configured in CONFIGURED)}
    words = [
        " ".join(option(name, value) if name in own else ["--set", f"{name}={value}"])
        for name in apart
        for value in [study.facts.settings[name]]
    ]
    return " ".join(words) or "the default settings"

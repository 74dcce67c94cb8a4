"""Run the study: make its features if needed, run the missing trials, and write its report."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cemobam_core.errors import InputError
from cemobam_core.extras import installation, missing
from cemobam_core.files import remove_leftovers, written_atomically
from study.commands import data
from study.commands.dry_run import dry_run, dry_run_before_features
from study.commands.keeping import (
    check_kept,
    check_room,
    check_room_of_probabilities,
    keep_models,
    keeping_of,
    probabilities_of,
    told_of_probabilities,
)
from study.commands.logs import logged
from study.commands.machine import devices_of, engine_of
from study.commands.opening import open_page
from study.commands.progress import Progress
from study.commands.recall import recorded, so_far
from study.commands.report import write_report
from study.commands.request import Request
from study.commands.retyped import as_asked, as_typed, dashboard_as_typed
from study.design.configuration import Trial
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.storages import LedgerFailed
from study.ledger.utterances import TestUtterances

# Modules that import torch are imported where they are used: the local engine's server starts first.
if TYPE_CHECKING:
    from cemobam_core.corpora.splits import Assignment
    from cemobam_core.corpora.utterances import RawCorpus
    from cemobam_core.encoders.settings import Recipe
    from cemobam_core.features import Fold
    from study.driver import StudyRun
    from study.output.publishing import Publisher

_log = logging.getLogger(__name__)

_SLOW = ("study.output.report", "matplotlib.backends.backend_pdf")
"""Modules of the report that take seconds to import."""


def run_study(args: argparse.Namespace, *, print_report: bool = True) -> int:
    """Run the study, print its plan or write its report again, as the options say, and return the exit status.

    Args:
        args: The parsed options.
        print_report: Whether to print the summary of the report and where the files are.
    """
    _refuse_without_effect(args)
    request = Request.of(args)
    if args.dry_run:
        print(f"planning the study {request.name} …", flush=True)
    if args.engine == "local" and not args.report_only:
        from study.engines.server import start_server

        start_server()  # first, because it takes longer than the next steps
    import torch

    from cemobam_core.corpora.blanks import blanks
    from cemobam_core.corpora.leaks import copies
    from study.engines.execution import check_k

    if args.dry_run:
        torch.set_num_threads(1)  # there is little to compute, and on a busy machine threads wait for one another
    if args.report_only:
        write_report(request, recorded(request), printed=print_report)
        _open(request)
        return 0
    devices = devices_of(args)
    raw = data.raw_corpus(args)
    folds = data.folds(args, request.corpus) if raw is None else _folds_of_corpus(request, raw)
    if folds is None:
        return 0
    request.try_systems(folds[0].train.sizes, sequence=folds[0].train.audio.ndim == 3 or folds[0].train.text.ndim == 3)
    request.check_settings()
    request.check_index()
    facts = request.facts(folds)
    check_k(folds, request.k_max(), request.graphs())
    for line in blanks(*folds):
        print(f"warning: {line}", file=sys.stderr)
    if k_max := request.k_max():
        for one in copies(*folds, k=k_max):
            print(one)
    needs, short = _memory(request, folds, devices)
    if args.dry_run:
        dry_run(request, folds, facts, devices, needs=needs, shortage=short)
        return 0
    if short and not _is_done(request, facts):
        raise InputError(short)
    _refuse_unwritable(request)
    remove_leftovers(request.results, request.plots)
    with _alone(request), logged(request.results / "logs", verbose=args.verbose) as log:
        return _run_trials(request, folds, facts, devices, log, print_report=print_report)


def _refuse_without_effect(args: argparse.Namespace) -> None:
    """Refuse options that need a run or a report where there is none."""
    if args.keep_models and (args.report_only or args.dry_run):
        raise InputError("--keep-models: only a run keeps models; leave out --report-only and --dry-run")
    if args.keep_probabilities and (args.report_only or args.dry_run):
        raise InputError("--keep-probabilities: only a run keeps them; leave out --report-only and --dry-run")
    if args.open and args.dry_run:
        raise InputError("--open: --dry-run writes no report; leave one of them out")


def _memory(request: Request, folds: tuple[Fold, ...], devices: Sequence[str]) -> tuple[str, str]:
    """Return the memory that the study needs, and why it does not fit into this machine's, or an empty string."""
    from study.engines.memory import Needs, heaviest, shortage

    configurations = heaviest(request.configurations(), folds[0].train.sizes)
    needs = Needs.of(folds, configurations, devices[0])
    elsewhere = request.args.ray_address  # the nodes of a cluster may have more
    return needs.described(len(devices)), "" if elsewhere else shortage(needs, folds, configurations, devices)


def _is_done(request: Request, facts: StudyFacts) -> bool:
    """Return whether the ledger has every trial, so that only the report is left to write."""
    asked, done = so_far(request, facts).counts()
    return asked == done


def _folds_of_corpus(request: Request, raw: RawCorpus) -> tuple[Fold, ...] | None:
    """Make the features of a raw corpus if they do not exist, and load them.

    Returns:
        The folds, or None if only the plan was asked for and it was printed without features.
    """
    from cemobam_core.corpora.splits import load_folds
    from cemobam_core.encoders.extract import made_before

    args = request.args
    recipe = data.recipe(args, raw)
    store = args.results / request.corpus.name / "features" / recipe.signature
    if made_before(recipe, store) is None:
        assigned, run = _refuse_before_features(request, recipe)
        if args.dry_run:
            dry_run_before_features(request, run, recipe, assigned)
            return None
        _refuse_unwritable(request)
    data.make(args, recipe, store)
    return load_folds(store)


def _refuse_before_features(request: Request, recipe: Recipe) -> tuple[tuple[Assignment, ...], StudyRun]:
    """Check the study before hours of feature extraction, and return the splits and the study so far."""
    from cemobam_core.corpora.splits import quietly
    from cemobam_core.inputs import Sizes
    from study.driver import StudyRun
    from study.engines.execution import check_k

    settings = recipe.settings
    folds = recipe.split(print if request.args.dry_run else quietly)
    request.set_folds(len(folds))
    request.try_systems(
        Sizes(audio_dim=768, text_dim=768, num_classes=len(recipe.corpus.class_names)),
        sequence=settings.level == "sequence",
    )
    request.check_index()
    check_k(folds, request.k_max(), request.graphs())
    ledger = request.ledger(new="sqlite:///:memory:")
    facts = ledger.facts() or StudyFacts(dataset="", title="", fingerprint="", folds=len(folds), settings={})
    if facts.recipe not in {"", recipe.signature}:
        now = replace(facts, fingerprint="", class_names=recipe.corpus.class_names, recipe=recipe.signature)
        raise InputError(
            f"the ledger's study {request.name!r} was made from {facts.other_than(now)}; give another --name or other "
            "--results"
        )
    run = StudyRun(request.plan(ledger), ledger, facts)
    request.check_pair(run)
    return folds, run


def _refuse_unwritable(request: Request) -> None:
    """Refuse folders that cannot be written to, before hours of work."""
    for folder in (request.results, request.plots):
        with written_atomically(folder / "probe"):
            pass
        (folder / "probe").unlink()


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    """Let only one run at a time use a ledger in SQLite. Several runs can share the other storages."""
    if not request.storage.startswith("sqlite"):
        yield
        return
    lock = (request.database or request.results / "study").with_suffix(".lock")
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"{lock}: another run is writing to this ledger; wait for it, give this run another --name, or share the "
            "study among several runs with --storage journal:///PATH or postgresql://…"
        ) from None


def _run_trials(
    request: Request,
    folds: tuple[Fold, ...],
    facts: StudyFacts,
    devices: Sequence[str],
    log: Path,
    *,
    print_report: bool,
) -> int:
    from study.driver import StudyRun
    from study.engines.execution import versions
    from study.findings.looks import catch_up

    ledger = request.ledger(facts, utterances=TestUtterances.of(folds))
    if before := ledger.facts():
        facts = replace(facts, recall=before.recall)
    run = StudyRun(request.plan(ledger), ledger, facts)
    request.check_pair(run)
    rescued = _taken_up(request, run)
    catch_up(run, name=request.name)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run", flush=True)
    about = {"command": as_typed(request.args), "ledger": request.storage, "devices": devices, **versions()}
    _log.info("%d trials, %d done, %d to run", asked, done, asked - done, extra=about)
    keep = request.args.keep_models
    if keep:
        check_kept(request, run)
        check_room(request, run, folds)
    if request.args.keep_probabilities:
        check_room_of_probabilities(request, asked - done, folds)
    run.ledger.keep_options(as_asked(request.args))
    if done < asked:
        try:
            _run_missing(request, run, folds, devices, log)
        except BaseException as error:
            if not (isinstance(error, LedgerFailed) or run.unrecorded):
                raise
            raise LedgerFailed(f"{run.failure or error}; {_rescued(request, run)}") from error
    else:
        run.share()  # a run may have been killed between recording a trial and copying it
    if rescued and all(map(run.ledger.has, rescued)):
        _rescue_file(request).unlink()
    kept = keep_models(request, run, folds, devices) if keep else True
    if request.args.keep_probabilities:
        print(f"\n{told_of_probabilities(request, run)}")
    write_report(request, run, printed=print_report)
    if print_report:
        hint = f"  (install it first: {installation('dashboard')})" if missing("dashboard") else ""
        print(f"\nbrowse every trial:\n  {dashboard_as_typed(request.args)}{hint}")
        print(f"\nlog of this run:\n  {log}")
    _open(request)
    asked, done = run.counts()
    _log.info("ended: %d of %d trials done", done, asked)
    return 0 if done == asked and kept else 1


def _rescue_file(request: Request) -> Path:
    """Return the ledger for the trials that the study's own ledger did not take."""
    return request.results / "rescued.db"


def _rescued(request: Request, run: StudyRun) -> str:
    """Keep the trials that this run knows beside the ledger, which failed, and return a sentence about them."""
    file = _rescue_file(request)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = run.rescue(f"sqlite:///{file}")
    except (InputError, OSError) as error:
        lost = f"{run.unrecorded} finished trials are lost, and the next run trains them again"
        return f"{lost} ({file} cannot be written: {' '.join(str(error).split())[:120]})"
    return f"{kept} finished trials of this study are kept in {file}, and the next run takes them up"


def _taken_up(request: Request, run: StudyRun) -> set[str]:
    """Take up the trials that an earlier run kept beside the ledger, and return their signatures."""
    file = _rescue_file(request)
    if not file.exists():
        return set()
    try:
        taken = run.take_up(run.ledger.elsewhere(f"sqlite:///{file}"))
    except InputError as error:
        raise InputError(f"{error}; or remove {file}, where an earlier run kept its finished trials") from None
    print(f"{file}: {len(taken)} finished trials of an earlier run are taken up", flush=True)
    return taken


def _open(request: Request) -> None:
    """Open the report if the user asked for it."""
    if request.args.open:
        open_page(request.results / "report.html")


def _run_missing(request: Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str], log: Path) -> None:
    """Run the trials that are missing in the ledger, and keep the dashboard current if it is installed."""
    import torch

    from study.engines.execution import StudyData
    from study.findings.looks import look
    from study.findings.tuned import tune

    keeping = keeping_of(request, run.facts) if request.args.keep_models == "all" else None
    probabilities = probabilities_of(request, run.facts) if request.args.keep_probabilities else None
    prepared = StudyData.prepare(
        folds,
        request.k_max(run.pair()),
        graphs=request.graphs(run.pair()),
        seeds=sorted({seed for block in run.plan.blocks for seed in run.seeds_of(block)}),
        keeping=keeping,
        probabilities=probabilities,
        device=devices[0] if torch.cuda.is_available() else "cpu",
    )
    run.keep_recall(prepared.recall)
    watched = not missing("dashboard")
    if watched:
        print(f"watch it in a browser: {dashboard_as_typed(request.args)}", flush=True)
    # Figures and statistics are slow to import, so they are imported while the first trials run.
    threading.Thread(target=lambda: [import_module(name) for name in _SLOW], daemon=True).start()

    @cache
    def publisher() -> Publisher:
        from study.output.publishing import Publisher

        return Publisher(run, name=request.name, models=request.models, again=as_typed(request.args))

    with engine_of(request.args, prepared, devices) as engine:
        unfinished = True
        while unfinished:
            with Progress(run) as progress:

                def on_outcome(trial: Trial, outcome: Outcome, progress: Progress = progress) -> None:
                    progress.on_outcome(trial, outcome)
                    if watched:
                        publisher().on_outcome()

                run.run(engine, on_outcome, on_failure=progress.on_failure, log=str(log))
            if unfinished := tune(run, name=request.name):
                continue
            if unfinished := look(run, name=request.name):
                asked, done = run.counts()
                print(f"{asked - done} more trials, because some differences are not clear yet", flush=True)

"""Run the study: make its features if needed, run the missing trials, and write its report."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from study.commands.recall import recorded
from study.commands.report import write_report
from study.commands.request import Request
from study.commands.retyped import as_asked, as_typed, dashboard_as_typed
from study.design.configuration import Trial
from study.ledger.outcomes import Outcome, StudyFacts
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
    from cemobam_core.training.batch import Batch

    sizes = Batch.from_features(folds[0].train).sizes
    request.try_systems(sizes, sequence=folds[0].train.audio.ndim == 3 or folds[0].train.text.ndim == 3)
    request.check_settings()
    facts = request.facts(folds)
    check_k(folds, request.k_max(), request.graphs())
    for line in blanks(*folds):
        print(f"warning: {line}", file=sys.stderr)
    if k_max := request.k_max():
        for one in copies(*folds, k=k_max):
            print(one)
    if args.dry_run:
        dry_run(request, folds, facts, devices)
        return 0
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
    from cemobam_core.corpora.splits import split_utterances
    from cemobam_core.inputs import Sizes
    from study.driver import StudyRun
    from study.engines.execution import check_k

    settings = recipe.settings
    folds = split_utterances(recipe.corpus, settings.protocol, settings.split_seed)
    request.set_folds(len(folds))
    request.try_systems(
        Sizes(audio_dim=768, text_dim=768, num_classes=len(recipe.corpus.class_names)),
        sequence=settings.level == "sequence",
    )
    check_k(folds, request.k_max(), request.graphs())
    ledger = request.ledger(new="sqlite:///:memory:")
    facts = ledger.facts() or StudyFacts(dataset="", title="", fingerprint="", folds=len(folds), settings={})
    if facts.recipe not in {"", recipe.signature}:
        raise InputError(
            f"the ledger's study {request.name!r} was made from other features (signature {facts.recipe}, now "
            f"{recipe.signature}); give another --name or other --results"
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
    run = StudyRun(request.plan(ledger), ledger, facts)
    request.check_pair(run)
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
        _run_missing(request, run, folds, devices, log)
    else:
        run.share()  # a run may have been killed between recording a trial and copying it
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


def _open(request: Request) -> None:
    """Open the report if the user asked for it."""
    if request.args.open:
        open_page(request.results / "report.html")


def _run_missing(request: Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str], log: Path) -> None:
    """Run the trials that are missing in the ledger, and keep the dashboard current if it is installed."""
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
    )
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

                run.run(engine, on_outcome, log=str(log))
            if unfinished := tune(run, name=request.name):
                continue
            if unfinished := look(run, name=request.name):
                asked, done = run.counts()
                print(f"{asked - done} more trials, because some differences are not clear yet", flush=True)

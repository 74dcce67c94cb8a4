"""The commands: what a user types, turned into a plan and run."""

from __future__ import annotations

import argparse
import errno
import gc
import io
import logging
import os
import signal
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import psutil
from filelock import FileLock, Timeout

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.commands import data
from study.commands.arguments import (
    add_version,
    as_asked,
    as_typed,
    compare_parser,
    dashboard_as_typed,
    dashboard_parser,
    did_you_mean,
    features_parser,
    figures_parser,
    grid_parser,
    predict_parser,
)
from study.commands.logs import logged
from study.commands.progress import Progress, described
from study.commands.recall import names_in, only_name, recalled, storage_of
from study.commands.request import Request
from study.design import Pair, Trial
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.storages import LedgerFailed, ledger_file, masked

# What imports torch, pandas or matplotlib is imported where it is used: --help and a typing error answer at once.
if TYPE_CHECKING:
    from cemobam_core.corpora.splits import Assignment
    from cemobam_core.encoders.settings import Recipe
    from cemobam_core.features import Fold
    from study.driver import StudyRun
    from study.engines import Engine
    from study.engines.execution import StudyData
    from study.output.publishing import Publisher

_log = logging.getLogger(__name__)

_SLOW = ("study.output.publishing", "statsmodels.stats.multitest", "matplotlib.backends.backend_pdf")
"""What a report needs and takes seconds to import."""

_ANSWER_S, _LEAST_TIMED_S = 16.0, 5.0
"""Seconds after which ``--dry-run`` is to have timed what it can, and that it times in any case."""

_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""What the system says of a place that cannot be written to; any other failure of its is not the user's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, as ``run_grid.py`` does; gives the exit status."""
    return _guarded(_study, grid_parser(), argv)


def cemobam(argv: Sequence[str] | None = None) -> int:
    """Run ``cemobam COMMAND``, as the package installs it; gives the exit status."""
    commands: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[], argparse.ArgumentParser]]] = {
        "grid": (_study, partial(grid_parser, "cemobam grid")),
        "features": (_features, features_parser),
        "figures": (_figures, figures_parser),
        "dashboard": (_dashboard, dashboard_parser),
        "compare": (_compare, compare_parser),
        "predict": (_predict, predict_parser),
    }
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in commands:
        command, parser = commands[arguments[0]]
        return _guarded(command, parser(), arguments[1:])
    usage = (
        "usage: cemobam COMMAND …\n\n"
        "  grid      the study, as run_grid.py\n"
        "  features  features of a raw corpus: IEMOCAP, ESD, or any by a manifest\n"
        "  figures   figures of a study, drawn from its ledger, all or one alone\n"
        "  dashboard the trials, figures and tables of a study in a browser, also while it runs\n"
        "  compare   several studies side by side\n"
        "  predict   label utterances with a model of a study, or with a checkpoint of the authors' code\n\n"
        "cemobam COMMAND --help says what a command takes; cemobam --version prints the version."
    )
    if arguments == ["--version"]:
        versioned = argparse.ArgumentParser(prog="cemobam")
        add_version(versioned)
        versioned.parse_args(arguments)
    if arguments in (["-h"], ["--help"]):
        print(usage)
        return 0
    said = (
        f"unknown command {arguments[0]!r}{did_you_mean(arguments[:1], commands)}" if arguments else "no command given"
    )
    print(f"cemobam: error: {said}; choose from {', '.join(commands)} (see cemobam --help)", file=sys.stderr)
    return 2


def _guarded(
    command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8, a terminal no Unicode
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's polite kill is as good as Ctrl-C
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parser.parse_args(words)
        return command(recalled(parser, words, args) if getattr(args, "report_only", False) else args)
    except BrokenPipeError:  # whoever read our output has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, LedgerFailed, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _PLACES:
            raise
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _predict(args: argparse.Namespace) -> int:
    from study.output.predict import predict, predict_released

    options = {"--fusion": args.fusion, "--k-audio": args.k_audio, "--k-text": args.k_text}
    if args.model:
        if told := [name for name, value in {**options, "--dataset": args.dataset}.items() if value is not None]:
            raise InputError(f"{told[0]}: the model's own configuration says this; leave it out with --model")
        print(predict(args.model, args.features, to=args.to))
        return 0
    if missing := [name for name, value in options.items() if value is None]:
        raise InputError(f"{missing[0]} is needed with --released-checkpoint: the file does not say it")
    class_names = CORPORA[args.dataset].class_names if args.dataset else None
    print(
        predict_released(
            args.released_checkpoint,
            args.features,
            pair=Pair(args.k_audio, args.k_text),
            fusion=args.fusion,
            class_names=class_names,
            to=args.to,
        )
    )
    return 0


def _study(args: argparse.Namespace) -> int:
    request = Request.of(args)
    if args.dry_run:
        print(f"planning the study {request.name} …", flush=True)
    if args.engine == "local" and not args.report_only:
        from study.engines.server import start_server

        start_server()  # first of all: it takes longer than what follows
    import torch

    from cemobam_core.corpora.blanks import blanks
    from study.engines.execution import check_k

    if args.dry_run:
        torch.set_num_threads(1)  # there is little to compute here, and on a busy machine threads wait for one another
    if args.keep_models and (args.report_only or args.dry_run):
        raise InputError("--keep-models: models are kept by running; leave out --report-only and --dry-run")
    if args.report_only:
        _write_report(request, _recorded(request))
        return 0
    devices = _devices(args)
    raw = data.raw_corpus(args)
    if raw is None:
        folds = data.folds(args, request.corpus)
    else:
        from cemobam_core.corpora.splits import load_folds
        from cemobam_core.encoders.extract import made_before

        recipe = data.recipe(args, raw)
        store = args.results / request.corpus.name / "features" / recipe.signature
        if made_before(recipe, store) is None:
            assigned = _refuse_before_features(request, recipe)
            if args.dry_run:
                return _dry_run_before_features(request, recipe, assigned)
            _refuse_unwritable(request)
        data.make(args, recipe, store)
        folds = load_folds(store)
    facts = request.facts(folds)
    check_k(folds, request.k_max)
    for line in blanks(*folds):
        print(f"warning: {line}", file=sys.stderr)
    if args.dry_run:
        return _dry_run(request, folds, facts, devices)
    _refuse_unwritable(request)
    with _alone(request), logged(request.results / "logs", verbose=args.verbose) as log:
        return _run(request, folds, facts, devices, log)


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    """SQLite is for one run at a time; the other storages are for several."""
    if not request.storage.startswith("sqlite"):
        yield
        return
    lock = (request.database or request.results / "study").with_suffix(".lock")
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"{lock}: another run is writing to this ledger; wait for it, give this one another --name, or share the "
            "work: --storage journal:///PATH or postgresql://… lets several runs at one study"
        ) from None


def _refuse_unwritable(request: Request) -> None:
    """Better to learn now than after hours that nothing can be kept."""
    for folder in (request.results, request.plots):
        with written_atomically(folder / "probe"):
            pass
        (folder / "probe").unlink()


def _run(request: Request, folds: tuple[Fold, ...], facts: StudyFacts, devices: Sequence[str], log: Path) -> int:
    from study.driver import StudyRun
    from study.engines.execution import StudyData, versions

    run = StudyRun(request.plan(), request.ledger(facts), facts)
    request.check_pair(run)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run", flush=True)
    about = {"command": as_typed(request.args), "ledger": request.storage, "devices": devices, **versions()}
    _log.info("%d trials, %d done, %d to run", asked, done, asked - done, extra=about)
    if devices[0] != "cpu" and request.args.engine == "local":
        from cemobam_core import fast

        fast.stacks(devices[0], 1)  # says so, if the fast pass does not apply on this machine's GPUs
    keep = request.args.keep_models
    if keep:
        request.check_room(run, folds)
    run.ledger.keep_options(as_asked(request.args))
    if done < asked:
        keeping = request.keeping(facts) if keep == "all" else None
        prepared = StudyData.prepare(folds, request.k_max, keeping=keeping)
        print(f"watch it in a browser: {dashboard_as_typed(request.args)}", flush=True)
        # Figures and statistics are slow to import: while the first trials run, there is time.
        threading.Thread(target=lambda: [import_module(name) for name in _SLOW], daemon=True).start()

        @cache
        def publisher() -> Publisher:
            from study.output.publishing import Publisher

            return Publisher(run, name=request.name, models=request.models, again=as_typed(request.args))

        def on_outcome(trial: Trial, outcome: Outcome) -> None:
            progress.on_outcome(trial, outcome)
            publisher().on_outcome()

        with _engine(request.args, prepared, devices) as engine, Progress(run) as progress:
            run.run(engine, on_outcome, log=str(log))
    else:
        run.share()  # a kill may have come between a trial and its copy
    kept = _keep_models(request, run, folds, devices) if keep else True
    _write_report(request, run)
    print(f"\nbrowse every trial:\n  {dashboard_as_typed(request.args)}")
    print(f"\nlog of this run:\n  {log}")
    asked, done = run.counts()
    _log.info("ended: %d of %d trials done", done, asked)
    return 0 if done == asked and kept else 1


def _dry_run(request: Request, folds: tuple[Fold, ...], facts: StudyFacts, devices: Sequence[str]) -> int:
    from study.driver import StudyRun
    from study.engines.estimate import parts, time_trials
    from study.engines.execution import StudyData, at_once

    run = StudyRun(request.plan(), request.ledger(facts, new="sqlite:///:memory:"), facts)
    request.check_pair(run)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run")
    _say_plan(request, {name: len(features) for name, features in folds[0].splits.items()}, run.pair())
    if asked == done:
        print("  time        none: every trial is done")
        return 0
    print("  time        is being measured, in about 15 s …", flush=True)
    # More workers than cores or trials bring nothing; a GPU's share is the user's word.
    gpu, here = devices[0] != "cpu", devices[0] == "cpu" and not request.args.ray_address
    side_by_side = max(1, min(len(devices), asked - done, _cores() if here else len(devices)))
    timed = parts(folds[0], request.k_max)
    with _engine(request.args, StudyData.prepare(timed, request.k_max), devices[:side_by_side]) as engine:
        one = time_trials(
            request.design,
            folds[0],
            timed,
            engine,
            side_by_side=side_by_side * at_once(devices[0]),
            budget=max(_LEAST_TIMED_S, _ANSWER_S - (time.time() - psutil.Process().create_time())),
            gpu=gpu,
        )
    rounds = (asked - done) / side_by_side
    whole, low, high = (_duration(seconds * rounds) for seconds in (one.seconds, one.low, one.high))
    print(
        f"  time        about {whole}, between {low} and {high}: {_seconds(one.seconds)} s a trial, "
        f"{side_by_side} side by side"
    )
    if one.timed_on == one.of:
        print(f"              (epochs timed on the train split, {one.of} utterances, on {devices[0]})")
    else:
        print(
            f"              (extrapolated: epochs timed on {one.timed_on} of {one.of} utterances of the train split, "
            f"on {devices[0]})"
        )
    return 0


def _refuse_before_features(request: Request, recipe: Recipe) -> tuple[Assignment, ...]:
    """What would be refused after hours of making features is refused before; gives who goes where."""
    from cemobam_core.corpora.splits import split_utterances
    from study.driver import StudyRun
    from study.engines.execution import check_k

    settings = recipe.settings
    folds = split_utterances(recipe.corpus, settings.protocol, settings.split_seed)
    request.folds = len(folds)
    check_k(folds, request.k_max)
    ledger = request.ledger(new="sqlite:///:memory:")
    facts = ledger.facts() or StudyFacts(dataset="", title="", fingerprint="", folds=len(folds), settings={})
    if facts.recipe not in {"", recipe.signature}:
        raise InputError(
            f"the ledger's study {request.name!r} was made from other features (signature {facts.recipe}, now "
            f"{recipe.signature}); give these another --name or other --results"
        )
    request.check_pair(StudyRun(request.plan(), ledger, facts))
    return folds


def _dry_run_before_features(request: Request, recipe: Recipe, folds: Sequence[Assignment]) -> int:
    """The plan of a study whose features are still to be made."""
    from cemobam_core.corpora.leaks import leaks

    raw = recipe.corpus
    design = request.design
    asked = sum(len(design.trials(block, Pair(design.k_audio[0], design.k_text[0]))) for block in request.blocks)
    print(
        f"{raw.title}: {asked} trials at most (blocks share some); the features are made first", *raw.notes, sep="\n  "
    )
    _say_plan(request, {name: len(utterances) for name, utterances in folds[0].splits.items()}, request.at)
    for modality, layers in zip(("audio", "text"), recipe.tuned, strict=True):
        tuned = f"the upper {layers} layers tuned" if layers else "as it comes"
        print(f"  {modality:<11} {getattr(recipe, modality).name}, {tuned}")
    print(*(f"  leaks       {leak}" for leak in leaks(*folds)), sep="\n")
    print("  time        known when the features are made: run without --dry-run, or cemobam features")
    return 0


def _say_plan(request: Request, sizes: Mapping[str, int], pair: Pair | None) -> None:
    design = request.design
    folds = f", {request.folds} folds" if request.folds > 1 else ""
    print(f"  features    {', '.join(f'{name} {n}' for name, n in sizes.items())} utterances{folds}")
    for block in request.blocks:
        trials = design.trials(block, pair or Pair(design.k_audio[0], design.k_text[0]))
        at = "" if block == "grid" else f" at K {pair}" if pair else " at the K pair that the grid chooses"
        print(f"  {block:<11} {len(trials)} trials{at}")
    settings = ", ".join(f"{name} {value}" for name, value in design.settings().items())
    print(textwrap.fill(settings, 100, initial_indent="  settings    ", subsequent_indent=" " * 14), flush=True)


def _keep_models(request: Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str]) -> bool:
    """Train again what is to be kept and is not: on one CPU the weights are those that the ledger's figures are of.

    Returns:
        Whether all of it is kept.
    """
    from tqdm import tqdm

    from study.engines.execution import StudyData

    keeping = request.keeping(run.facts)
    known = run.known(request.wanted(run))
    missing = [trial for trial, outcome in known.items() if outcome.status == "done" and not keeping.has(trial)]
    if missing:
        prepared = StudyData.prepare(folds, request.k_max, keeping=keeping)
        with (
            _engine(request.args, prepared, devices) as engine,
            tqdm(total=len(missing), unit="model", desc="keeping") as bar,
        ):
            for trial, outcome in engine.run(missing):
                bar.update()
                if outcome.status == "failed":
                    bar.write(f"not kept: {described(trial)}: {outcome.reason}", file=sys.stderr)
                elif outcome.metrics != known[trial].metrics:
                    bar.write(
                        f"{described(trial)}: trained again for its weights, and not the same to the last bit as in "
                        "the ledger (another device, or other versions?); config.json has the figures of these weights",
                        file=sys.stderr,
                    )
    kept = [trial for trial in known if keeping.has(trial)]
    complete = all(keeping.has(trial) for trial, outcome in known.items() if outcome.status == "done")
    if kept:
        print(f"\n{len(kept)} models are kept, such as {keeping.place(kept[0])}")
    else:
        print("\nno model is kept: no trial of the chosen configuration is done")
    return complete


def _figures(args: argparse.Namespace) -> int:
    from study.findings.evidence import Evidence
    from study.output.aside import figures_folder
    from study.output.figures import DRAWINGS, FORMS, save

    request = Request.of(args)
    evidence = Evidence.of(_recorded(request), name=request.name, models=request.models)
    plots = figures_folder(evidence.about, request.results, request.plots)
    written: list[Path] = []
    for name in args.only or DRAWINGS:
        figure = DRAWINGS[name].draw(evidence)
        if not isinstance(figure, str):
            written += save(figure, plots / DRAWINGS[name].file)
        elif args.only:
            raise InputError(f"--only {name}: {figure}")
        else:
            print(f"{name}: {figure}")
            for form in FORMS:  # of an earlier command: it would be of other trials
                (plots / f"{DRAWINGS[name].file}.{form}").unlink(missing_ok=True)
    print("written:", *_by_folder(written), sep="\n  ")
    return 0


def _dashboard(args: argparse.Namespace) -> int:
    from study.output.dashboard import serve

    # A storage is shown with all that it has: nothing need be chosen in one that is given.
    name = args.name or args.dataset or (None if args.storage else only_name(args))
    storage = storage_of(args, name)
    if (file := ledger_file(storage)) and not file.exists():
        raise InputError(
            f"{file}: no ledger there yet; run the study first (python run_grid.py …), or say where it is kept with "
            "--dataset, --name, --results or --storage, as it was run"
        )
    names = names_in(storage)
    if not names or name not in {None, *names}:
        there = f"it has {', '.join(names)}" if names else "it has none yet: run the study first"
        raise InputError(f"the ledger {masked(storage)} has no study{f' {name!r}' if name else ''}; {there}")
    serve(Ledger(storage, name="").storage, host=args.host, port=args.port)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from study.findings.results import load_results
    from study.output.compare import compare
    from study.output.tables import TABLE_FORMS

    folders: list[Path] = list(dict.fromkeys(folder.resolve() for folder in args.results))
    if len(folders) < 2:
        raise InputError("give the folders of at least two different studies, as results/iemocap results/esd")
    studies = [load_results(folder) for folder in folders]
    names = [results.about.name for results in studies]
    labels = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, start=1)]
    tables = compare(dict(zip(labels, studies, strict=True)))
    print("\n\n".join(table.markdown().rstrip() for table in tables))
    if args.to:
        written = [path for table in tables for path in table.write(args.to)]
        for path in {old for form in TABLE_FORMS for old in args.to.glob(f"compare*.{form}")} - set(written):
            path.unlink()  # of an earlier command
        print("\nwritten:", *_by_folder(written), sep="\n  ")
    return 0


def _recorded(request: Request) -> StudyRun:
    """What the ledger holds of the trials asked for."""
    from study.driver import StudyRun

    if request.database and not request.database.exists():
        raise InputError(f"{request.database}: no ledger there; run the study first, without --report-only")
    ledger = request.ledger()
    facts = ledger.facts()
    if facts is None:
        raise InputError(
            f"the ledger {masked(request.storage)} has no study {ledger.study_name('grid')!r}; give the --name and the "
            "settings (--epochs, --hidden-dim, --lr …) that it was run with"
        )
    if facts.dataset != request.corpus.name:
        raise InputError(f"the ledger's trials are of the data set {facts.dataset}; give --dataset {facts.dataset}")
    request.folds = facts.folds
    run = StudyRun(request.plan(), ledger, facts)
    if not run.knows_any():
        raise InputError(
            f"the ledger {masked(request.storage)} has none of the trials asked for; give the settings (--k-audio, "
            "--k-text, --seeds, --fusion …) that it was run with"
        )
    return run


def _write_report(request: Request, run: StudyRun) -> None:
    from study.findings.evidence import Evidence
    from study.output.aside import drop_covered, set_aside
    from study.output.publishing import publish_report
    from study.output.report import make_report

    gc.freeze()  # libraries collect garbage now and then, and what was loaded so far is none
    evidence = Evidence.of(run, name=request.name, models=request.models)
    report = make_report(evidence, again=as_typed(request.args))
    moved = set_aside(evidence.about, request.results, request.plots)
    written = report.write(request.results, request.plots)
    drop_covered(evidence.about, request.results, request.plots)
    publish_report(run, report)
    print(f"\nopen {request.results / 'report.html'}")
    if moved:
        print(moved)
    print("\n" + "\n\n".join(report.summary))
    print("\nwritten:", *_by_folder(written), sep="\n  ")


def _features(args: argparse.Namespace) -> int:
    raw = data.raw_corpus(args)
    if raw is None:
        corpus = CORPORA.get(args.dataset)
        about = f" ({corpus.about})" if corpus else ""
        raise InputError(
            f"--dataset {args.dataset}: no corpus given; give --data-root DIR, the corpus as it was unpacked{about}, "
            "or --manifest FILE, any corpus as a CSV or JSONL"
        )
    data.make(args, data.recipe(args, raw), args.out)
    return 0


def _devices(args: argparse.Namespace) -> list[str]:
    """One entry for each trial side by side."""
    import torch

    if args.ray_address:
        if args.engine != "ray":
            raise InputError(f"--ray-address {args.ray_address}: has no effect without --engine ray")
        from study.engines.ray import cluster_devices

        devices = cluster_devices(
            args.ray_address, device=args.device, workers=args.workers, gpus_per_trial=args.gpus_per_trial
        )
    elif data.device(args) == "cpu":
        devices = ["cpu"] * (args.workers or _cores())
    else:
        gpus = torch.cuda.device_count()
        workers = args.workers or max(1, int(gpus / args.gpus_per_trial))
        devices = [f"cuda:{i % gpus}" for i in range(workers)]
    if devices[0] == "cpu" and args.precision == "tf32":
        raise InputError("--precision tf32: a mode of CUDA devices; on a CPU use fp32 or bf16")
    return devices


def _engine(args: argparse.Namespace, prepared: StudyData, devices: Sequence[str]) -> Engine:
    """What executes trials, as ``--engine`` says."""
    if args.engine == "ray":
        from study.engines.ray import RayEngine

        return RayEngine(
            prepared,
            devices,
            gpus_per_trial=args.gpus_per_trial,
            address=args.ray_address,
            trial_timeout=args.trial_timeout,
        )
    from study.engines.local import LocalEngine

    return LocalEngine(prepared, devices, trial_timeout=args.trial_timeout)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _one_line(error: InputError | LedgerFailed | OSError) -> str:
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return f"{path}{error.strerror}; make room or give a place that can be written to (what is recorded is kept)"
    if isinstance(error, LedgerFailed):
        return f"the ledger cannot be used: {error}; what was recorded before is kept, and the same command goes on"
    return " ".join(str(error).split())


def _by_folder(paths: Sequence[Path]) -> list[str]:
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path.name)
    return [f"{folder}/: {', '.join(names)}" for folder, names in folders.items()]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g}" if seconds < 100 else f"{seconds:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 600 else f"{round(minutes / 60)} h"

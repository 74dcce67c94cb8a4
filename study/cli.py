"""The commands: what a user types, turned into a plan and run."""

from __future__ import annotations

import argparse
import errno
import gc
import io
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from filelock import FileLock, Timeout

from cemobam_core.config import PROFILES
from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study import data
from study.arguments import (
    as_typed,
    compare_parser,
    dashboard_as_typed,
    dashboard_parser,
    features_parser,
    figures_parser,
    grid_parser,
    predict_parser,
)
from study.design import Design, Pair, Trial, distinct, largest_k, readings
from study.ledger import Ledger, Outcome, StudyFacts
from study.logs import logged
from study.published import paper_pair
from study.storages import LedgerFailed, ledger_file, masked

# What imports torch, pandas or matplotlib is imported where it is used: --help and a typing error answer at once.
if TYPE_CHECKING:
    from cemobam_core.corpora.splits import Assignment
    from cemobam_core.encoders.settings import Recipe
    from cemobam_core.features import Fold
    from study.driver import Plan, StudyRun
    from study.engines import Engine
    from study.execution import StudyData
    from study.models import Keeping
    from study.publishing import Publisher

_log = logging.getLogger(__name__)

_SLOW = ("study.publishing", "statsmodels.stats.multitest", "matplotlib.backends.backend_pdf")
"""What a report needs and takes seconds to import."""

_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""What the system says of a place that cannot be written to; any other failure of its is not the user's."""


def main(argv: Sequence[str] | None = None) -> int:
    """``run_grid.py``: the study; gives the exit status."""
    return _guarded(_study, grid_parser(), argv)


def cemobam(argv: Sequence[str] | None = None) -> int:
    """``cemobam COMMAND``, as the package installs it; gives the exit status."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "grid": main,
        "features": lambda rest: _guarded(_features, features_parser(), rest),
        "figures": lambda rest: _guarded(_figures, figures_parser(), rest),
        "dashboard": lambda rest: _guarded(_dashboard, dashboard_parser(), rest),
        "compare": lambda rest: _guarded(_compare, compare_parser(), rest),
        "predict": lambda rest: _guarded(_predict, predict_parser(), rest),
    }
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    usage = (
        "usage: cemobam COMMAND …\n\n"
        "  grid      the study, as run_grid.py\n"
        "  features  features of a raw corpus: IEMOCAP, ESD, or any by a manifest\n"
        "  figures   figures of a study, drawn from its ledger, all or one alone\n"
        "  dashboard the trials, figures and tables of a study in a browser, also while it runs\n"
        "  compare   several studies side by side\n"
        "  predict   label utterances with a model of a study, or with a checkpoint of the authors' code\n\n"
        "cemobam COMMAND --help says what a command takes."
    )
    if arguments in (["-h"], ["--help"]):
        print(usage)
        return 0
    said = f"unknown command {arguments[0]!r}" if arguments else "no command given"
    print(f"cemobam: error: {said}; choose from {', '.join(commands)} (see cemobam --help)", file=sys.stderr)
    return 2


def _guarded(
    command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8, a terminal no Unicode
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's polite kill is as good as Ctrl-C
    try:
        return command(parser.parse_args(argv))
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
    from study.predict import predict, predict_released

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
    request = _Request.of(args)
    if args.engine == "local" and not args.report_only:
        from study.engines.server import start_server

        start_server()  # first of all: it takes longer than what follows
    from study.execution import check_k

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
    if args.dry_run:
        return _dry_run(request, folds, facts, devices)
    _refuse_unwritable(request)
    with _alone(request), logged(request.results / "logs", verbose=args.verbose) as log:
        return _run(request, folds, facts, devices, log)


@contextmanager
def _alone(request: _Request) -> Iterator[None]:
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


def _refuse_unwritable(request: _Request) -> None:
    """Better to learn now than after hours that nothing can be kept."""
    for folder in (request.results, request.plots):
        with written_atomically(folder / "probe"):
            pass
        (folder / "probe").unlink()


def _run(request: _Request, folds: tuple[Fold, ...], facts: StudyFacts, devices: Sequence[str], log: Path) -> int:
    from study.driver import StudyRun
    from study.execution import StudyData, versions

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
    if done < asked:
        keeping = request.keeping(facts) if keep == "all" else None
        prepared = StudyData.prepare(folds, request.k_max, keeping=keeping)
        print(f"watch it in a browser: {dashboard_as_typed(request.args)}", flush=True)
        # Figures and statistics are slow to import: while the first trials run, there is time.
        threading.Thread(target=lambda: [import_module(name) for name in _SLOW], daemon=True).start()

        @cache
        def publisher() -> Publisher:
            from study.publishing import Publisher

            return Publisher(run, name=request.name, models=request.models, again=as_typed(request.args))

        def on_outcome(trial: Trial, outcome: Outcome) -> None:
            progress.on_outcome(trial, outcome)
            publisher().on_outcome()

        with _engine(request.args, prepared, devices) as engine, _Progress(run) as progress:
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


def _dry_run(request: _Request, folds: tuple[Fold, ...], facts: StudyFacts, devices: Sequence[str]) -> int:
    from study.driver import StudyRun
    from study.estimate import seconds_per_trial
    from study.execution import StudyData, at_once

    run = StudyRun(request.plan(), request.ledger(facts, new="sqlite:///:memory:"), facts)
    request.check_pair(run)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run")
    _say_plan(request, {name: len(features) for name, features in folds[0].splits.items()}, run.pair())
    # More workers than cores or trials bring nothing; a GPU's share is the user's word.
    here = devices[0] == "cpu" and not request.args.ray_address
    side_by_side = max(1, min(len(devices), asked - done, _cores() if here else len(devices)))
    with _engine(request.args, StudyData.prepare(folds, request.k_max), devices[:side_by_side]) as engine:
        seconds = seconds_per_trial(request.design, engine, side_by_side * at_once(devices[0]))
    print(
        f"  time        about {_duration(seconds * (asked - done) / side_by_side)}: {seconds:.2g} s a trial "
        f"(a few epochs timed on {devices[0]}), {side_by_side} side by side"
    )
    return 0


def _refuse_before_features(request: _Request, recipe: Recipe) -> tuple[Assignment, ...]:
    """What would be refused after hours of making features is refused before; gives who goes where."""
    from cemobam_core.corpora.splits import split_utterances
    from study.driver import StudyRun
    from study.execution import check_k

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


def _dry_run_before_features(request: _Request, recipe: Recipe, folds: Sequence[Assignment]) -> int:
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


def _say_plan(request: _Request, sizes: Mapping[str, int], pair: Pair | None) -> None:
    design = request.design
    folds = f", {request.folds} folds" if request.folds > 1 else ""
    print(f"  features    {', '.join(f'{name} {n}' for name, n in sizes.items())} utterances{folds}")
    for block in request.blocks:
        trials = design.trials(block, pair or Pair(design.k_audio[0], design.k_text[0]))
        at = "" if block == "grid" else f" at K {pair}" if pair else " at the K pair that the grid chooses"
        print(f"  {block:<11} {len(trials)} trials{at}")
    settings = ", ".join(f"{name} {value}" for name, value in design.settings().items())
    print(textwrap.fill(settings, 100, initial_indent="  settings    ", subsequent_indent=" " * 14), flush=True)


def _keep_models(request: _Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str]) -> bool:
    """Train again what is to be kept and is not: on one CPU the weights are those that the ledger's figures are of.

    Returns:
        Whether all of it is kept.
    """
    from tqdm import tqdm

    from study.execution import StudyData

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
                    bar.write(f"not kept: {_described(trial)}: {outcome.reason}", file=sys.stderr)
                elif outcome.metrics != known[trial].metrics:
                    bar.write(
                        f"{_described(trial)}: trained again for its weights, and not the same to the last bit as in "
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
    from study.evidence import Evidence
    from study.figures import DRAWINGS, FORMS, save

    request = _Request.of(args)
    evidence = Evidence.of(_recorded(request), name=request.name, models=request.models)
    written: list[Path] = []
    for name in args.only or DRAWINGS:
        figure = DRAWINGS[name].draw(evidence)
        if not isinstance(figure, str):
            written += save(figure, request.plots / DRAWINGS[name].file)
        elif args.only:
            raise InputError(f"--only {name}: {figure}")
        else:
            print(f"{name}: {figure}")
            for form in FORMS:  # of an earlier command: it would be of other trials
                (request.plots / f"{DRAWINGS[name].file}.{form}").unlink(missing_ok=True)
    print("written:", *_by_folder(written), sep="\n  ")
    return 0


def _dashboard(args: argparse.Namespace) -> int:
    from study.dashboard import serve

    name = args.name or args.dataset or "demo"
    storage = args.storage or f"sqlite:///{args.results / name / 'study.db'}"
    if (file := ledger_file(storage)) and not file.exists():
        raise InputError(
            f"{file}: no ledger there yet; run the study first (python run_grid.py …), or say where it is kept with "
            "--dataset, --name, --results or --storage, as it was run"
        )
    ledger = Ledger(storage, name=name)
    names = sorted({study.study_name.partition("/")[0] for study in ledger.storage.get_all_studies()})
    if name not in names:
        there = f"it has {', '.join(names)}" if names else "it has none yet: run the study first"
        raise InputError(f"the ledger {masked(storage)} has no study {name!r}; {there}")
    serve(ledger.storage, host=args.host, port=args.port)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from study.compare import compare
    from study.results import load_results
    from study.tables import TABLE_FORMS

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


def _recorded(request: _Request) -> StudyRun:
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


def _write_report(request: _Request, run: StudyRun) -> None:
    from study.evidence import Evidence
    from study.publishing import publish_report
    from study.report import make_report

    gc.freeze()  # libraries collect garbage now and then, and what was loaded so far is none
    evidence = Evidence.of(run, name=request.name, models=request.models)
    report = make_report(evidence, again=as_typed(request.args))
    written = report.write(request.results, request.plots)
    publish_report(run, report)
    print("\n" + "\n\n".join(report.summary))
    print("\nwritten:", *_by_folder(written), sep="\n  ")


@dataclass
class _Request:
    """The arguments, resolved against what is known of the data set."""

    args: argparse.Namespace
    corpus: Corpus
    name: str
    settings: dict[str, Any]
    tag: str
    at: Pair | None
    blocks: tuple[str, ...]
    folds: int = 1

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Request:
        dataset = args.dataset or "demo"
        for option in ("features", "data_root", "manifest"):
            if args.dataset is None and getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag} without --dataset: say what it is (iemocap, esd, or a name of yours)")
        corpus = CORPORA.get(dataset) or Corpus(name=dataset, title=dataset, class_names=(), about="")
        given = {name: getattr(args, name) for name in ("epochs", "hidden_dim", "lr", "precision")}
        chosen = {name: value for name, value in given.items() if value is not None}
        default, wanted = readings(**corpus.settings)["paper"], readings(**{**corpus.settings, **chosen})["paper"]
        differing = {
            name: value
            for name, value in chosen.items()
            if getattr(wanted.training, name, None) != getattr(default.training, name, None)
            or getattr(wanted.model, name, None) != getattr(default.model, name, None)
        }
        if args.profile != "paper":
            differing = {"profile": args.profile, **differing}
        return cls(
            args=args,
            corpus=corpus,
            name=args.name or dataset,
            settings={**corpus.settings, **chosen, "fusion": args.fusion},
            tag=",".join(f"{name}={value}" for name, value in differing.items()),
            at=_pair(args.at, dataset),
            blocks=args.blocks,
        )

    @property
    def design(self) -> Design:
        args = self.args
        return Design(
            readings=readings(**self.settings),
            profile=args.profile,
            k_audio=args.k_audio,
            k_text=args.k_text,
            seeds=args.seeds,
            folds=self.folds,
        )

    def plan(self) -> Plan:
        from study.driver import Plan

        profile = PROFILES[self.args.profile]
        return Plan(
            design=self.design,
            blocks=self.blocks,
            at=self.at,
            select_by=self.args.select_by or profile.select_by,
            select_on=profile.select_on,
        )

    def facts(self, folds: tuple[Fold, ...]) -> StudyFacts:
        from cemobam_core.features import fingerprint
        from study.execution import versions

        self.folds = len(folds)
        return StudyFacts(
            dataset=self.corpus.name,
            title=self.corpus.title,
            fingerprint=fingerprint(folds),
            folds=len(folds),
            settings=self.design.settings(),
            class_names=folds[0].train.class_names,
            made_with=versions(),
            recipe=folds[0].train.provenance.get("signature", ""),
        )

    @property
    def results(self) -> Path:
        folder: Path = self.args.results / self.name
        return folder

    @property
    def plots(self) -> Path:
        folder: Path = self.args.plots / self.name
        return folder

    @property
    def models(self) -> Path:
        return self.results / "models"

    def keeping(self, facts: StudyFacts) -> Keeping:
        from study.models import Keeping

        return Keeping(folder=self.models, dataset=facts.dataset, fingerprint=facts.fingerprint)

    def wanted(self, run: StudyRun) -> list[Trial]:
        """The trials whose models are to be kept: every one, or those of the chosen configuration."""
        if self.args.keep_models == "all":
            return distinct(trial for block in self.blocks for trial in run.trials(block))
        pair = run.pair()
        at_pair = self.design.trials("ablation", pair) if pair else []
        return [trial for trial in at_pair if trial.configuration.model.modules == "full"]

    def check_room(self, run: StudyRun, folds: tuple[Fold, ...]) -> None:
        """See that the disk takes the models that are to be kept."""
        from study.models import size_in_bytes

        design, train = self.design, folds[0].train
        count = run.counts()[0] if self.args.keep_models == "all" else len(design.seeds) * design.folds
        config = replace(
            design.base.model,
            num_classes=train.num_classes,
            audio_dim=train.audio.shape[-1],
            text_dim=train.text.shape[-1],
        )
        needed = count * size_in_bytes(config)
        free = shutil.disk_usage(self.results).free
        if needed > free:
            raise InputError(
                f"--keep-models {self.args.keep_models}: {count} models take {needed / 1e9:.1f} GB and {self.results} "
                f"has {free / 1e9:.1f} GB left; make room, give other --results, or keep fewer"
            )

    @property
    def storage(self) -> str:
        return self.args.storage or f"sqlite:///{self.results / 'study.db'}"

    @property
    def database(self) -> Path | None:
        """The file of a ledger that is one."""
        return ledger_file(self.storage)

    @property
    def k_max(self) -> int:
        return largest_k(self.design, [self.at] if self.at else [])

    def ledger(self, facts: StudyFacts | None = None, *, new: str | None = None) -> Ledger:
        """The ledger, checked against the features; ``new`` is the storage to use if there is no file of it yet."""
        missing = self.database is not None and not self.database.exists()
        ledger = Ledger(new if new and missing else self.storage, name=self.name, tag=self.tag)
        if facts:
            ledger.open(facts)
        return ledger

    def check_pair(self, run: StudyRun) -> None:
        """Blocks after the grid need a pair: from the grid, run before or now, or from the user."""
        waiting = [block for block in self.blocks if block != "grid"]
        if waiting and "grid" not in self.blocks and run.pair() is None:
            raise InputError(
                f"--blocks {','.join(self.blocks)}: {waiting[0]} needs a K pair, and the grid that would choose it is "
                "not in the ledger; add grid to --blocks, or give the pair with --at 8,7"
            )


class _Progress:
    """A progress bar: trials done, time left, the best pair so far among those with the most seeds done."""

    def __init__(self, run: StudyRun) -> None:
        from tqdm import tqdm

        asked, done = run.counts()
        self._bar = tqdm(
            total=asked,
            initial=done,
            unit="trial",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file gets a line now and then
            smoothing=0.05,
        )
        self._base = run.plan.design.base
        self._metric = f"{run.plan.select_on}_{run.plan.select_by}"
        self._label = f"{run.plan.select_on} {run.plan.select_by.upper().replace('WF1', 'w-F1')}"
        self._scores: dict[Pair, tuple[int, float]] = {}  # how many seeds and folds, and their sum
        self._failed = 0
        for trial, outcome in run.known(run.trials("grid")).items():
            self._count(trial, outcome)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.status == "failed":
            self._failed += 1
            self._bar.write(f"failed: {_described(trial)}: {outcome.reason}", file=sys.stderr)
        self._count(trial, outcome)
        words = []
        if self._scores:
            best, (n, total) = max(self._scores.items(), key=lambda item: item[1])
            words.append(f"best {self._label} {100 * total / n:.1f} at K {best}")
        if self._failed:
            words.append(f"{self._failed} failed")
        self._bar.set_postfix_str(", ".join(words), refresh=False)
        self._bar.update()

    def _count(self, trial: Trial, outcome: Outcome) -> None:
        configuration = trial.configuration
        if outcome.status == "done" and replace(configuration, pair=self._base.pair) == self._base:
            n, total = self._scores.get(configuration.pair, (0, 0.0))
            self._scores[configuration.pair] = (n + 1, total + outcome.metrics[self._metric])


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


def _pair(text: str | None, dataset: str) -> Pair | None:
    if text is None:
        return None
    if text == "paper":
        if pair := paper_pair(dataset):
            return pair
        raise InputError(f"--at paper: the paper reports no best K pair for {dataset}; give one as --at 8,7")
    match = re.fullmatch(r"([1-9]\d{0,5}),([1-9]\d{0,5})", text)
    if not match:
        raise InputError(f"--at {text}: write K_audio,K_text, each at least 1, as 8,7; or paper")
    return Pair(*map(int, match.groups()))


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


def _described(trial: Trial) -> str:
    return ", ".join(f"{name} {value}" for name, value in trial.parameters.items())


def _by_folder(paths: Sequence[Path]) -> list[str]:
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path.name)
    return [f"{folder}/: {', '.join(names)}" for folder, names in folders.items()]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

"""The command line: what a user types, checked, and turned into a plan."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from filelock import FileLock, Timeout

from cemobam_core.config import FUSIONS, PRECISIONS, PROFILES
from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.design import BLOCKS, Configuration, Design, Pair, Trial, base_configuration, largest_k
from study.ledger import Ledger, LedgerFailed, Outcome, StudyFacts
from study.published import paper_pair

# What imports torch, pandas or matplotlib is imported where it is used: --help and a typing error answer at once.
if TYPE_CHECKING:
    from cemobam_core.features import Fold
    from study.driver import Plan, StudyRun
    from study.execution import StudyData

_EXAMPLES = """
examples:
  python run_grid.py
      The whole study on the embedded demo: synthetic features, minutes on a laptop.
  python run_grid.py --dataset iemocap --features DIR
      The paper's study on features made before: DIR holds train, val and test (.safetensors, or the authors' .pkl).
  python run_grid.py --dataset iemocap --features FILE --split-protocol random:80/10/10
      The same from one file, which the tool splits.
  python run_grid.py --dry-run --k-audio 1,4,8 --k-text 1:10 --seeds 3
      The plan alone: how many trials, how many are done, how long the rest will take.

Whatever stops a run, the same command goes on where it stopped. Exit status: 0 all trials done; 1 some failed (the
next run tries those again); 2 a mistake in what was given, told in one line; 130 interrupted.
"""

_LARGEST_SEED = 2**32 - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster's polite kill is as good as Ctrl-C
    try:
        return _main(_parser().parse_args(argv))
    except (InputError, LedgerFailed, OSError) as error:
        print(f"run_grid.py: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and the same command goes on from there", file=sys.stderr)
        return 130


def _main(args: argparse.Namespace) -> int:
    request = _Request.of(args)
    if args.report_only:
        return _report(request)
    folds = _folds(args, request.corpus)
    facts = request.facts(folds)
    if args.dry_run:
        return _dry_run(request, folds, facts)
    for folder in (request.results, request.plots):
        with written_atomically(folder / "probe"):  # better to learn now than after hours that nothing can be kept
            pass
        (folder / "probe").unlink()
    try:
        with FileLock(request.results / ".lock", timeout=0):
            return _run(request, folds, facts)
    except Timeout:
        raise InputError(
            f"{request.results}: another run is writing there; wait for it, or give this one another --name"
        ) from None


def _run(request: _Request, folds: tuple[Fold, ...], facts: StudyFacts) -> int:
    from study.driver import StudyRun
    from study.engines.local import LocalEngine

    run = StudyRun(request.plan(), request.ledger(facts), facts)
    request.check_pair(run)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run", flush=True)
    if done < asked:
        devices = _devices(request.args)
        data = request.data(folds)
        with _Progress(asked, done) as progress, LocalEngine(data, devices) as engine:
            run.run(engine, progress.on_outcome)
    else:
        run.share()  # a kill may have come between a trial and its copy
    _write_report(request, run)
    print(f"\nbrowse every trial:\n  optuna-dashboard {request.storage}")
    asked, done = run.counts()
    return 0 if done == asked else 1


def _dry_run(request: _Request, folds: tuple[Fold, ...], facts: StudyFacts) -> int:
    from study.driver import StudyRun
    from study.estimate import seconds_per_trial

    run = StudyRun(request.plan(), request.ledger(facts, new="sqlite:///:memory:"), facts)
    request.check_pair(run)
    asked, done = run.counts()
    design, splits = request.design, folds[0].splits
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run")
    sizes = ", ".join(f"{name} {len(features)}" for name, features in splits.items())
    print(f"  features    {sizes} utterances" + (f", {len(folds)} folds" if len(folds) > 1 else ""))
    for block in request.blocks:
        pair = run.pair()
        trials = design.trials(block, pair or Pair(design.k_audio[0], design.k_text[0]))
        at = "" if block == "grid" else f" at K {pair}" if pair else " at the K pair that validation chooses"
        print(f"  {block:<11} {len(trials)} trials{at}")
    settings = ", ".join(f"{name} {value}" for name, value in design.settings().items())
    print(textwrap.fill(settings, 100, initial_indent="  settings    ", subsequent_indent=" " * 14))
    devices = _devices(request.args)
    seconds = seconds_per_trial(design, request.data(folds), devices[0])
    print(
        f"  time        about {_duration(seconds * (asked - done) / len(devices))}: {seconds:.2g} s a trial "
        f"(a few epochs timed on {devices[0]}), {len(devices)} side by side"
    )
    return 0


def _report(request: _Request) -> int:
    from study.driver import StudyRun

    if request.args.storage is None and not request.database.exists():
        raise InputError(f"{request.database}: no ledger there; run the study first, without --report-only")
    ledger = request.ledger()
    facts = ledger.facts()
    if facts is None:
        raise InputError(
            f"the ledger {request.storage} has no study {ledger.study_name('grid')!r}; give the --name and the "
            "settings (--epochs, --hidden-dim, --lr …) that it was run with"
        )
    request.folds = facts.folds
    _write_report(request, StudyRun(request.plan(), ledger, facts))
    return 0


def _write_report(request: _Request, run: StudyRun) -> None:
    from study.report import make_report

    report = make_report(run)
    written = report.write(request.results, request.plots)
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
        if args.dataset is None and args.features is not None:
            raise InputError("--features without --dataset: say what they are (iemocap, esd, or a name of yours)")
        corpus = CORPORA.get(dataset) or Corpus(name=dataset, title=dataset, class_names=(), about="")
        given = {name: getattr(args, name) for name in ("epochs", "hidden_dim", "lr", "precision")}
        chosen = {name: value for name, value in given.items() if value is not None}
        profile = PROFILES[args.profile]
        default = base_configuration(PROFILES["paper"], **corpus.settings)
        wanted = base_configuration(profile, **{**corpus.settings, **chosen})
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
            base=base_configuration(PROFILES[args.profile], **self.settings),
            k_audio=args.k_audio,
            k_text=args.k_text,
            seeds=args.seeds,
            folds=self.folds,
        )

    def plan(self) -> Plan:
        from study.driver import Plan

        return Plan(design=self.design, blocks=self.blocks, at=self.at, select_by=self.args.select_by)

    def facts(self, folds: tuple[Fold, ...]) -> StudyFacts:
        from cemobam_core.features import fingerprint

        self.folds = len(folds)
        return StudyFacts(
            dataset=self.corpus.name,
            title=self.corpus.title,
            fingerprint=fingerprint(folds),
            folds=len(folds),
            settings=self.design.settings(),
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
    def database(self) -> Path:
        return self.results / "study.db"

    @property
    def storage(self) -> str:
        return self.args.storage or f"sqlite:///{self.database}"

    def ledger(self, facts: StudyFacts | None = None, *, new: str | None = None) -> Ledger:
        """The ledger, checked against the features; ``new`` is the storage to use if there is none yet."""
        missing = self.args.storage is None and not self.database.exists()
        ledger = Ledger(new if new and missing else self.storage, name=self.name, tag=self.tag)
        if facts:
            ledger.open(facts)
        return ledger

    def data(self, folds: tuple[Fold, ...]) -> StudyData:
        from study.execution import StudyData

        return StudyData.prepare(folds, largest_k(self.design, [self.at] if self.at else []))

    def check_pair(self, run: StudyRun) -> None:
        """Blocks after the grid need a pair: from the grid, run before or now, or from the user."""
        waiting = [block for block in self.blocks if block != "grid"]
        if waiting and "grid" not in self.blocks and run.pair() is None:
            raise InputError(
                f"--blocks {','.join(self.blocks)}: {waiting[0]} needs a K pair, and the grid that would choose it is "
                "not in the ledger; add grid to --blocks, or give the pair with --at 8,7"
            )


class _Progress:
    """A progress bar: trials done, time left, the best pair so far."""

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            initial=done,
            unit="trial",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file gets a line now and then
            smoothing=0.05,
        )
        self._scores: dict[Configuration, list[float]] = defaultdict(list)
        self._failed = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.status == "failed":
            self._failed += 1
            self._bar.write(f"failed: {_described(trial)}: {outcome.reason}", file=sys.stderr)
        else:
            self._scores[trial.configuration].append(outcome.metrics["val_wa"])
        if self._scores:
            means = {configuration: sum(scores) / len(scores) for configuration, scores in self._scores.items()}
            best = max(means, key=means.__getitem__)
            failed = f", {self._failed} failed" if self._failed else ""
            text = f"best val WA {100 * means[best]:.1f} at K {best.pair}{failed}"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()


def _folds(args: argparse.Namespace, corpus: Corpus) -> tuple[Fold, ...]:
    if corpus.name == "demo":
        for option in ("features", "split_protocol", "split_seed"):
            if getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag}: the demo brings its own features and split; name your data with --dataset")
        from cemobam_core.corpora.synthetic import demo_fold

        return (demo_fold(),)
    if args.features is None:
        what = f"{corpus.about}. " if corpus.about else ""
        known = "" if corpus.about else f" (known by name: {', '.join(CORPORA)})"
        raise InputError(
            f"--dataset {corpus.name}: no features given{known}. {what}Two ways to go on: --features DIR, a folder "
            "with train, val and test as .safetensors or as the .pkl files that the authors publish; or --features "
            "FILE, one such file, which the tool splits (--split-protocol). Making features from the raw corpus "
            "(--data-root) is not in this release; python run_grid.py alone runs the demo"
        )
    from cemobam_core.corpora.splits import load_folds

    return load_folds(
        args.features,
        corpus=corpus.name,
        class_names=corpus.class_names or None,
        protocol=args.split_protocol,
        split_seed=args.split_seed or 0,
    )


def _devices(args: argparse.Namespace) -> list[str]:
    """One entry a worker."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if args.device == "cuda" and not gpus:
        raise InputError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if args.device == "cpu" or not gpus:
        if args.precision == "tf32":
            raise InputError("--precision tf32: a mode of CUDA devices; on a CPU use fp32 or bf16")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return ["cpu"] * (args.workers or cores)
    workers = args.workers or max(1, int(gpus / args.gpus_per_trial))
    return [f"cuda:{i % gpus}" for i in range(workers)]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_grid.py",
        description="Rerun the CemoBAM study: the K grid (Fig. 2), the fusion strategies (Table I) and the ablation "
        "(Table II), five seeds each.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        metavar="NAME",
        type=_name,
        help="demo (default), iemocap, esd, or any name for features of yours",
    )
    data.add_argument(
        "--features",
        metavar="PATH",
        type=Path,
        help="a folder with train, val and test, or one file to split",
    )
    data.add_argument(
        "--split-protocol",
        metavar="P",
        help="for one file: random:80/10/10 (default; stratified), speaker or session",
    )
    data.add_argument("--split-seed", metavar="N", type=_seed, help="draws the split (default 0)")

    what = parser.add_argument_group("what is run")
    what.add_argument(
        "--blocks",
        metavar="A,B",
        type=_blocks,
        default=tuple(BLOCKS),
        help="any of grid, fusion, ablation (default: all)",
    )
    what.add_argument(
        "--k-audio",
        metavar="K",
        type=_whole_numbers,
        default=tuple(range(1, 11)),
        help="the grid's K_audio: 1:10 is 1 to 10 (default), or a list as 1,4,8",
    )
    what.add_argument(
        "--k-text",
        metavar="K",
        type=_whole_numbers,
        default=tuple(range(1, 11)),
        help="the grid's K_text, likewise",
    )
    what.add_argument(
        "--seeds",
        metavar="S",
        type=_seeds,
        default=tuple(range(5)),
        help="how many (default 5: seeds 0 to 4), or which: 0,1,7",
    )
    what.add_argument(
        "--at",
        metavar="A,T",
        help="the K pair for fusion and ablation: 8,7, or paper for the paper's best "
        "(default: the pair that validation chooses)",
    )
    what.add_argument(
        "--select-by",
        choices=("wa", "ua", "wf1"),
        default="wa",
        help="the validation metric that chooses the pair (default wa)",
    )

    method = parser.add_argument_group("the method (defaults: the profile's; the demo has a smaller model of its own)")
    method.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        default="paper",
        help="which reading of the method (default paper)",
    )
    method.add_argument("--fusion", choices=FUSIONS, default="min", help="in the grid and ablation (default min)")
    method.add_argument("--epochs", metavar="N", type=_at_least_one, help="100 in the paper's profile")
    method.add_argument("--hidden-dim", metavar="D", type=_at_least_one, help="512 in the paper's profile")
    method.add_argument("--lr", metavar="R", type=_positive, help="1e-4 in the paper's profile")
    method.add_argument("--precision", choices=PRECISIONS, help="of matrix products (default fp32)")

    machine = parser.add_argument_group("the machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where there is one"
    )
    machine.add_argument("--engine", choices=("local",), default="local", help="what executes trials")
    machine.add_argument(
        "--workers",
        metavar="N",
        type=_at_least_one,
        help="trials side by side, one thread each (default: the cores, or what the GPUs take)",
    )
    machine.add_argument(
        "--gpus-per-trial",
        metavar="F",
        type=_positive,
        default=0.25,
        help="the share of a GPU that a trial takes (default 0.25)",
    )

    where = parser.add_argument_group("where it is kept")
    where.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="tables and the ledger, under DIR/NAME (default results)",
    )
    where.add_argument(
        "--plots",
        metavar="DIR",
        type=Path,
        default=Path("plots"),
        help="figures, under DIR/NAME (default plots)",
    )
    where.add_argument("--name", metavar="NAME", type=_name, help="of the study (default: the data set's)")
    where.add_argument(
        "--storage", metavar="URL", help="the ledger as an Optuna storage (default: SQLite under --results)"
    )

    instead = parser.add_argument_group("instead of running").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="tell the plan and how long it will take")
    instead.add_argument("--report-only", action="store_true", help="make tables and figures from the ledger again")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, and where to learn more."""
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _whole_numbers(text: str) -> tuple[int, ...]:
    """``1:10`` or ``1,4,8``: whole numbers of at least 1, each once, in order."""
    if span := re.fullmatch(r"(\d+):(\d+)", text):
        first, last = map(int, span.groups())
        numbers = set(range(first, last + 1)) if last - first < 10_000 else set()
    else:
        numbers = {int(part) for part in text.split(",")} if re.fullmatch(r"\d+(,\d+)*", text) else set()
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not whole numbers of at least 1; write 1:10 for 1 to 10, or a list as 1,4,8"
        )
    return tuple(sorted(numbers))


def _seeds(text: str) -> tuple[int, ...]:
    """``5`` for seeds 0 to 4, ``0,1,7`` for these (``7,`` for one)."""
    if re.fullmatch(r"\d+", text) and 0 < int(text) <= 10_000:
        return tuple(range(int(text)))
    if re.fullmatch(r"\d+(,\d+)*,?", text) and "," in text:
        seeds = {int(part) for part in text.rstrip(",").split(",")}
        if max(seeds) <= _LARGEST_SEED:
            return tuple(sorted(seeds))
    raise argparse.ArgumentTypeError(
        f"{text!r} is not seeds; write how many, at least 1 (5 is seeds 0 to 4), or which (0,1,7)"
    )


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) > _LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: a whole number from 0 to {_LARGEST_SEED}")
    return int(text)


def _blocks(text: str) -> tuple[str, ...]:
    asked = text.split(",")
    for block in asked:
        if block not in BLOCKS:
            raise argparse.ArgumentTypeError(f"unknown block {block!r}; choose from {', '.join(BLOCKS)}")
    return tuple(block for block in BLOCKS if block in asked)


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


def _at_least_one(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a name is letters, digits and ._-, and starts with one of the first two"
        )
    return text.lower() if text.lower() in CORPORA else text


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
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

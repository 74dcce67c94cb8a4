"""The command lines: every option, what it takes, and what its value must be."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from cemobam_core.config import FUSIONS, METHOD_VERSION, PRECISIONS, PROFILES
from cemobam_core.corpora import CORPORA
from study.design import BLOCKS, DEFAULT_BLOCKS
from study.ledger.storages import masked

_EXAMPLES = """
examples:
  python run_grid.py
      The whole study on the embedded demo: synthetic features, minutes on a laptop.
  python run_grid.py --dataset iemocap --features DIR
      The paper's study on features made before: DIR holds train, val and test (.safetensors, or the authors' .pkl).
  python run_grid.py --dataset iemocap --features FILE --split-protocol random:80/10/10
      The same from one file, which the tool splits.
  python run_grid.py --dataset iemocap --data-root IEMOCAP_full_release
      The same from the raw corpus: features are made first, once.
  python run_grid.py --dataset iemocap --features DIR --engine ray --ray-address auto
      The same on the Ray cluster that this machine is part of.
  python run_grid.py --dry-run --k-audio 1,4,8 --k-text 1:10 --seeds 3
      The plan alone: how many trials, how many are done, how long the rest will take.

Whatever stops a run, the same command goes on where it stopped. Exit status: 0 all trials done; 1 some failed (the
next run tries those again); 2 a mistake in what was given, told in one line; 130 interrupted.
"""

_FEATURES_EXAMPLES = """
examples:
  cemobam features --dataset iemocap --data-root IEMOCAP_full_release --out features/iemocap
  cemobam features --dataset esd --data-root ESD --out features/esd-sequences --level sequence --tune-layers 0
  cemobam features --dataset mine --manifest metadata.csv --out features/mine --split-protocol speaker
  python run_grid.py --dataset iemocap --features features/iemocap
"""

_DASHBOARD_EXAMPLES = """
examples:
  cemobam dashboard
      The demo's study, in results/demo/study.db.
  cemobam dashboard --dataset iemocap --port 9000
  cemobam dashboard --dataset iemocap --storage postgresql://me@db.example.org/cemobam
  ssh -C -L 8080:127.0.0.1:8080 HOST
      From another machine: then http://127.0.0.1:8080/ there is the dashboard that listens on HOST.
"""

_LARGEST_SEED = 2**32 - 1

HIDDEN = argparse.SUPPRESS
"""The help of an option that a command takes and does not show."""

MAKING = (
    *("audio_encoder", "text_encoder", "level", "audio_steps", "max_seconds", "max_tokens", "text_pool"),
    *("tune_layers", "objective", "tune_epochs", "tune_lr", "max_bad"),
)
"""Options that say how features are made of a raw corpus; None where they are not given."""

_RUNNING = (
    *("features", "data_root", "manifest", "split_protocol", "split_seed", *MAKING),
    *("device", "engine", "ray_address", "workers", "gpus_per_trial", "trial_timeout"),
    *("keep_models", "verbose", "dry_run", "report_only"),
)
"""Options that matter to running alone."""

DRAWINGS = {
    "topk": "The K grid, mean over seeds (Fig. 2)",
    "topk-sd": "The K grid, standard deviation over seeds",
    "marginal": "Each K whatever the other",
    "fusion": "Fusion strategies, every seed",
    "ablation": "Ablations, every seed",
    "curves": "Learning curves at the K pair",
    "confusion": "Confusion matrix at the K pair",
    "embedding": "t-SNE of the fused embedding of a kept model",
    "gaps": "What each gap between text and code costs",
}
"""The figures by the name that ``--only`` takes, and what they show."""


def grid_parser(prog: str = "run_grid.py") -> argparse.ArgumentParser:
    """Return the parser of ``run_grid.py``, which is also ``cemobam grid``.

    Args:
        prog: what the help, its examples and the errors call the command.
    """
    parser = _Parser(
        prog=prog,
        description=_wrapped(
            "Rerun the CemoBAM study: the K grid (Fig. 2), the fusion strategies (Table I) and the ablation (Table "
            "II), five seeds each."
        ),
        epilog=_EXAMPLES if prog == "run_grid.py" else _EXAMPLES.replace("python run_grid.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_version(parser)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        metavar="NAME",
        type=_name,
        help="demo (default), iemocap, esd, or any name for data of yours",
    )
    data.add_argument(
        "--features",
        metavar="PATH",
        type=Path,
        help="a folder with train, val and test, or one file to split",
    )
    _add_corpus(data)
    _add_split(data)
    _add_making(parser, "making features (with --data-root or --manifest)")

    what = parser.add_argument_group("what is run")
    what.add_argument(
        "--blocks",
        metavar="A,B",
        type=_blocks,
        default=DEFAULT_BLOCKS,
        help="any of grid, fusion, ablation (default: these three) and gaps, which switches each difference between "
        "the paper's text and the released code alone",
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
        help="the metric that chooses the pair, on validation (default wa; the profile released: wf1, on test)",
    )

    method = parser.add_argument_group("the method (defaults: the profile's; the demo has a smaller model of its own)")
    method.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        default="paper",
        help="which reading of the method: the paper's text (default), or what the released code does",
    )
    method.add_argument("--fusion", choices=FUSIONS, default="min", help="in the grid and ablation (default min)")
    method.add_argument("--epochs", metavar="N", type=_at_least_one, help="100 in the paper's profile")
    method.add_argument("--hidden-dim", metavar="D", type=_at_least_one, help="512 in the paper's profile")
    method.add_argument("--lr", metavar="R", type=_positive, help="1e-4 in the paper's profile")
    method.add_argument("--precision", choices=PRECISIONS, help="of matrix products (default fp32)")

    machine = parser.add_argument_group("the machine")
    _add_device(machine)
    machine.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what executes trials: processes on this machine (default), or Ray Tune, on this machine or a cluster",
    )
    machine.add_argument(
        "--ray-address",
        metavar="A",
        type=_address,
        help="with --engine ray: the cluster to join, as HOST:6379, or auto for the one that this machine is part of "
        "(default: one is started on this machine, and ended with the run); every node needs this package",
    )
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
        default=1.0,
        help="the share of a GPU that a worker takes (default 1: it trains as many trials at once as its memory holds)",
    )
    machine.add_argument(
        "--trial-timeout",
        metavar="SECONDS",
        type=_positive,
        help="give up a trial that takes longer, as failed, and go on with the others (default: never)",
    )

    machine.add_argument(
        "--verbose", action="store_true", help="tell on standard error what goes into the run's log: a line a trial"
    )

    where = parser.add_argument_group("where it is kept")
    _add_ledger(where)
    where.add_argument(
        "--plots",
        metavar="DIR",
        type=Path,
        default=Path("plots"),
        help="figures, under DIR/NAME (default plots)",
    )
    where.add_argument(
        "--keep-models",
        choices=("best", "all"),
        help="keep trained models under DIR/NAME/models: best, every seed of the configuration at the chosen pair "
        "(none is picked among them: the best seed is luck); all, every trial's (45 MB each at 512 hidden units)",
    )

    instead = parser.add_argument_group("instead of running").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="tell the plan and how long it will take")
    instead.add_argument(
        "--report-only",
        action="store_true",
        help="make tables and figures from the ledger again, with the options that the study was last run with; those "
        "that you give replace them",
    )
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``: the package's version, and that of the method, which every trial's signature holds."""
    try:
        package = version("cemobam-study")
    except PackageNotFoundError:
        package = "(run from a checkout that is not installed)"
    said = f"cemobam-study {package}, method {METHOD_VERSION}"
    parser.add_argument("--version", action="version", version=said, help="print the version and end")


def features_parser() -> argparse.ArgumentParser:
    """What ``cemobam features`` takes."""
    parser = _Parser(
        prog="cemobam features",
        description=_wrapped(
            "Make features of a raw corpus: wav2vec 2.0 on the audio, BERT on the transcripts, the upper layers of "
            "both tuned on the train split. What is made is kept: an interrupted run goes on where it stopped, and "
            "the same command again does nothing."
        ),
        epilog=_FEATURES_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("the corpus")
    data.add_argument(
        "--dataset", metavar="NAME", type=_name, required=True, help="iemocap, esd, or with --manifest a name of yours"
    )
    _add_corpus(data)
    _add_split(data)
    _add_making(parser, "how features are made")
    machine = parser.add_argument_group("the machine")
    _add_device(machine)
    machine.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="where they are kept; run_grid.py --features takes it"
    )
    return parser


def figures_parser() -> argparse.ArgumentParser:
    """What ``cemobam figures`` takes: the study as it was asked for, and which of its figures."""
    parser = grid_parser("cemobam figures")
    parser.usage = "cemobam figures [--only NAME] [--dataset NAME] [options of the study]"
    parser.description = _wrapped(
        "Draw the figures of a study from its ledger, running nothing: of the only study under --results, or of the "
        "one that --dataset, --name or its settings (--epochs, --profile …) name. Options that you leave out are those "
        "that the study was last run with."
    )
    parser.set_defaults(report_only=True)
    parser.epilog = "figures:\n" + "\n".join(f"  {name:<11} {shows}" for name, shows in DRAWINGS.items())
    for action in parser._actions:
        if action.dest in _RUNNING:
            action.help = HIDDEN
    parser.add_argument(
        "--only",
        metavar="NAME",
        type=_drawings,
        help="one figure, or several as topk,curves (default: all of those below)",
    )
    return parser


def dashboard_parser() -> argparse.ArgumentParser:
    """What ``cemobam dashboard`` takes: whose ledger, and where to listen."""
    parser = _Parser(
        prog="cemobam dashboard",
        description=_wrapped(
            "Browse a study's ledger: the Optuna dashboard with every trial, its learning curve, and the study's own "
            "figures and tables, which a running study keeps current. Ctrl-C ends it; the study goes on."
        ),
        epilog=_DASHBOARD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        type=_name,
        help="demo, iemocap, esd, or the name of data of yours (default: the only study under --results)",
    )
    _add_ledger(parser)
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="where to listen (default 127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it, and there is no "
        "password)",
    )
    parser.add_argument(
        "--port", metavar="N", type=_port, help="to listen at (default: 8080, or the next that is free)"
    )
    return parser


def compare_parser() -> argparse.ArgumentParser:
    """What ``cemobam compare`` takes."""
    parser = _Parser(
        prog="cemobam compare",
        description="Put studies side by side: their chosen configurations, fusion strategies, ablations and what they "
        "say to the paper's claims. Reads what run_grid.py wrote into their folders.",
        epilog="example: cemobam compare results/iemocap results/esd --to results/both",
        allow_abbrev=False,
    )
    parser.add_argument("results", metavar="RESULTS_DIR", nargs="+", type=Path, help="such as results/iemocap")
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="also write the tables there, as csv, Markdown and LaTeX"
    )
    return parser


def _add_ledger(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="tables, logs and the ledger, under DIR/NAME (default results)",
    )
    group.add_argument("--name", metavar="NAME", type=_name, help="of the study (default: the data set's)")
    group.add_argument(
        "--storage",
        metavar="URL",
        help="the ledger (default: SQLite under --results, for one run at a time); several runs share the work through "
        "postgresql://USER:PASSWORD@HOST/DATABASE, mysql+pymysql://…, or a file that all of them see: "
        "journal:///PATH",
    )


def _add_corpus(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data-root",
        metavar="DIR",
        type=Path,
        help="the raw corpus as it was unpacked: IEMOCAP_full_release, or ESD's folder of speakers",
    )
    group.add_argument(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="any other corpus: CSV or JSONL with audio, text, label, and perhaps id, speaker, session, split",
    )


def _add_split(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--split-protocol",
        metavar="P",
        help="random:80/10/10 (default; stratified), speaker (none in two splits), session (leave one out), or "
        "manifest (as the file says; the default where it does)",
    )
    group.add_argument("--split-seed", metavar="N", type=_seed, help="draws the split (default 0)")


def _add_making(parser: argparse.ArgumentParser, title: str) -> None:
    """The options behind :class:`FeatureSettings`; None where not given, so that idle ones are told."""
    group = parser.add_argument_group(title)
    group.add_argument(
        "--audio-encoder",
        metavar="E",
        help="wav2vec 2.0, HuBERT or WavLM: a hub id or a folder (default facebook/wav2vec2-base-960h)",
    )
    group.add_argument(
        "--text-encoder",
        metavar="E",
        help="BERT or its like: a hub id or a folder (default google-bert/bert-base-uncased)",
    )
    group.add_argument(
        "--level",
        choices=("utterance", "sequence"),
        help="one embedding an utterance (default), or text tokens and audio steps",
    )
    group.add_argument(
        "--audio-steps", metavar="N", type=_at_least_one, help="sequence: audio frames averaged down to N (default 32)"
    )
    group.add_argument(
        "--max-seconds",
        metavar="S",
        type=_positive,
        help="longer clips are cut into windows, averaged by their length (default 20)",
    )
    group.add_argument(
        "--max-tokens", metavar="N", type=_at_least_three, help="longer transcripts are cut (default 128)"
    )
    group.add_argument(
        "--text-pool",
        choices=("cls", "pooler", "mean"),
        help="tokens to one embedding: [CLS] (default), BERT's pooler, or the mean",
    )
    group.add_argument(
        "--tune-layers",
        metavar="N",
        type=_whole_number,
        help="the upper N layers of both encoders learn (default 4 of 12); 0: the encoders as they come",
    )
    group.add_argument(
        "--objective",
        choices=("supervised", "contrastive"),
        help="what they learn: the labels (default), or to tell utterances apart (NT-Xent, as the authors' code)",
    )
    group.add_argument("--tune-epochs", metavar="N", type=_at_least_one, help="at most (default 10)")
    group.add_argument("--tune-lr", metavar="R", type=_positive, help="the highest rate (default 2e-5)")
    group.add_argument(
        "--max-bad",
        metavar="P",
        type=_share,
        help="the share of utterances that may be unusable, left out and reported (default 1%%)",
    )


def _add_device(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where there is one"
    )


def predict_parser() -> argparse.ArgumentParser:
    """What ``cemobam predict`` takes."""
    parser = _Parser(
        prog="cemobam predict",
        description="Label utterances with a model that a study kept (--keep-models), or with a checkpoint that the "
        "authors' code wrote. The graph is built among the utterances given, as in training. Nothing in the files is "
        "run.",
        epilog="example: cemobam predict --model results/demo/models/NAME --features new.safetensors --to out.csv",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        help="a folder under results/NAME/models; it says K, fusion, modules and classes",
    )
    what.add_argument(
        "--released-checkpoint",
        metavar="FILE.pt",
        type=Path,
        help="weights of the authors' code; sizes, heads, classes and layers are read off them, the rest must be given",
    )
    parser.add_argument(
        "--features",
        metavar="FILE",
        type=Path,
        required=True,
        help="a .safetensors feature file (labels may be missing) or the authors' .pkl",
    )
    parser.add_argument(
        "--dataset",
        choices=[name for name, corpus in CORPORA.items() if corpus.name != "demo"],
        help="names the classes of a file that does not",
    )
    parser.add_argument("--fusion", choices=FUSIONS, help="which the checkpoint was trained with")
    parser.add_argument("--k-audio", metavar="K", type=_at_least_one, help="likewise")
    parser.add_argument("--k-text", metavar="K", type=_at_least_one, help="likewise")
    parser.add_argument(
        "--to",
        metavar="FILE.csv",
        type=Path,
        required=True,
        help="where to write id, predicted, and a probability per class",
    )
    return parser


def _wrapped(text: str) -> str:
    """For a parser whose examples are to stay as they are: it wraps nothing itself."""
    return textwrap.fill(text, 100)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line: the error, the option that an unknown one is like, and where to learn more."""
        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message):
            known = [option for action in self._actions for option in action.option_strings if action.help != HIDDEN]
            message += did_you_mean((word for word in unknown[1].split() if word.startswith("-")), known)
        print(f"{self.prog}: error: {masked(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the words that are like a known one; an empty string where none is."""
    known = list(known)
    meant = [
        match
        for word in words
        for match in difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, 1)
    ]
    return f"; did you mean {', '.join(dict.fromkeys(meant))}?" if meant else ""


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Parse ``1:10`` or ``1,4,8``: whole numbers of at least 1, each once; gives them in order."""
    numbers: list[int] = []
    if span := re.fullmatch(r"(\d+):(\d+)", text):
        first, last = map(int, span.groups())
        if first > last:
            raise argparse.ArgumentTypeError(f"{text!r} runs backwards; write {last}:{first}")
        numbers = list(range(first, last + 1)) if last - first < 10_000 else []
    elif re.fullmatch(r"\d+(,\d+)*", text):
        numbers = _each_once(text, [int(part) for part in text.split(",")])
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not whole numbers of at least 1; write 1:10 for 1 to 10, or a list as 1,4,8"
        )
    return tuple(sorted(numbers))


def _seeds(text: str) -> tuple[int, ...]:
    """Parse ``5`` for seeds 0 to 4, or ``0,1,7`` for these (``7,`` for one)."""
    if re.fullmatch(r"\d+", text) and 0 < int(text) <= 10_000:
        return tuple(range(int(text)))
    if re.fullmatch(r"\d+(,\d+)*,?", text) and "," in text:
        seeds = _each_once(text, [int(part) for part in text.rstrip(",").split(",")])
        if max(seeds) <= _LARGEST_SEED:
            return tuple(sorted(seeds))
    raise argparse.ArgumentTypeError(
        f"{text!r} is not seeds; write how many, at least 1 (5 is seeds 0 to 4), or which (0,1,7)"
    )


def _each_once(text: str, numbers: list[int]) -> list[int]:
    twice = [number for i, number in enumerate(numbers) if number in numbers[:i]]
    if twice:
        raise argparse.ArgumentTypeError(f"{text!r} names {twice[0]} twice; write each number once")
    return numbers


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


def _drawings(text: str) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(text.split(",")))
    for name in asked:
        if name not in DRAWINGS:
            raise argparse.ArgumentTypeError(f"unknown figure {name!r}; choose from {', '.join(DRAWINGS)}")
    return asked


def as_typed(args: argparse.Namespace) -> str:
    """Return the command that gives these arguments, without defaults and without what only says when to stop."""
    return shlex.join(["python", "run_grid.py", *_words(grid_parser(), args)])


def as_asked(args: argparse.Namespace) -> list[str]:
    """Return the options that ask for the same study again, for the ledger to keep.

    Where the ledger is and what ran the trials are not among them: another machine may ask for the report.
    """
    kept = {"results", "storage", "name"}
    kept |= {"device", "engine", "ray_address", "workers", "gpus_per_trial", "trial_timeout"}
    return _words(grid_parser(), args, without=kept)


def dashboard_as_typed(args: argparse.Namespace) -> str:
    """Return the command that opens the dashboard on the ledger of a study with these arguments."""
    named = argparse.Namespace(**vars(args))
    if not (args.dataset or args.name or args.storage):
        named.dataset = "demo"  # there may be other studies beside it
    return shlex.join(["cemobam", "dashboard", *_words(dashboard_parser(), named)])


def option(name: str, value: Any) -> list[str]:
    """Return the words that give an option a value, as a user types them: ``--seeds 0,1``."""
    said = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if name == "seeds" and len(value) == 1:
        said += ","
    return [f"--{name.replace('_', '-')}", masked(said)]


def _words(parser: argparse.ArgumentParser, args: argparse.Namespace, without: Iterable[str] = ()) -> list[str]:
    unsaid = {"dry_run", "report_only", "keep_models", "verbose", *without}
    words = []
    for action in parser._actions:
        value = getattr(args, action.dest, action.default)
        if value != action.default and action.dest not in unsaid:
            words += option(action.dest, value)
    return words


def _at_least_one(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _at_least_three(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 3: [CLS], a token and [SEP]")
    return int(text)


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 1024 to 65535 (0: any free one)")
    return int(text)


def _share(text: str) -> float:
    """``1%`` or ``0.01``."""
    matched = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", text)
    share = float(matched[1]) / (100 if matched[2] else 1) if matched else -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; write 1%, or 0.01 for the same")
    return share


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _address(text: str) -> str:
    if text != "auto" and not re.fullmatch(r"(ray://)?[\w.\[\]:-]+:\d{1,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the address of a Ray cluster; write HOST:6379, or auto")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a name is letters, digits and ._-, and starts with one of the first two"
        )
    return text.lower() if text.lower() in CORPORA else text

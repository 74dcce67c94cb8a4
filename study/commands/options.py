"""Every option of the study's command line, declared once; commands take the groups or the options that they need."""

from __future__ import annotations

from pathlib import Path

from cemobam_core.metrics import METRICS
from study.commands import values
from study.commands.parsing import Group, Option
from study.papers.cemobam.paper import FUSIONS, PROFILE_NAMES

DATASET = Option(
    "--dataset",
    metavar="NAME",
    type=values.name,
    help="demo (default), iemocap, esd, or any name for data of yours",
)
FEATURES = Option(
    "--features",
    metavar="PATH",
    type=Path,
    help="a folder with train, val and test, or one file to split",
    concerns="data",
)
CORPUS = (
    Option(
        "--data-root",
        metavar="DIR",
        type=Path,
        help="the raw corpus as it was unpacked: IEMOCAP_full_release, or ESD's folder of speakers",
        concerns="data",
    ),
    Option(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="any other corpus: CSV or JSONL with audio, text, label, and perhaps id, speaker, session, split",
        concerns="data",
    ),
    Option(
        "--split-protocol",
        metavar="P",
        help="random:80/10/10 (default; stratified), speaker (none in two splits), session (leave one out), or "
        "manifest (as the file says; the default where it does)",
        concerns="data",
    ),
    Option("--split-seed", metavar="N", type=values.seed, help="draws the split (default 0)", concerns="data"),
)
"""A raw corpus, and who goes into which split."""

DATA = Group("data", (DATASET, FEATURES, *CORPUS))

MAKING = Group(
    "making features (with --data-root or --manifest)",
    (
        Option(
            "--audio-encoder",
            metavar="E",
            help="wav2vec 2.0, HuBERT or WavLM: a hub id or a folder (default facebook/wav2vec2-base-960h)",
            concerns="data",
        ),
        Option(
            "--text-encoder",
            metavar="E",
            help="BERT or its like: a hub id or a folder (default google-bert/bert-base-uncased)",
            concerns="data",
        ),
        Option(
            "--level",
            choices=("utterance", "sequence"),
            help="one embedding an utterance (default), or text tokens and audio steps",
            concerns="data",
        ),
        Option(
            "--audio-steps",
            metavar="N",
            type=values.at_least_one,
            help="sequence: audio frames averaged down to N (default 32)",
            concerns="data",
        ),
        Option(
            "--max-seconds",
            metavar="S",
            type=values.positive,
            help="longer clips are cut into windows, averaged by their length (default 20)",
            concerns="data",
        ),
        Option(
            "--max-tokens",
            metavar="N",
            type=values.at_least_three,
            help="longer transcripts are cut (default 128)",
            concerns="data",
        ),
        Option(
            "--text-pool",
            choices=("cls", "pooler", "mean"),
            help="tokens to one embedding: [CLS] (default), BERT's pooler, or the mean",
            concerns="data",
        ),
        Option(
            "--tune-layers",
            metavar="N",
            type=values.whole_number,
            help="the upper N layers of both encoders learn (default 4 of 12); 0: the encoders as they come",
            concerns="data",
        ),
        Option(
            "--objective",
            choices=("supervised", "contrastive"),
            help="what they learn: the labels (default), or to tell utterances apart (NT-Xent, as the authors' code)",
            concerns="data",
        ),
        Option("--tune-epochs", metavar="N", type=values.at_least_one, help="at most (default 10)", concerns="data"),
        Option("--tune-lr", metavar="R", type=values.positive, help="the highest rate (default 2e-5)", concerns="data"),
        Option(
            "--max-bad",
            metavar="P",
            type=values.share,
            help="the share of utterances that may be unusable, left out and reported (default 1%%)",
            concerns="data",
        ),
    ),
)
"""How features are made of a raw corpus; None where not given, so that options without effect are told."""

K_AUDIO = Option(
    "--k-audio",
    metavar="K",
    type=values.whole_numbers,
    help="the grid's K_audio: 1:10 is 1 to 10 (default), or a list as 1,4,8",
)
K_TEXT = Option(
    "--k-text",
    metavar="K",
    type=values.whole_numbers,
    help="the grid's K_text, likewise",
)

TRIALS = Group(
    "what is run",
    (
        Option(
            "--blocks",
            metavar="A,B",
            type=values.blocks,
            help="any of grid, fusion, ablation (default: these three), confirm (the chosen pair beside the paper's; "
            "by default on iemocap and esd), gaps (each difference between the paper's text and the released code) "
            "and evaluation (the graph at evaluation); with --study any of the file's (default: all)",
        ),
        Option(
            "--study",
            metavar="FILE.py",
            type=Path,
            help="run the blocks that a study file lists, instead of the paper's",
        ),
        Option(
            "--vary",
            metavar="KEY=V1,V2",
            type=values.variation,
            action="append",
            help="run a block over a setting, as --vary hidden_dim=128,256, instead of the paper's blocks; given "
            "twice, a plane over both",
        ),
        Option(
            "--systems",
            metavar="A,B",
            type=values.systems,
            help="run a block that compares systems on the same folds and seeds, instead of the paper's blocks: names, "
            "as cemobam systems lists them, FILE.py:NAME, or groups of them: paper (what the paper compares with and "
            "can be rebuilt), baselines, graphs, all",
        ),
        Option(
            "--budget",
            metavar="N",
            type=values.at_least_one,
            help="tune each of --systems (or --system alone) over N configurations, its defaults among them, with one "
            "seed; validation chooses, and what it chose runs with fresh seeds beside the defaults",
        ),
        Option(
            "--search",
            choices=("sobol", "tpe"),
            default="sobol",
            help="how --budget draws configurations: sobol, quasi-random and known beforehand (default); tpe, in "
            "rounds of 5 that learn from the rounds before (the first 10 are Sobol's)",
        ),
        K_AUDIO,
        K_TEXT,
        Option(
            "--seeds",
            metavar="S",
            type=values.seeds,
            default=tuple(range(5)),
            help="how many (default 5: seeds 0 to 4), or which: 0,1,7; where a pair is chosen, these seeds choose it",
        ),
        Option(
            "--confirm",
            metavar="N",
            type=values.at_least_one,
            help="the blocks at the chosen pair run with N fresh seeds, which took no part in choosing it (default: as "
            "many as --seeds, so 5 to 9)",
        ),
        Option(
            "--until-clear",
            action="store_true",
            default=False,
            help="compare after 5, 10 and 20 fresh seeds, and give more seeds only to configurations that are not "
            "clearly better, worse or equivalent",
        ),
        Option(
            "--rope",
            metavar="POINTS",
            type=values.points,
            help="two configurations that differ by less are practically the same (default: 1.0, on the demo 2.0)",
        ),
        Option(
            "--at",
            metavar="A,T",
            help="the K pair for blocks that do not vary it: 8,7, or paper for the paper's best "
            "(default: the pair that validation chooses)",
        ),
        Option(
            "--select-by",
            choices=tuple(METRICS),
            help="the metric that chooses the pair, on validation (default wa; the profile released: wf1, on test)",
        ),
    ),
)

FUSION = Option("--fusion", choices=FUSIONS, default="min", help="in the grid and ablation (default min)")

SYSTEM = Option(
    "--system",
    metavar="NAME",
    type=values.system,
    default="cemobam",
    help="the system that the blocks vary: a name, as cemobam systems lists them, or FILE.py:NAME (default cemobam)",
)

CONFIGURED = (
    FUSION,
    Option("--epochs", metavar="N", type=values.at_least_one, help="100 in the paper's profile"),
    Option("--hidden-dim", metavar="D", type=values.at_least_one, help="512 in the paper's profile"),
    Option("--lr", metavar="R", type=values.positive, help="1e-4 in the paper's profile"),
    Option("--precision", choices=("fp32", "tf32", "bf16"), help="of matrix products (default fp32)"),
    Option(
        "--evaluation-graph",
        choices=("own", "anchored", "joint"),
        help="whom a validation or test utterance has as neighbours: own, those of its split, as the paper and its "
        "code (default; a small split then has a poor graph); anchored, the training utterances nearest to it, so that "
        "its label does not depend on which others are labelled; joint, both at once, which is transductive",
    ),
    Option(
        "--ties",
        choices=("index", "random", "all"),
        help="which of equally similar neighbours are linked, as those who say the same sentence: the first in the "
        "file (index, the default), a random choice with each seed, or all of them",
    ),
)
"""Settings that have an option of their own."""

METHOD = Group(
    "the method (defaults: the profile's; the demo has a smaller model of its own)",
    (
        SYSTEM,
        Option(
            "--profile",
            choices=PROFILE_NAMES,
            default="paper",
            help="which reading of the method: the paper's text (default), or what the released code does",
        ),
        *CONFIGURED,
        Option(
            "--set",
            metavar="KEY=VALUE",
            type=values.setting,
            action="append",
            help="any setting of the system or the training, as --set gat_layers=2; may be repeated",
        ),
    ),
)

DEVICE = Option(
    "--device",
    choices=("auto", "cpu", "cuda"),
    default="auto",
    help="default: cuda where there is one",
    concerns="machine",
)

MACHINE = Group(
    "the machine",
    (
        DEVICE,
        Option(
            "--engine",
            choices=("local", "ray"),
            default="local",
            help="what executes trials: processes on this machine (default), or Ray Tune, on this machine or a cluster",
            concerns="machine",
        ),
        Option(
            "--ray-address",
            metavar="A",
            type=values.address,
            help="with --engine ray: the cluster to join, as HOST:6379, or auto for the one that this machine is part "
            "of (default: one is started on this machine, and ended with the run); every node needs this package",
            concerns="machine",
        ),
        Option(
            "--workers",
            metavar="N",
            type=values.at_least_one,
            help="trials side by side, one thread each (default: the cores, or what the GPUs take)",
            concerns="machine",
        ),
        Option(
            "--gpus-per-trial",
            metavar="F",
            type=values.positive,
            default=1.0,
            help="the share of a GPU that a worker takes (default 1: it trains as many trials at once as its memory "
            "holds)",
            concerns="machine",
        ),
        Option(
            "--trial-timeout",
            metavar="SECONDS",
            type=values.positive,
            help="give up a trial that takes longer, as failed, and go on with the others (default: never)",
            concerns="machine",
        ),
        Option(
            "--verbose",
            action="store_true",
            default=False,
            help="tell on standard error what goes into the run's log: a line a trial",
            concerns="run",
        ),
    ),
)

LEDGER = (
    Option(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("results"),
        help="tables, logs and the ledger, under DIR/NAME (default results)",
        concerns="ledger",
    ),
    Option(
        "--name",
        metavar="NAME",
        type=values.name,
        help="of the study (default: the data set's)",
        concerns="ledger",
    ),
    Option(
        "--storage",
        metavar="URL",
        help="the ledger (default: SQLite under --results, for one run at a time); several runs share the work through "
        "postgresql://USER:PASSWORD@HOST/DATABASE, mysql+pymysql://…, or a file that all of them see: "
        "journal:///PATH",
        concerns="ledger",
    ),
)
"""Where the ledger of a study is."""

PLACE = Group(
    "where it is kept",
    (
        *LEDGER,
        Option(
            "--plots",
            metavar="DIR",
            type=Path,
            default=Path("plots"),
            help="figures, under DIR/NAME (default plots)",
        ),
        Option(
            "--keep-models",
            choices=("best", "all"),
            help="keep trained models under DIR/NAME/models: best, every seed of the configuration at the chosen pair "
            "(none is picked among them: the best seed is luck); all, every trial's (45 MB each at 512 hidden units)",
            concerns="run",
        ),
        Option(
            "--keep-probabilities",
            action="store_true",
            default=False,
            help="keep the probability of each class for every test utterance, as float16 under "
            "DIR/NAME/probabilities: of the trials that this command runs; those that the ledger has are not run again",
            concerns="run",
        ),
    ),
)

INSTEAD = Group(
    "instead of running",
    (
        Option(
            "--dry-run",
            action="store_true",
            default=False,
            help="tell the plan and how long it will take",
            concerns="run",
        ),
        Option(
            "--report-only",
            action="store_true",
            default=False,
            help="make tables and figures from the ledger again, with the options that the study was last run with; "
            "those that you give replace them",
            concerns="run",
        ),
    ),
    exclusive=True,
)

DRAWN = Group(
    "how figures are drawn",
    (
        Option(
            "--format",
            metavar="F1,F2",
            type=values.formats,
            default=("png", "pdf"),
            help="any of png, pdf and svg (default png,pdf)",
        ),
        Option(
            "--dpi",
            metavar="N",
            type=values.dots_per_inch,
            help="resolution of a PNG in dots per inch, from 50 to 1200 (default 300)",
        ),
        Option(
            "--no-title",
            action="store_true",
            default=False,
            help="leave out the title above the panels, for a paper that has a caption; the captions are printed",
        ),
        Option(
            "--style",
            metavar="STYLE",
            help="a matplotlib style, as grayscale, or a .mplstyle file, applied over this tool's style: its colours, "
            "fonts and lines; sizes and layout stay as they are",
        ),
    ),
)

STUDY = (DATA, MAKING, TRIALS, METHOD, MACHINE, PLACE, INSTEAD)
"""All that ``run_grid.py`` takes."""

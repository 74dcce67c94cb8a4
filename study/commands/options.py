"""Every option of the study's command line, declared once. Commands take the groups or the options that they need."""

from __future__ import annotations

from pathlib import Path

from cemobam_core.corpora import READABLE
from cemobam_core.metrics import METRICS
from study.commands import values
from study.commands.parsing import Group, Option
from study.papers.cemobam.paper import FUSIONS, PROFILE_NAMES

DATASET = Option(
    "--dataset",
    metavar="NAME",
    type=values.name,
    help=f"the data set: demo, {', '.join(READABLE)}, or a name of your choice for your own data (default: demo)",
)
FEATURES = Option(
    "--features",
    metavar="PATH",
    type=Path,
    help="features made before: a folder with train, val and test, or one file that is split here (default: none; the "
    "demo has its own)",
    concerns="data",
)
CORPUS = (
    Option(
        "--data-root",
        metavar="DIR",
        type=Path,
        help=f"the raw corpus as you unpacked it, for --dataset {', '.join(READABLE)}; such as IEMOCAP_full_release, "
        "MELD.Raw, or ESD's folder of speakers (default: none)",
        concerns="data",
    ),
    Option(
        "--manifest",
        metavar="FILE",
        type=Path,
        help="a CSV or JSONL file that lists any other corpus: columns audio, text and label, and optionally id, "
        "speaker, session, script and split; or EmoBox's folder of a corpus, such as EmoBox/data/cafe (default: none)",
        concerns="data",
    ),
    Option(
        "--classes",
        metavar="C",
        help="the classes that the labels of the corpus are reduced to: a set (iemocap: 4, 5, 6, erc); the labels to "
        "keep, such as anger,sadness; or a CSV file with the columns label and class, where an empty class leaves the "
        "label out (default: 4 for iemocap, else every label)",
        concerns="data",
    ),
    Option(
        "--split-protocol",
        metavar="P",
        help="how utterances are split: random:80/10/10 (stratified by label); speaker (no speaker in two splits); "
        "speaker-10 (leave one of ten speakers out; the session's other speaker validates); session (leave one session "
        "out; validation is drawn from the others); session-val (the next session validates); text (no sentence in two "
        "splits); script (no script in two splits); official (the corpus's own splits). +text and +script combine "
        "with the others: speaker+text (default: official if the corpus has splits, else random:80/10/10)",
        concerns="data",
    ),
    Option(
        "--split-seed",
        metavar="N",
        type=values.seed,
        help="the random seed of the split (default: 0)",
        concerns="data",
    ),
    Option(
        "--split-file",
        metavar="FILE",
        type=Path,
        help="instead of --split-protocol: a csv with the columns id, split and for several folds fold, as cemobam "
        "splits writes it, or a folder of the authors' <CORPUS>_metadata_<split>.csv (default: none)",
        concerns="data",
    ),
)
"""A raw corpus, and how its utterances are split."""

DATA = Group("data", (DATASET, FEATURES, *CORPUS))

MAKING = Group(
    "feature extraction (with --data-root or --manifest)",
    (
        Option(
            "--audio-encoder",
            metavar="E",
            help="an audio encoder, such as wav2vec 2.0, HuBERT, WavLM or Whisper: a model name on the Hugging Face "
            "hub, or a folder; cemobam encoders lists what is supported (default: facebook/wav2vec2-base-960h)",
            concerns="data",
        ),
        Option(
            "--text-encoder",
            metavar="E",
            help="a text encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT: a model name on the Hugging Face hub, "
            "or a folder; cemobam encoders lists what is supported (default: google-bert/bert-base-uncased)",
            concerns="data",
        ),
        Option(
            "--asr",
            metavar="W",
            help="transcribe a corpus that has no transcripts with this Whisper model: a name on the Hugging Face hub, "
            "such as openai/whisper-small, or a folder (default: the corpus's own transcripts)",
            concerns="data",
        ),
        Option(
            "--level",
            choices=("utterance", "sequence"),
            help="utterance: one embedding per utterance and modality; sequence: text tokens and audio steps (default: "
            "utterance)",
            concerns="data",
        ),
        Option(
            "--audio-steps",
            metavar="N",
            type=values.at_least_one,
            help="with --level sequence: average the audio frames down to N steps (default: 32)",
            concerns="data",
        ),
        Option(
            "--max-seconds",
            metavar="S",
            type=values.positive,
            help="cut longer clips into windows, and average the windows by their length (default: 20)",
            concerns="data",
        ),
        Option(
            "--max-tokens",
            metavar="N",
            type=values.at_least_three,
            help="cut longer transcripts to N tokens (default: 128)",
            concerns="data",
        ),
        Option(
            "--text-pool",
            choices=("cls", "pooler", "mean"),
            help="how tokens become one embedding: the [CLS] token, BERT's pooler, or the mean (default: cls)",
            concerns="data",
        ),
        Option(
            "--audio-layer",
            metavar="L",
            type=values.layer,
            help="the layer of the audio encoder whose output is the embedding: its number, last, or last4 for the "
            "mean of the last four. 0 is the input of the first layer. Layers above it do not run (default: last)",
            concerns="data",
        ),
        Option(
            "--text-layer",
            metavar="L",
            type=values.layer,
            help="the layer of the text encoder, given in the same way (default: last)",
            concerns="data",
        ),
        Option(
            "--tune-layers",
            metavar="N",
            type=values.whole_number,
            help="fine-tune the upper N layers of both encoders, of the layers that run; 0 leaves the encoders "
            "unchanged (default: 4 of 12)",
            concerns="data",
        ),
        Option(
            "--objective",
            choices=("supervised", "contrastive"),
            help="what fine-tuning learns: supervised, to predict the labels; contrastive, to tell utterances apart "
            "(NT-Xent, as the authors' code) (default: supervised)",
            concerns="data",
        ),
        Option(
            "--tune-epochs",
            metavar="N",
            type=values.at_least_one,
            help="fine-tune for at most N epochs (default: 10)",
            concerns="data",
        ),
        Option(
            "--tune-lr",
            metavar="R",
            type=values.positive,
            help="the highest learning rate of fine-tuning (default: 2e-5)",
            concerns="data",
        ),
        Option(
            "--max-bad",
            metavar="P",
            type=values.share,
            help="stop if more than this share of the utterances cannot be used; fewer are left out and reported "
            "(default: 1%%)",
            concerns="data",
        ),
    ),
)
"""Options of feature extraction. A value is None if it is not given, so that options without effect are refused."""

K_AUDIO = Option(
    "--k-audio",
    metavar="K",
    type=values.whole_numbers,
    help="the values of K_audio in the grid: 1:10 is 1 to 10, or a list such as 1,4,8 (default: 1:10)",
)
K_TEXT = Option(
    "--k-text",
    metavar="K",
    type=values.whole_numbers,
    help="the values of K_text in the grid, written the same way (default: 1:10)",
)

TRIALS = Group(
    "what to run",
    (
        Option(
            "--blocks",
            metavar="A,B",
            type=values.blocks,
            help="the blocks to run: grid, fusion, ablation; confirm (the chosen K pair and the paper's, with fresh "
            "seeds); gaps (each difference between the paper's text and the released code); evaluation (the graph at "
            "evaluation); with --study, blocks of that file (default: grid, fusion and ablation, and confirm on "
            "iemocap and esd; with --study all of the file's)",
        ),
        Option(
            "--study",
            metavar="FILE.py",
            type=Path,
            help="run the blocks that a study file lists (default: the paper's blocks)",
        ),
        Option(
            "--vary",
            metavar="KEY=V1,V2",
            type=values.variation,
            action="append",
            help="run a block over one setting instead of the paper's blocks, such as --vary hidden_dim=128,256; give "
            "it twice for a plane over two settings (default: none)",
        ),
        Option(
            "--systems",
            metavar="A,B",
            type=values.systems,
            help="run a block that compares systems on the same folds and seeds, instead of the paper's blocks: names "
            "from cemobam systems, FILE.py:NAME, or the groups paper (what the paper compares with and can be "
            "rebuilt), baselines, graphs, all (default: none)",
        ),
        Option(
            "--budget",
            metavar="N",
            type=values.at_least_one,
            help="tune each of --systems (or --system alone) over N configurations with one seed; the defaults are "
            "one of them. The best on validation then runs with fresh seeds beside the defaults (default: no tuning)",
        ),
        Option(
            "--search",
            choices=("sobol", "tpe"),
            default="sobol",
            help="how --budget draws configurations: sobol, quasi-random and known beforehand; tpe, in rounds of 5 "
            "that learn from earlier rounds, after 10 from Sobol (default: sobol)",
        ),
        K_AUDIO,
        K_TEXT,
        Option(
            "--seeds",
            metavar="S",
            type=values.seeds,
            default=tuple(range(5)),
            help="the number of seeds (5 is seeds 0 to 4), or a list such as 0,1,7. In a study that chooses a K pair, "
            "these seeds choose it (default: 5)",
        ),
        Option(
            "--confirm",
            metavar="N",
            type=values.at_least_one,
            help="run the blocks at the chosen K pair with N fresh seeds, which had no part in the choice (default: "
            "as many as --seeds, so seeds 5 to 9)",
        ),
        Option(
            "--until-clear",
            action="store_true",
            default=False,
            help="compare after 5, 10 and 20 fresh seeds, and give more seeds only to configurations that are not yet "
            "clearly better, worse or equivalent",
        ),
        Option(
            "--rope",
            metavar="POINTS",
            type=values.points,
            help="two configurations that differ by fewer percentage points are practically the same (default: 1.0; on "
            "the demo: 2.0)",
        ),
        Option(
            "--at",
            metavar="A,T",
            help="the K pair of blocks that do not vary it: K_audio,K_text such as 8,7, or paper for the paper's best "
            "pair (default: the pair that validation chooses)",
        ),
        Option(
            "--select-by",
            choices=tuple(METRICS),
            help="the metric that chooses the K pair, on validation (default: wa; on meld: wf1; with --profile "
            "released: wf1, on the test split)",
        ),
    ),
)

FUSION = Option(
    "--fusion",
    choices=FUSIONS,
    default="min",
    help="the fusion strategy of every block that does not vary it (default: min)",
)

SYSTEM = Option(
    "--system",
    metavar="NAME",
    type=values.system,
    default="cemobam",
    help="the system that the blocks vary: a name from cemobam systems, or FILE.py:NAME (default: cemobam)",
)

CONFIGURED = (
    FUSION,
    Option("--epochs", metavar="N", type=values.at_least_one, help="training epochs (default: 100)"),
    Option("--hidden-dim", metavar="D", type=values.at_least_one, help="hidden units (default: 512)"),
    Option("--lr", metavar="R", type=values.positive, help="the learning rate (default: 1e-4)"),
    Option(
        "--batch",
        metavar="N",
        type=values.at_least_two,
        help="train in mini-batches of about N utterances, which take the memory of N utterances only (default: the "
        "full batch, as in the paper)",
    ),
    Option("--precision", choices=("fp32", "tf32", "bf16"), help="precision of matrix products (default: fp32)"),
    Option(
        "--evaluation-graph",
        choices=("own", "anchored", "joint"),
        help="the neighbours of a validation or test utterance: own, utterances of its own split, as in the paper and "
        "its code (in a small split they are few); anchored, the nearest training utterances, so that its label does "
        "not depend on the other utterances; joint, both, which is transductive (default: own)",
    ),
    Option(
        "--ties",
        choices=("index", "random", "all"),
        help="which equally similar neighbours are linked, such as those that say the same sentence: index, the first "
        "in the file; random, a new choice with each seed; all (default: index)",
    ),
)
"""Settings that have an option of their own."""

METHOD = Group(
    "the method (these defaults are the paper's; the demo has smaller ones)",
    (
        SYSTEM,
        Option(
            "--profile",
            choices=PROFILE_NAMES,
            default="paper",
            help="the reading of the method: paper, what the paper's text says; released, what the authors' code does "
            "(default: paper)",
        ),
        *CONFIGURED,
        Option(
            "--set",
            metavar="KEY=VALUE",
            type=values.setting,
            action="append",
            help="any setting of the system or the training, such as --set gat_layers=2; may be repeated (default: "
            "the profile's settings)",
        ),
    ),
)

DEVICE = Option(
    "--device",
    choices=("auto", "cpu", "cuda"),
    default="auto",
    help="where to compute: auto is cuda if there is a CUDA device, else cpu (default: auto)",
    concerns="machine",
)

WORKERS = Option(
    "--workers",
    metavar="N",
    type=values.at_least_one,
    help="the number of trials that run at the same time, with one thread each (default: the number of cores, or what "
    "fits the GPUs)",
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
            help="what runs the trials: local, processes on this machine; ray, Ray Tune on this machine or a cluster "
            "(default: local)",
            concerns="machine",
        ),
        Option(
            "--ray-address",
            metavar="A",
            type=values.address,
            help="with --engine ray: the cluster to join, as HOST:6379, or auto for the one that this machine belongs "
            "to. Every node needs this package (default: start Ray on this machine, and stop it after the run)",
            concerns="machine",
        ),
        WORKERS,
        Option(
            "--gpus-per-trial",
            metavar="F",
            type=values.positive,
            default=1.0,
            help="the share of a GPU that each worker takes; a worker trains as many trials at once as its memory "
            "holds (default: 1)",
            concerns="machine",
        ),
        Option(
            "--trial-timeout",
            metavar="SECONDS",
            type=values.positive,
            help="record a trial that takes longer as failed, and continue with the others (default: no limit)",
            concerns="machine",
        ),
        Option(
            "--verbose",
            action="store_true",
            default=False,
            help="print the run's log on standard error: one line per trial",
            concerns="run",
        ),
    ),
)

RESULTS = Option(
    "--results",
    metavar="DIR",
    type=Path,
    default=Path("results"),
    help="write tables, logs and the ledger under DIR/NAME (default: results)",
    concerns="ledger",
)

LEDGER = (
    RESULTS,
    Option(
        "--name",
        metavar="NAME",
        type=values.name,
        help="the name of the study (default: the name of the data set)",
        concerns="ledger",
    ),
    Option(
        "--storage",
        metavar="URL",
        help="where the ledger is. To share a study among several runs: postgresql://USER:PASSWORD@HOST/DATABASE, "
        "mysql+pymysql://…, or journal:///PATH, a file that all of them can see (default: an SQLite file under "
        "--results, for one run at a time)",
        concerns="ledger",
    ),
)
"""Where the ledger of a study is."""

PLOTS = Option(
    "--plots",
    metavar="DIR",
    type=Path,
    default=Path("plots"),
    help="write figures under DIR/NAME (default: plots)",
)

OPEN = Option(
    "--open",
    action="store_true",
    default=False,
    help="open the report in a browser at the end; on a machine without a display, print its address",
    concerns="run",
)

PLACE = Group(
    "results",
    (
        *LEDGER,
        PLOTS,
        Option(
            "--keep-models",
            choices=("best", "all"),
            help="keep trained models under DIR/NAME/models: best, all seeds of the configuration at the chosen K "
            "pair, because the best single seed is luck; all, the model of every trial, 45 MB each at 512 hidden units "
            "(default: none is kept)",
            concerns="run",
        ),
        Option(
            "--keep-probabilities",
            action="store_true",
            default=False,
            help="keep the probability of each class for every test utterance, as float16 under "
            "DIR/NAME/probabilities. This covers the trials that this command runs; trials already in the ledger are "
            "not run again",
            concerns="run",
        ),
        OPEN,
    ),
)

INSTEAD = Group(
    "instead of running",
    (
        Option(
            "--dry-run",
            action="store_true",
            default=False,
            help="print the plan and an estimate of the time",
            concerns="run",
        ),
        Option(
            "--report-only",
            action="store_true",
            default=False,
            help="write tables, figures and report again from the ledger, with the options of the last run; options "
            "that you give replace those",
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
"""All options of ``cemobam run``."""

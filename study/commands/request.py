"""What a command line asks for, resolved against what is known of the data set."""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cemobam_core.config import PROFILES
from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from study.design import Design, Pair, Trial, distinct, largest_k, readings
from study.ledger.ledger import Ledger
from study.ledger.outcomes import StudyFacts
from study.ledger.storages import ledger_file
from study.papers.cemobam import paper_pair

# What imports torch or pandas is imported where it is used: a typing error answers at once.
if TYPE_CHECKING:
    from cemobam_core.features import Fold
    from study.driver import Plan, StudyRun
    from study.engines.models import Keeping

SETTINGS = ("epochs", "hidden_dim", "lr", "precision")
"""The options, beside the profile, by which one name's studies in a ledger differ."""


@dataclass
class Request:
    """The arguments, resolved against what is known of the data set.

    Attributes:
        args: as they were given.
        corpus: the data set that they name.
        name: of the study.
        settings: of model and training, where they are not the profile's.
        tag: what of these differs from the data set's defaults; it tells the studies of one name apart.
        at: the pair for the blocks after the grid; None: the one that the grid chooses.
        blocks: the blocks to run.
        folds: how many folds the features come in.
    """

    args: argparse.Namespace
    corpus: Corpus
    name: str
    settings: dict[str, Any]
    tag: str
    at: Pair | None
    blocks: tuple[str, ...]
    folds: int = 1

    @classmethod
    def of(cls, args: argparse.Namespace) -> Request:
        """Resolve the arguments.

        Raises:
            InputError: data without a name, settings out of range, a pair that is none.
        """
        dataset = args.dataset or "demo"
        for option in ("features", "data_root", "manifest"):
            if args.dataset is None and getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(f"{flag} without --dataset: say what it is (iemocap, esd, or a name of yours)")
        corpus = CORPORA.get(dataset) or Corpus(name=dataset, title=dataset, class_names=(), about="")
        given = {name: getattr(args, name) for name in SETTINGS}
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
        """The configurations to draw on."""
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
        """Return what the driver is to do."""
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
        """Return what the ledger keeps of a study on these features."""
        from cemobam_core.features import fingerprint
        from study.engines.execution import versions

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
        """The folder of tables, logs and the ledger."""
        folder: Path = self.args.results / self.name
        return folder

    @property
    def plots(self) -> Path:
        """The folder of figures."""
        folder: Path = self.args.plots / self.name
        return folder

    @property
    def models(self) -> Path:
        """The folder of kept models."""
        return self.results / "models"

    def keeping(self, facts: StudyFacts) -> Keeping:
        """Return where and how trained models are kept."""
        from study.engines.models import Keeping

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
        from study.engines.models import size_in_bytes

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
        """The URL of the ledger."""
        return self.args.storage or f"sqlite:///{self.results / 'study.db'}"

    @property
    def database(self) -> Path | None:
        """The file of a ledger that is one."""
        return ledger_file(self.storage)

    @property
    def k_max(self) -> int:
        """The largest K that must be ranked."""
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

"""The study that a command line asks for: its arguments, resolved with the facts of the data set."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cemobam_core.corpora import CORPORA, READABLE
from cemobam_core.corpora.corpus import Corpus
from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.systems import GROUPS, group, name_of, system_class
from cemobam_core.systems.search import Value
from study.commands.options import CONFIGURED, FUSION
from study.commands.values import LARGEST_SEED, Setting
from study.design.block import Block
from study.design.factors import PAIR, Factor, Pair
from study.design.seeds import LOOKS
from study.design.tuning import DEFAULTS as SYSTEMS
from study.design.tuning import TUNED
from study.ledger.ledger import Ledger
from study.ledger.outcomes import StudyFacts
from study.ledger.storages import ledger_file
from study.papers.cemobam import paper
from study.papers.cemobam.published import paper_pair

# Modules that import torch or pandas are imported where they are used, so that typing errors answer at once.
if TYPE_CHECKING:
    from cemobam_core.features import Fold
    from cemobam_core.graph import GraphConfig
    from cemobam_core.inputs import Sizes
    from study.design.configuration import Configuration
    from study.design.design import Design
    from study.design.tuning import Tuning
    from study.driver import Plan, StudyRun
    from study.ledger.utterances import TestUtterances

_log = logging.getLogger(__name__)


@dataclass
class Request:
    """The arguments of a command, resolved with the facts of the data set.

    Attributes:
        args: The parsed arguments.
        corpus: The data set.
        name: Name of the study.
        at: K pair of the blocks that need one, or None for the pair that is chosen.
        settings: Settings of system, graph and training that the user changes.
        available: Every block that the options name, by name.
        blocks: Names of the blocks to run.
        folds: Number of folds of the features.
    """

    args: argparse.Namespace
    corpus: Corpus
    name: str
    at: Pair | None
    settings: dict[str, Value]
    available: dict[str, Block]
    blocks: tuple[str, ...]
    folds: int = 1

    @classmethod
    def of(cls, args: argparse.Namespace) -> Request:
        """Resolve the arguments.

        Raises:
            InputError: Data have no name, options do not fit together, a block is unknown, or a K pair is not valid.
        """
        dataset = args.dataset or "demo"
        for option in ("features", "data_root", "manifest"):
            if args.dataset is None and getattr(args, option) is not None:
                flag = "--" + option.replace("_", "-")
                raise InputError(
                    f"{flag} without --dataset: name the data set ({', '.join(READABLE)}, or a name of your choice)"
                )
        if args.search != "sobol" and args.budget is None:
            raise InputError(
                f"--search {args.search} without --budget: give the number of configurations to tune over with --budget"
            )
        if args.confirm and args.until_clear:
            raise InputError(
                "--confirm with --until-clear: --until-clear decides how many seeds to add; leave one of them out"
            )
        if max(args.seeds) + max(args.confirm or len(args.seeds), *LOOKS) > LARGEST_SEED:
            raise InputError(f"--seeds: {max(args.seeds)} leaves no room for fresh seeds after it; give smaller seeds")
        available, asked = _blocks(args, dataset)
        return cls(
            args=args,
            corpus=CORPORA.get(dataset) or Corpus(name=dataset, title=dataset, class_names=(), about=""),
            name=args.name or dataset,
            at=_pair(args.at, dataset),
            settings=_settings(args),
            available=available,
            blocks=asked,
        )

    @cached_property
    def tag(self) -> str:
        """The settings that differ from the data set's defaults. They distinguish studies of the same name.

        Raises:
            InputError: No system of the study has a setting, or a value is out of range.
        """
        from study.design.configuration import check_known
        from study.design.design import Design

        wanted = self._design(self.available)
        usual = Design(blocks=self.available, system=self.args.system, dataset=self.corpus.name)
        ours, theirs = self._used(wanted), self._used(usual)
        for name in self.settings:
            own = any(option.name == name for option in CONFIGURED)
            check_known([name], ours, f"--{name.replace('_', '-')}" if own else "--set")
        differing = {
            name: value
            for name, value in self.settings.items()
            if name != FUSION.name and {one.get(name) for one in ours} != {one.get(name) for one in theirs}
        }
        start = {} if self.args.profile == "paper" else {"profile": self.args.profile}
        if self.args.system != "cemobam":
            start["system"] = name_of(wanted.base.system)
        return ",".join(f"{name}={value}" for name, value in {**start, **differing}.items())

    def _used(self, design: Design) -> list[Configuration]:
        """Return the design's own configuration and those of the blocks to run, with any K pair."""
        from study.design.design import ANY_PAIR

        return [design.base, *(one for block in self.blocks for one in design.configurations(block, ANY_PAIR))]

    def configurations(self) -> list[Configuration]:
        """Return the design's own configuration and those of the blocks to run, with any K pair."""
        return self._used(self.design)

    def check_settings(self) -> None:
        """Check that each changed setting belongs to some system of the study.

        Raises:
            InputError: No system has a setting, or its value is out of range.
        """
        _ = self.tag

    def check_index(self) -> None:
        """Check that the package of an approximate index is installed if a graph of the study uses it.

        Raises:
            InputError: It is not installed.
        """
        for index in {graph.index for graph in self.graphs()} - {"exact"}:
            require("index", f"index={index}")

    @cached_property
    def design(self) -> Design:
        """The design of every block that the options name."""
        return self._design(self.available)

    def _design(self, blocks: Mapping[str, Block]) -> Design:
        from study.design.design import Design

        args = self.args
        return Design(
            blocks=blocks,
            profile=args.profile,
            system=args.system,
            settings=self.settings,
            dataset=self.corpus.name,
            seeds=args.seeds,
            confirm=args.confirm or 0,
            folds=self.folds,
        )

    def plan(self, ledger: Ledger) -> Plan:
        """Return the plan for the driver. Other blocks in the ledger remain part of the study.

        Blocks at a chosen K pair are left out for a system without a graph.

        Raises:
            InputError: No block is left.
        """
        from study.design.design import with_values
        from study.driver import Plan
        from study.papers.cemobam.profiles import PROFILES, usual_metric

        profile = PROFILES[self.args.profile]
        blocks = dict(self.available)
        for name, data in ledger.blocks().items():
            if name not in blocks:
                if block := self._recorded(name, data):
                    blocks[name] = block
            elif blocks[name].chooses and name not in self.blocks and not (self.args.k_audio or self.args.k_text):
                # The recorded grid stays, so that the K pair that it chose stays.
                blocks[name] = with_values(blocks[name], {factor: tuple(of) for factor, of in data.get("factors", ())})
        asked_for = self.blocks
        if self.tuning:
            tunes = [self.tuning.block(system) for system in self.tuning.systems]
            tuned = {block.tunes for block in tunes}
            # Results of an earlier budget or another search do not belong to this tuning.
            blocks = {name: of for name, of in blocks.items() if name != TUNED and of.tunes not in tuned}
            blocks |= {block.name: block for block in tunes}
            asked_for = (*(block.name for block in tunes), *self.blocks)
        design = self._design(blocks)
        design.check_names()
        asked = tuple(name for name in asked_for if not blocks[name].after_choice or design.needs_pair(name))
        if not asked:
            raise InputError(
                f"--blocks {','.join(self.blocks)}: {name_of(design.base.system)} does not use the graph, so it has no "
                "K pair to choose; leave --blocks out"
            )
        return Plan(
            design=design,
            blocks=asked,
            at=self.at,
            otherwise=self.otherwise,
            select_by=self.args.select_by or usual_metric(profile, self.corpus.name),
            select_on=profile.select_on,
            rope=self.corpus.rope if self.args.rope is None else self.args.rope,
            until_clear=self.args.until_clear,
            tuning=self.tuning,
        )

    @cached_property
    def tuning(self) -> Tuning | None:
        """The tuning that ``--budget`` asks for, or None. Systems in a user's file must have been tried before."""
        if self.args.budget is None:
            return None
        from study.design.tuning import Tuning

        return Tuning(
            systems={name: system_class(name) for name in _systems_of(self.available[name] for name in self.blocks)},
            budget=self.args.budget,
            search=self.args.search,
            pinned=frozenset(self.settings),
        )

    def _recorded(self, name: str, data: Mapping[str, object]) -> Block | None:
        """Return a block of an earlier command, or None (and a line in the log) if it cannot be made any more."""
        from study.design.design import ANY_PAIR
        from study.ledger.ledger import block_of

        try:
            block = block_of(name, data)
            self._design({name: block}).configurations(name, ANY_PAIR)
        except InputError as error:
            _log.warning("the recorded block %s is left out: %s", name, error)
            return None
        return block

    def facts(self, folds: tuple[Fold, ...]) -> StudyFacts:
        """Return the facts that the ledger keeps of a study on these features."""
        from cemobam_core.corpora.splits import splits_fingerprint
        from cemobam_core.features import fingerprint
        from study.engines.execution import versions

        self.set_folds(len(folds))
        classes = folds[0].train.class_names
        other = self.corpus.class_names and self.corpus.has_other(classes)
        return StudyFacts(
            dataset=self.corpus.name,
            title=f"{self.corpus.title} ({len(classes)} classes)" if other else self.corpus.title,
            fingerprint=fingerprint(folds),
            folds=len(folds),
            settings=self.design.shared(),
            class_names=classes,
            made_with=versions(),
            recipe=folds[0].train.provenance.get("signature", ""),
            splits=splits_fingerprint(folds),
        )

    def set_folds(self, folds: int) -> None:
        """Set the number of folds of the features."""
        self.folds = folds
        self.__dict__.pop("design", None)

    def try_systems(self, sizes: Sizes, *, sequence: bool) -> None:
        """Try every system of a user's file in a separate process, before this process loads it.

        Args:
            sizes: Sizes of the features.
            sequence: Whether an utterance has several steps.

        Raises:
            InputError: A system does not work. The message says why.
        """
        from cemobam_core.systems.files import is_in_file

        for name in sorted({self.args.system, *_systems_of(self.available[name] for name in self.blocks)}):
            if is_in_file(name):
                from cemobam_core.systems.tryout import try_system

                print(f"trying {name} …", flush=True)
                try_system(name, sizes=sizes, sequence=sequence)

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

    @property
    def probabilities(self) -> Path:
        """The folder of kept probabilities."""
        return self.results / "probabilities"

    @property
    def storage(self) -> str:
        """The URL of the ledger."""
        return self.args.storage or f"sqlite:///{self.results / 'study.db'}"

    @property
    def database(self) -> Path | None:
        """The file of the ledger, or None if the ledger is not a file."""
        return ledger_file(self.storage)

    def k_max(self, pair: Pair | None = None) -> int:
        """Return the largest K to rank, or 0 if no block to run uses a graph.

        Args:
            pair: K pair of the blocks that need one, or None if it is not chosen yet.
        """
        tuned = self.tuning.k_max if self.tuning else 0
        return max([tuned, *(k for one in self.graphs(pair) for k in (one.k_audio, one.k_text))])

    def graphs(self, pair: Pair | None = None) -> list[GraphConfig]:
        """Return the graphs of the blocks to run, each once.

        Args:
            pair: K pair of the blocks that need one, or None if it is not chosen yet.
        """
        from study.design.design import ANY_PAIR

        waiting = [name for name in self.blocks if self.design.needs_pair(name)]
        if waiting and pair is None:
            pair = self.at or (None if self.design.choosing in self.blocks else self.otherwise)
        at = pair if waiting and pair else ANY_PAIR
        graphs = [one.graph for name in self.blocks for one in self.design.configurations(name, at)]
        return list(dict.fromkeys(graph for graph in graphs if graph))

    @property
    def otherwise(self) -> Pair | None:
        """The K pair if no block chooses one, or None if a block to run waits for the choice."""
        waits = any(self.available[name].after_choice for name in self.blocks)
        return None if waits else self.usual_pair

    @property
    def usual_pair(self) -> Pair:
        """The K pair of the user's own blocks if no block chooses one."""
        return paper_pair(self.corpus.name) or _USUAL_PAIR

    def ledger(
        self,
        facts: StudyFacts | None = None,
        *,
        utterances: TestUtterances | None = None,
        new: str | None = None,
    ) -> Ledger:
        """Open the ledger.

        Args:
            facts: Facts of the study, which are checked against those in the ledger. With None nothing is checked or
                written.
            utterances: Test utterances of the study, for the ledger to keep.
            new: Storage to use instead if the ledger is a file that does not exist yet.
        """
        missing = self.database is not None and not self.database.exists()
        ledger = Ledger(new if new and missing else self.storage, name=self.name, tag=self.tag)
        if facts:
            ledger.open(facts, utterances)
        return ledger

    def check_pair(self, run: StudyRun) -> None:
        """Check that blocks which need a K pair have one: chosen before, chosen in this run, or given.

        Raises:
            InputError: There is no K pair.
        """
        design = run.plan.design
        waiting = [name for name in self.blocks if design.needs_pair(name)]
        if waiting and design.choosing not in self.blocks and run.pair() is None:
            raise InputError(
                f"--blocks {','.join(self.blocks)}: {waiting[0]} needs a K pair, and the ledger has no grid that "
                "chooses it; add grid to --blocks, or give the pair, such as --at 8,7"
            )


_USUAL_PAIR = Pair(5, 5)
"""The K pair if the paper names none for the data set."""


def _blocks(args: argparse.Namespace, dataset: str) -> tuple[dict[str, Block], tuple[str, ...]]:
    """Return every block that the options name, by name, and the names of the blocks to run."""
    listed, usual = _listed(args, dataset)
    own: list[Block] = []
    if args.vary:
        factors = [Factor(name, values) for name, values in args.vary]
        name = "-".join(factor.name for factor in factors)[:36]
        taken = {block.name for block in listed}
        own.append(Block(f"vary-{name}" if name in taken else name, factors=tuple(factors)))
    if args.systems or (args.budget and not _systems_of(listed if args.study else ())):
        systems = _named(args.systems or (args.system,))
        question = "Which system is best, as they come?" if args.budget else "Which system is best?"
        own.append(Block(SYSTEMS, question=question, systems=systems, title="Systems", fresh=bool(args.budget)))
    if args.budget:  # tuned systems and their defaults run with the same seeds
        listed = [replace(block, fresh=True) if "system" in block.columns else block for block in listed]
    known = {block.name: block for block in listed}
    for block in own:
        if block.name in known:
            raise InputError(
                f"--vary or --systems: the study already has a block {block.name!r}; run it with --blocks "
                f"{block.name}, or give your block another name in a study file"
            )
        known[block.name] = block
    _check_files(known.values())
    given = {name: getattr(args, name) for name in PAIR if getattr(args, name)}
    if given:
        from study.design.design import with_values

        known = {name: with_values(block, given) if block.chooses else block for name, block in known.items()}
    if args.blocks is None:
        asked = [block.name for block in own] or usual
    else:
        for name in args.blocks:
            if name not in known:
                raise InputError(f"--blocks: unknown block {name!r}; choose from {', '.join(known)}")
        asked = [name for name in known if name in {*args.blocks, *(block.name for block in own)}]
    return known, tuple(asked)


def _named(systems: Iterable[str]) -> tuple[str, ...]:
    """Return the systems of a list of names and groups, each once."""
    found: list[str] = []
    for name in systems:
        if name in GROUPS:
            found += group(name)
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def _systems_of(blocks: Iterable[Block]) -> list[str]:
    """Return the systems that blocks vary, each once."""
    changes = [one for block in blocks for _, one in block.changes()]
    return list(dict.fromkeys(str(one["system"]) for one in changes if "system" in one))


def _listed(args: argparse.Namespace, dataset: str) -> tuple[list[Block], list[str]]:
    """Return the blocks of the study file or of the paper, and the names of those that run by default."""
    if args.study:
        from study.design.study_file import load_study

        blocks = load_study(args.study)
        return blocks, [block.name for block in blocks]
    own = args.system == "cemobam"
    blocks = [block for block in paper.blocks if own or block.chooses]
    pair = paper_pair(dataset) if own else None
    if pair or not own:
        blocks.insert(1, paper.confirm(args.profile, pair))
    return [*blocks, *(paper.optional if own else ())], [block.name for block in blocks]


_FILES = frozenset(
    {
        *("trials", "study", "predictions", "utterances", "claims", "report"),
        *("variance", "comparisons", "agreement", "selection", "table3", "table4", "comparison"),
        *("errors", "hard", "calibration", "tuning", TUNED),
        *("curves", "confusion", "confusion-difference", "confusion_difference", "embedding", "marginal"),
        *("critical-difference", "critical_difference"),
    }
)
"""Names of the report's own files."""


def _check_files(blocks: Iterable[Block]) -> None:
    """Raise InputError if two blocks, or a block and the report, would write the same file."""
    taken = dict.fromkeys(_FILES, "the report")
    for block in blocks:
        drawing = block.drawing or block.name
        file = block.file or drawing
        sd = {f"{drawing}-sd", f"{file}_sd"} if block.kind == "plane" else set()
        ours = {name.lower() for name in {block.table or block.name, drawing, file, *sd}}
        if twice := sorted(ours & taken.keys()):
            raise InputError(
                f"block {block.name!r}: {taken[twice[0]]} already has a file named {twice[0]!r}; give the block "
                "another name"
            )
        taken |= dict.fromkeys(ours, f"block {block.name!r}")


def _settings(args: argparse.Namespace) -> dict[str, Value]:
    """Return the settings that the options change, by name."""
    given = {option.name: getattr(args, option.name) for option in CONFIGURED}
    settings: dict[str, Value] = {
        option.name: given[option.name] for option in CONFIGURED if given[option.name] != option.default
    }
    changes: list[Setting] = args.set or []
    for name, value in changes:
        if name in settings:
            raise InputError(f"--set {name}={value}: {name} is given twice; give it once")
        if name in PAIR:
            raise InputError(f"--set {name}={value}: give the K pair with --at, or vary it with --k-audio and --k-text")
        settings[name] = value
    return settings


def _pair(text: str | None, dataset: str) -> Pair | None:
    if text is None:
        return None
    if text == "paper":
        if pair := paper_pair(dataset):
            return pair
        raise InputError(f"--at paper: the paper reports no best K pair for {dataset}; give one, such as --at 8,7")
    match = re.fullmatch(r"([1-9]\d{0,5}),([1-9]\d{0,5})", text)
    if not match:
        raise InputError(f"--at {text} is not a K pair; write K_audio,K_text, each at least 1, such as 8,7, or paper")
    return Pair(*map(int, match.groups()))

"""The ledger: the Optuna storage that records all trials, and the only source of truth.

Each block is one Optuna study, and each trial is one Optuna trial. A trial is recorded when it has ended, in one
transaction, so the ledger never holds half a trial. The trials that are not in the ledger are those that are left to
run. The ledger uses no Optuna sampler: when several workers ask Optuna's GridSampler, it hands out some points twice
and others never (Optuna issues 4627, 5139, 5489).
"""

from __future__ import annotations

import gc
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from cemobam_core.errors import InputError
from cemobam_core.systems.files import is_in_file
from cemobam_core.systems.search import Between, OneOf
from study.design.block import Block
from study.design.configuration import Trial
from study.design.factors import PAIR, Factor
from study.ledger.checked import PREDICTED, block_data_of, check_study_name, facts_of, options_of, outcomes_of
from study.ledger.leases import Leases
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.packing import packed, unpacked
from study.ledger.storages import LedgerFailed, Row, open_storage, place_of, to_save, told
from study.ledger.utterances import TestUtterances

FACTS, OPTIONS, BLOCK = "made from", "asked for", "block"
"""Names of the user attributes of an Optuna study for its :class:`StudyFacts`, the options of its last run and the
description of its block."""

UTTERANCES = "cemobam:utterances"
"""Prefix of the system attributes that hold an Optuna study's :class:`TestUtterances`.

They are not user attributes, because a page of the dashboard shows all user attributes in full."""

_ALWAYS_RECORDED = ("system", *PAIR, "fusion", "modules")
"""Settings that are recorded for every trial that has them, whatever its block varies."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One study in a ledger: all blocks of one name and one tag.

    Attributes:
        name: Name of the study. Its Optuna studies are called ``<name>/<block> <tag>``.
        tag: The settings that differ from the defaults. Empty if none does.
        facts: Facts that the ledger keeps about the study.
        asked: Options of the study's last run. Empty in ledgers that are older than this field.
    """

    name: str
    tag: str
    facts: StudyFacts
    asked: tuple[str, ...] = ()


class Ledger:
    """The trials of one name (usually a data set) in one Optuna storage.

    Args:
        storage: URL of an Optuna storage.
        name: Name of the study. Its Optuna studies are called ``<name>/<block>``.
        tag: Text after the block in the names of Optuna studies, if settings differ from the defaults. Trials with
            other settings are another study.

    Raises:
        InputError: If the URL is not valid, or nothing can be stored there.
    """

    def __init__(self, storage: str, *, name: str, tag: str = "") -> None:
        self._name = name
        self._tag = f" {tag}" if tag else ""
        self._study_ids: dict[str, int] = {}  # Optuna's id of each block's study
        self._described: dict[str, tuple[int, Block]] = {}  # the same, with the block as the study describes it
        self._last_read: dict[str, int] = {}  # id of the last trial that was read, by block
        self._done: dict[str, set[str]] = defaultdict(set)  # signatures of the trials that are done, by block
        self._asked: list[str] = []
        self._utterances: TestUtterances | None = None
        self._url = storage
        self._storage = open_storage(storage)
        # An Optuna study without facts was only just created, and holds no trial.
        studies = self._storage.retried(self._storage.optuna.get_all_studies)
        self._described_before = {study.study_name: study for study in studies if FACTS in study.user_attrs}

    @property
    def shared(self) -> bool:
        """Whether several runs may use the ledger at once."""
        return self._storage.shared

    def leases(self) -> Leases:
        """Return the leases by which several runs share the work."""
        return Leases(self._storage, self._name + self._tag)

    def study_name(self, block: str) -> str:
        """Return the name of a block's Optuna study."""
        return f"{self._name}/{block}{self._tag}"

    @property
    def storage(self) -> BaseStorage:
        """The Optuna storage, for the dashboard."""
        return self._storage.optuna

    def optuna_study(self, block: str) -> optuna.Study | None:
        """Return the Optuna study of a block, to add notes and figures to it, or `None` if it has no trial yet."""
        if self._last_read.get(block, -1) < 0:
            return None
        return optuna.load_study(study_name=self.study_name(block), storage=self._storage.optuna)

    def guarded(self) -> AbstractContextManager[None]:
        """Return a context in which every error of the storage becomes a :class:`LedgerFailed`."""
        return told(self._url)

    def _facts_of(self, study_name: str) -> StudyFacts:
        kept = self._described_before[study_name].user_attrs[FACTS]
        with self._naming(study_name, FACTS):
            check_study_name(study_name)
            return facts_of(kept)

    @contextmanager
    def _naming(self, study_name: str, attribute: str) -> Iterator[None]:
        """Add the ledger, the study and the attribute to an error of its value."""
        try:
            yield
        except InputError as error:
            raise LedgerFailed(self._damaged(f"study {study_name[:80]!r}, attribute {attribute!r}: {error}")) from None

    def _damaged(self, what: str) -> str:
        return f"{place_of(self._url)}: {what}; {to_save(self._url)}"

    def facts(self) -> StudyFacts | None:
        """Return the facts about the study of this name and tag, or `None` if the ledger does not have it yet.

        Raises:
            LedgerFailed: If the facts are damaged.
        """
        ours = next((name for name in self._described_before if self._is_ours(name)), None)
        if ours is None:
            return None
        facts = self._facts_of(ours)
        listed = None
        with suppress(InputError):  # a damaged list is told where it is needed; the next run writes it again
            listed = self.utterances()
        if listed and len(listed.train_sizes) != facts.folds:
            what = f"folds is {facts.folds}, but the list of test utterances has {len(listed.train_sizes)}"
            raise LedgerFailed(self._damaged(f"study {ours!r}, attribute {FACTS!r}: {what}"))
        return facts

    def utterances(self) -> TestUtterances | None:
        """Return the test utterances of the study of this name and tag, or `None` if an older version wrote it.

        Raises:
            InputError: If the list in the ledger is damaged.
        """
        if self._utterances is None:
            for name, study in self._described_before.items():
                if self._is_ours(name) and (kept := _under(UTTERANCES, study.system_attrs)):
                    try:
                        self._utterances = TestUtterances.decoded(unpacked(UTTERANCES, kept) or b"")
                    except InputError as error:
                        raise InputError(
                            f"the ledger's study {name!r}: {error}; run the study's command again with its features "
                            "and without --report-only, which writes the list again"
                        ) from None
                    break
        return self._utterances

    def blocks(self) -> dict[str, dict[str, Any]]:
        """Return the descriptions of the recorded blocks of this name and tag, as :func:`block_data` makes them.

        Raises:
            LedgerFailed: If a description is damaged.
        """
        blocks: dict[str, dict[str, Any]] = {}
        for name, study in self._described_before.items():
            if self._is_ours(name) and BLOCK in study.user_attrs:
                with self._naming(name, BLOCK):
                    blocks[taken_apart(name)[1]] = block_data_of(study.user_attrs[BLOCK])
        return blocks

    def _is_ours(self, study_name: str) -> bool:
        name, block, _ = taken_apart(study_name)
        return name == self._name and study_name == self.study_name(block)

    def recorded(self) -> list[Recorded]:
        """Return all studies in the storage, in order of name and tag.

        Raises:
            LedgerFailed: If the facts or the options of a study are damaged.
        """
        found: dict[tuple[str, str], Recorded] = {}
        for study_name, study in self._described_before.items():
            name, _, tag = taken_apart(study_name)
            facts = self._facts_of(study_name)
            with self._naming(study_name, OPTIONS):
                asked = options_of(study.user_attrs.get(OPTIONS, []))
            found.setdefault((name, tag), Recorded(name=name, tag=tag, facts=facts, asked=asked))
        return [found[key] for key in sorted(found)]

    def open(self, facts: StudyFacts, utterances: TestUtterances | None = None) -> None:
        """Set the facts and test utterances of the trials that will be recorded.

        Args:
            facts: Facts that the ledger keeps about the study.
            utterances: Utterances that the trials are tested on. `None` means that the ledger does not keep them.

        Raises:
            InputError: If the ledger holds trials of this name with other features.
        """
        for study_name in self._described_before:
            if not study_name.startswith(f"{self._name}/"):
                continue
            if (kept := self._facts_of(study_name)).fingerprint != facts.fingerprint:
                raise InputError(
                    f"the ledger's study {study_name!r} was made from {kept.other_than(facts)}; give these features "
                    "another --name or --results"
                )
        self._facts = facts
        self._utterances = utterances

    def has(self, signature: str) -> bool:
        """Return whether a done trial with this signature was read or recorded."""
        return any(signature in done for done in self._done.values())

    def elsewhere(self, storage: str) -> Ledger:
        """Return the ledger of the same study in another storage, opened with the same facts and test utterances.

        Args:
            storage: URL of the other storage.

        Raises:
            LedgerFailed: If the storage cannot be opened.
            InputError: If it holds trials of this name with other features.
        """
        other = Ledger(storage, name=self._name, tag=self._tag.removeprefix(" "))
        other.open(self._facts, self._utterances)
        other._asked = self._asked
        return other

    def keep_options(self, options: Sequence[str]) -> None:
        """Keep the options and test utterances of this run, so that later commands need not be given them again.

        Args:
            options: Options as on a command line. They replace those of the run before.

        Raises:
            LedgerFailed: If the storage cannot be written.
        """
        self._asked = list(options)

        def keep() -> None:
            for study in self._storage.optuna.get_all_studies():
                if not self._is_ours(study.study_name):
                    continue
                if study.user_attrs.get(OPTIONS) != self._asked:
                    self._storage.optuna.set_study_user_attr(study._study_id, OPTIONS, self._asked)
                if FACTS not in study.user_attrs:  # they were lost when the ledger was damaged
                    self._storage.optuna.set_study_user_attr(study._study_id, FACTS, asdict(self._facts))
                self._keep_utterances(study._study_id, study.system_attrs)

        self._storage.retried(keep)

    def keep_recall(self, recall: Mapping[str, float]) -> None:
        """Keep the recall of an approximate index among the facts of the study.

        Args:
            recall: Recall as in :class:`StudyFacts`.

        Raises:
            LedgerFailed: If the storage cannot be written.
        """
        self._facts = replace(self._facts, recall=recall)

        def keep() -> None:
            for study in self._storage.optuna.get_all_studies():
                facts = study.user_attrs.get(FACTS)
                if facts and self._is_ours(study.study_name) and facts.get("recall") != recall:
                    self._storage.optuna.set_study_user_attr(study._study_id, FACTS, {**facts, "recall": recall})

        self._storage.retried(keep)

    def new_outcomes(self, block: str) -> dict[str, Outcome]:
        """Return the outcomes by signature that were recorded in a block's study since this object last read it.

        Both this run and other runs may have recorded them.

        Raises:
            LedgerFailed: If the storage cannot be read.
        """

        def read() -> tuple[list[Row], int]:
            last = self._last_read.get(block, -1)
            if block not in self._study_ids:  # another run may have created the study since
                try:
                    self._study_ids[block] = self._storage.optuna.get_study_id_from_name(self.study_name(block))
                except KeyError:
                    return [], last
            with _without_garbage_collection():
                return self._storage.read(self._study_ids[block], last)

        return self._absorb(block, *self._storage.retried(read))

    def record(self, block: Block, trial: Trial, outcome: Outcome) -> dict[str, Outcome]:
        """Write one ended trial into the block's study, unless the study already has it as done.

        The trial is written completely or not at all.

        Returns:
            The outcomes that are new in the study, including this one, as from :meth:`new_outcomes`.

        Raises:
            LedgerFailed: If the storage cannot be written.
        """
        signature = trial.signature(self._facts.fingerprint)
        is_done = outcome.status == "done"
        attributes: dict[str, Any] = {
            "status": outcome.status,
            "profile": trial.configuration.profile,
            **outcome.metrics,
            "epochs": trial.configuration.get("epochs"),
            "seconds": outcome.seconds,
            "device": outcome.device,
            "signature": signature,
        }
        if outcome.parameters is not None:
            attributes["parameters"] = outcome.parameters
        if outcome.reason:
            attributes |= {"reason": outcome.reason, "log": outcome.log}
        if outcome.confusion:
            attributes["test_confusion"] = outcome.confusion
        ended = datetime.now()
        parameters = trial.parameters(dict.fromkeys((*_ALWAYS_RECORDED, *block.varied)))
        if block.tunes:  # the dashboard rates the importance of all parameters, even of constant ones: leave them out
            attributes |= {"system": parameters["system"], "seed": trial.seed}
            searched = {*block.search, *(["fold"] if self._facts.folds > 1 else [])}
            parameters = {name: value for name, value in parameters.items() if name in searched}
        frozen = create_trial(
            state=TrialState.COMPLETE if is_done else TrialState.FAIL,
            value=outcome.metrics["val_wa"] if is_done else None,
            params=parameters,
            distributions={name: _distribution(name, value, block, trial) for name, value in parameters.items()},
            user_attrs=attributes,
            system_attrs=packed(PREDICTED, outcome.predicted) if outcome.predicted else {},
            intermediate_values=dict(outcome.curve),
        )
        frozen.datetime_start, frozen.datetime_complete = ended - timedelta(seconds=outcome.seconds), ended

        def recorded() -> tuple[list[Row], int]:
            with self._storage.transaction(self._study(block)) as transaction:
                rows, last = transaction.read(self._last_read.get(block.name, -1))
                done = {row.attributes.get("signature") for row in rows if row.done}
                if signature not in self._done[block.name] | done:
                    last = transaction.add(frozen)
                    rows.append(Row(last, is_done, frozen.user_attrs, frozen.intermediate_values, frozen.system_attrs))
                return rows, last

        return self._absorb(block.name, *self._storage.retried(recorded))

    def _absorb(self, block: str, rows: Iterable[Row], last: int) -> dict[str, Outcome]:
        def named(row: Row, error: InputError) -> InputError:
            study = self.study_name(block)
            return LedgerFailed(self._damaged(f"study {study!r}, trial with id {row.id}: {error}"))

        outcomes = outcomes_of(rows, named)
        self._last_read[block] = last
        self._done[block] |= {signature for signature, outcome in outcomes.items() if outcome.status == "done"}
        return outcomes

    def _study(self, block: Block) -> int:
        if block.name in self._described and self._described[block.name][1] == block:
            return self._described[block.name][0]
        study = optuna.create_study(
            study_name=self.study_name(block.name),
            storage=self._storage.optuna,
            direction="maximize",
            load_if_exists=True,
        )
        if FACTS not in study.user_attrs:
            with warnings.catch_warnings():  # set_metric_names is experimental; it only labels the dashboard's axis
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(["validation WA"])
            study.set_user_attr(FACTS, asdict(self._facts))
            study.set_user_attr(OPTIONS, self._asked)
        self._keep_utterances(study._study_id, self._storage.optuna.get_study_system_attrs(study._study_id))
        if study.user_attrs.get(BLOCK) != (data := block_data(block)):
            study.set_user_attr(BLOCK, data)
        self._described[block.name] = study._study_id, block
        return study._study_id

    def _keep_utterances(self, study_id: int, attributes: Mapping[str, Any]) -> None:
        """Write the test utterances of this run into an Optuna study, unless it already has them."""
        if self._utterances is None:
            return
        new, old = packed(UTTERANCES, self._utterances.encoded()), _under(UTTERANCES, attributes)
        for name, part in {**dict.fromkeys(old, ""), **new}.items():  # empty the parts that only the old list has
            if old.get(name) != part:
                self._storage.optuna.set_study_system_attr(study_id, name, part)


def _under(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that :func:`packed` made for a name."""
    return {key: value for key, value in attributes.items() if key.startswith(f"{name}:")}


def taken_apart(study_name: str) -> tuple[str, str, str]:
    """Return the name, the block and the tag in the name of an Optuna study: the inverse of `Ledger.study_name`."""
    name, _, rest = study_name.partition("/")
    block, _, tag = rest.partition(" ")
    return name, block, tag


def block_data(block: Block) -> dict[str, Any]:
    """Return the description of a block as JSON data."""
    return {
        "question": block.question,
        "factors": [[factor.name, list(factor.values)] for factor in block.factors],
        "configurations": {name: dict(changes) for name, changes in block.configurations.items()},
        "reference": block.reference,
        "title": block.title,
        "chooses": block.chooses,
        "labels": [[value, label] for value, label in block.labels.items()],
        **({"fresh": True} if block.fresh else {}),
        **({"tunes": block.tunes} if block.tunes else {}),
        **({"search": {name: _space_data(values) for name, values in block.search.items()}} if block.search else {}),
    }


def _space_data(values: Between | OneOf) -> dict[str, Any]:
    return asdict(values) if isinstance(values, Between) else {"values": list(values.values)}


def _space_of(data: Mapping[str, Any]) -> Between | OneOf:
    return OneOf(*data["values"]) if "values" in data else Between(data["low"], data["high"], log=bool(data["log"]))


def block_of(name: str, data: Mapping[str, Any]) -> Block:
    """Return the block that :func:`block_data` described. Fields that an older version did not write are empty.

    Raises:
        InputError: If the data does not describe a block.
    """
    try:
        return Block(
            name,
            question=str(data.get("question", "")),
            factors=tuple(Factor(factor, values) for factor, values in data.get("factors", ())),
            configurations=dict(data.get("configurations", {})),
            reference=data.get("reference"),
            title=str(data.get("title", "")),
            chooses=bool(data.get("chooses", False)),
            labels=dict(data.get("labels", ())),
            fresh=bool(data.get("fresh", False)),
            tunes=str(data.get("tunes", "")),
            search={setting: _space_of(values) for setting, values in data.get("search", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"its description cannot be read ({error})") from None


_LOGARITHMIC = 8
"""A list of numbers with gaps is on a logarithmic scale if its largest is at least this many times its smallest."""


def _distribution(name: str, value: Any, block: Block, trial: Trial) -> BaseDistribution:
    """Return the Optuna distribution of a parameter.

    The dashboard computes the importance of a parameter over its whole range, so the range should be close to the
    values that are tried. It leaves out a parameter whose range differs between the trials of a study.
    """
    if name in block.search:
        return _searched(block.search[name], value)
    values = next((factor.values for factor in block.factors if factor.name == name), (value,))
    if name == "system":  # trials record it without the folder of its file
        values = tuple(dict.fromkeys(_recorded_name(str(one)) for one in values))
    if isinstance(value, str | bool):
        if name == "profile":
            values = block.names or values
        elif value not in values or len(values) == 1:
            values = get_args(get_type_hints(type(trial.configuration.system)).get(name)) or values
        return CategoricalDistribution(values if value in values else (*values, value))
    if isinstance(value, float):
        low, high = min(map(float, values)), max(map(float, values))
        if low > 0:  # whole decades
            ends = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
            return FloatDistribution(min(low, ends[0]), max(high, ends[1]), log=True)
        return FloatDistribution(low, max(high, 1.0))
    # 1 to 10 for K, or 1 to 100 and so on for a larger K; 0 to 9 for seeds and folds
    first = 1 if name.startswith("k_") else 0
    digits = len(str(max(value, *values) - first)) if len(values) > 1 else len(str(value - first))
    return IntDistribution(first, 10**digits - 1 + first)


def _searched(space: Between | OneOf, value: Any) -> BaseDistribution:
    """Return the Optuna distribution of a tuned setting. Numbers get a range, so that they keep their order.

    The range is widened to ``value``, because the value of the defaults need not lie in the search space.
    """
    values = (space.low, space.high) if isinstance(space, Between) else space.values
    if any(isinstance(one, str | bool) for one in values):
        return CategoricalDistribution(values if value in values else (*values, value))
    low, high = min(*values, value), max(*values, value)
    gaps = isinstance(space, Between) or len(values) <= high - low
    log = low > 0 and (space.log if isinstance(space, Between) else gaps and high / low >= _LOGARITHMIC)
    if all(isinstance(one, int) for one in (*values, value)):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _recorded_name(system: str) -> str:
    """Return a system's name in trials, given its name in a block."""
    path, _, name = system.rpartition(":")
    return f"{Path(path).name}:{name}" if is_in_file(system) else system


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause garbage collection while thousands of trials are read, because it would scan them again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            gc.freeze()  # the trials stay in memory until the report is written

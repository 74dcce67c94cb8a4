"""The ledger: the Optuna storage that says what has been run, and the only source of truth.

One Optuna study a block, one Optuna trial a trial. A trial is recorded when it has ended, in one transaction, so the
ledger never holds half of one, and what it does not hold is what is left to run. No sampler is asked: Optuna's own
GridSampler hands some points out twice and others never when several workers ask (its issues 4627, 5139, 5489).
"""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cemobam_core.errors import InputError
from cemobam_core.systems.files import is_in_file
from cemobam_core.systems.search import Between, OneOf
from study.design.block import Block
from study.design.configuration import Trial
from study.design.factors import PAIR, Factor
from study.ledger.leases import Leases
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.packing import packed, unpacked
from study.ledger.storages import Row, first_line, masked, open_storage
from study.ledger.utterances import TestUtterances

_log = logging.getLogger(__name__)

FACTS, OPTIONS, BLOCK = "made from", "asked for", "block"
"""The user attributes of an Optuna study that hold its :class:`StudyFacts`, the options that it was last run with, and
what it varies."""

UTTERANCES = "cemobam:utterances"
"""What the names of the system attributes begin with that hold an Optuna study's :class:`TestUtterances`.

A page of the dashboard shows all user attributes, in full."""

PREDICTED = "cemobam:predicted"
"""What the names of the system attributes begin with that hold what a trial predicted, a byte an utterance."""

_TOLD = ("system", *PAIR, "fusion", "modules")
"""Settings that are recorded of every trial that has them, whatever its block varies."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One study in a ledger: all blocks of one name and one tag.

    Attributes:
        name: the studies are called ``<name>/<block> <tag>``.
        tag: what differs from the default settings; empty: nothing.
        facts: what the ledger keeps of it.
        asked: the options that it was last run with; none in ledgers of before they were kept.
    """

    name: str
    tag: str
    facts: StudyFacts
    asked: tuple[str, ...] = ()


class Ledger:
    """The trials of one name (usually a data set) in one Optuna storage.

    Args:
        storage: an Optuna storage URL.
        name: the studies are called ``<name>/<block>``.
        tag: what follows the block when settings are not the defaults: trials of other settings are another study.

    Raises:
        InputError: the URL is not one, or nothing can be stored there.
    """

    def __init__(self, storage: str, *, name: str, tag: str = "") -> None:
        self._name = name
        self._tag = f" {tag}" if tag else ""
        self._found: dict[str, int] = {}  # by block, Optuna's id
        self._made: dict[str, tuple[int, Block]] = {}  # likewise, of those that are up to date
        self._told: dict[str, int] = {}  # by block, the id of the last trial that was told of
        self._done: dict[str, set[str]] = defaultdict(set)  # by block, the signatures of those that were done
        self._asked: list[str] = []
        self._utterances: TestUtterances | None = None
        try:
            self._storage = open_storage(storage)
            # A study that was made but not yet described holds no trial.
            described = [study for study in self._storage.optuna.get_all_studies() if FACTS in study.user_attrs]
            self._kept = {
                study.study_name: (StudyFacts.of(study.user_attrs[FACTS]), study.user_attrs.get(OPTIONS, []))
                for study in described
            }
            self._listed = {study.study_name: _under(UTTERANCES, study.system_attrs) for study in described}
            self._varied = {
                study.study_name: study.user_attrs[BLOCK] for study in described if BLOCK in study.user_attrs
            }
        except (SQLAlchemyError, ArgumentError, ImportError, OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--storage {masked(storage)}: cannot be opened as an Optuna storage ({first_line(error)}); "
                "give a URL such as sqlite:///results/study.db, journal:///results/study.journal or "
                "postgresql://user@host/database (with pip install 'cemobam-study[postgresql]'), and make sure that "
                "its place can be written to"
            ) from None

    @property
    def shared(self) -> bool:
        """Whether several runs may use it at once."""
        return self._storage.shared

    def leases(self) -> Leases:
        """This run's share of what several runs do together."""
        return Leases(self._storage, self._name + self._tag)

    def study_name(self, block: str) -> str:
        """The Optuna study of a block."""
        return f"{self._name}/{block}{self._tag}"

    @property
    def storage(self) -> BaseStorage:
        """Where it is kept, for the dashboard to serve."""
        return self._storage.optuna

    def optuna_study(self, block: str) -> optuna.Study | None:
        """The Optuna study of a block, to hang notes and figures on; None: it has no trial yet."""
        if self._told.get(block, -1) < 0:
            return None
        return optuna.load_study(study_name=self.study_name(block), storage=self._storage.optuna)

    def facts(self) -> StudyFacts | None:
        """What is kept of the studies of this name and tag; None: there are none yet."""
        return next((facts for name, (facts, _) in self._kept.items() if self._is_ours(name)), None)

    def utterances(self) -> TestUtterances | None:
        """Return the test utterances of the studies of this name and tag; None: of before they were kept.

        Raises:
            InputError: what the ledger has is not what a study writes there.
        """
        if self._utterances is None:
            for name, kept in self._listed.items():
                if kept and self._is_ours(name):
                    try:
                        self._utterances = TestUtterances.decoded(unpacked(UTTERANCES, kept) or b"")
                    except InputError as error:
                        raise InputError(
                            f"the ledger's study {name!r}: {error}; run the study's command again, with its features "
                            "and without --report-only: it writes that list anew"
                        ) from None
                    break
        return self._utterances

    def blocks(self) -> dict[str, dict[str, Any]]:
        """Return what the recorded blocks of this name and tag vary, by name, as :func:`block_data` has it."""
        return {taken_apart(name)[1]: data for name, data in self._varied.items() if self._is_ours(name)}

    def _is_ours(self, study_name: str) -> bool:
        name, block, _ = taken_apart(study_name)
        return name == self._name and study_name == self.study_name(block)

    def recorded(self) -> list[Recorded]:
        """Return every study in the storage, of whatever name and tag, in order of name and tag."""
        found: dict[tuple[str, str], Recorded] = {}
        for study_name, (facts, asked) in self._kept.items():
            name, _, tag = taken_apart(study_name)
            found.setdefault((name, tag), Recorded(name=name, tag=tag, facts=facts, asked=tuple(asked)))
        return [found[key] for key in sorted(found)]

    def open(self, facts: StudyFacts, utterances: TestUtterances | None = None) -> None:
        """Say what the trials to come are made from.

        Args:
            facts: what the ledger keeps of the study.
            utterances: that the trials are tested on; None: the ledger does not learn them.

        Raises:
            InputError: the ledger holds trials of this name that were made from other features.
        """
        for study_name, (kept, _) in self._kept.items():
            if study_name.startswith(f"{self._name}/") and kept.fingerprint != facts.fingerprint:
                raise InputError(
                    f"the ledger's study {study_name!r} was made from other features or another split (fingerprint "
                    f"{kept.fingerprint}, now {facts.fingerprint}); give these another --name or other --results"
                )
        self._facts = facts
        self._utterances = utterances

    def keep_options(self, options: Sequence[str]) -> None:
        """Keep the options of this run, and its test utterances, so that later commands need not be told them again.

        Args:
            options: as a command line has them; those of the run before are replaced.

        Raises:
            LedgerFailed: the storage refused.
        """
        self._asked = list(options)

        def keep() -> None:
            for study in self._storage.optuna.get_all_studies():
                if self._is_ours(study.study_name) and study.user_attrs.get(OPTIONS) != self._asked:
                    self._storage.optuna.set_study_user_attr(study._study_id, OPTIONS, self._asked)
                if self._is_ours(study.study_name):
                    self._keep_utterances(study._study_id, study.system_attrs)

        self._storage.lasting(keep)

    def news(self, block: str) -> dict[str, Outcome]:
        """What this run or another has recorded in the block's study since this object last told, by signature.

        Raises:
            LedgerFailed: the storage refused.
        """

        def read() -> tuple[list[Row], int]:
            told = self._told.get(block, -1)
            if block not in self._found:  # another run may have made it since
                try:
                    self._found[block] = self._storage.optuna.get_study_id_from_name(self.study_name(block))
                except KeyError:
                    return [], told
            with _uncollected():
                return self._storage.read(self._found[block], told)

        return self._heard(block, *self._storage.lasting(read))

    def record(self, block: Block, trial: Trial, outcome: Outcome) -> dict[str, Outcome]:
        """Write one ended trial into the block's study, whole or not at all, unless it is there as done.

        Returns:
            What the study has that was not told of before, this trial among it: as :meth:`news`.

        Raises:
            LedgerFailed: the storage refused.
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
        parameters = trial.parameters(dict.fromkeys((*_TOLD, *block.varied)))
        if block.tunes:  # the dashboard weighs every parameter, those too that are the same throughout
            attributes |= {"system": parameters["system"], "seed": trial.seed}
            told = {*block.search, *(["fold"] if self._facts.folds > 1 else [])}
            parameters = {name: value for name, value in parameters.items() if name in told}
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
                rows, last = transaction.read(self._told.get(block.name, -1))
                done = {row.attributes.get("signature") for row in rows if row.done}
                if signature not in self._done[block.name] | done:
                    last = transaction.add(frozen)
                    rows.append(Row(is_done, frozen.user_attrs, frozen.intermediate_values, frozen.system_attrs))
                return rows, last

        return self._heard(block.name, *self._storage.lasting(recorded))

    def _heard(self, block: str, rows: Iterable[Row], last: int) -> dict[str, Outcome]:
        outcomes = _outcomes(rows)
        self._told[block] = last
        self._done[block] |= {signature for signature, outcome in outcomes.items() if outcome.status == "done"}
        return outcomes

    def _study(self, block: Block) -> int:
        if block.name in self._made and self._made[block.name][1] == block:
            return self._made[block.name][0]
        study = optuna.create_study(
            study_name=self.study_name(block.name),
            storage=self._storage.optuna,
            direction="maximize",
            load_if_exists=True,
        )
        if FACTS not in study.user_attrs:
            with warnings.catch_warnings():  # experimental in Optuna, and only the dashboard's axis label
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(["validation WA"])
            study.set_user_attr(FACTS, asdict(self._facts))
            study.set_user_attr(OPTIONS, self._asked)
        self._keep_utterances(study._study_id, self._storage.optuna.get_study_system_attrs(study._study_id))
        if study.user_attrs.get(BLOCK) != (data := block_data(block)):
            study.set_user_attr(BLOCK, data)
        self._made[block.name] = study._study_id, block
        return study._study_id

    def _keep_utterances(self, study_id: int, attributes: Mapping[str, Any]) -> None:
        """Write the test utterances of this run into an Optuna study, unless it has the same."""
        if self._utterances is None:
            return
        new, old = packed(UTTERANCES, self._utterances.encoded()), _under(UTTERANCES, attributes)
        for name, part in {**dict.fromkeys(old, ""), **new}.items():  # the old may have had more parts
            if old.get(name) != part:
                self._storage.optuna.set_study_system_attr(study_id, name, part)


def _under(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that hold what was packed under a name."""
    return {key: value for key, value in attributes.items() if key.startswith(f"{name}:")}


def taken_apart(study_name: str) -> tuple[str, str, str]:
    """Return the name, the block and the tag of which :meth:`Ledger.study_name` makes the name of an Optuna study."""
    name, _, rest = study_name.partition("/")
    block, _, tag = rest.partition(" ")
    return name, block, tag


def block_data(block: Block) -> dict[str, Any]:
    """Return what a block varies, as JSON holds it."""
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
        **({"search": {name: _space_data(of) for name, of in block.search.items()}} if block.search else {}),
    }


def _space_data(of: Between | OneOf) -> dict[str, Any]:
    return asdict(of) if isinstance(of, Between) else {"values": list(of.values)}


def _space_of(data: Mapping[str, Any]) -> Between | OneOf:
    return OneOf(*data["values"]) if "values" in data else Between(data["low"], data["high"], log=bool(data["log"]))


def block_of(name: str, data: Mapping[str, Any]) -> Block:
    """Return the block of which :func:`block_data` gave the data; what an older version did not write is empty.

    Raises:
        InputError: data that is none of a block's.
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
            search={setting: _space_of(of) for setting, of in data.get("search", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"its description cannot be read ({error})") from None


_LOGARITHMIC = 8
"""A list of numbers with gaps is of powers where its largest is so many times its smallest."""


def _distribution(name: str, value: Any, block: Block, trial: Trial) -> BaseDistribution:
    """Return where a parameter's value comes from.

    The dashboard weighs parameters over their whole range, so that should be near what is tried; and it leaves out a
    parameter whose range is not the same in all trials of a study.
    """
    if name in block.search:
        return _searched(block.search[name], value)
    values = next((factor.values for factor in block.factors if factor.name == name), (value,))
    if name == "system":  # recorded without the folder of its file
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
    # 1 to 10, or to 100 and so on for a larger K; 0 to 9 for seeds and folds
    first = 1 if name.startswith("k_") else 0
    digits = len(str(max(value, *values) - first)) if len(values) > 1 else len(str(value - first))
    return IntDistribution(first, 10**digits - 1 + first)


def _searched(of: Between | OneOf, value: Any) -> BaseDistribution:
    """Return where the value of a setting that is tuned comes from; numbers are of a range, so that they have an order.

    The value of the defaults need not be in the range.
    """
    values = (of.low, of.high) if isinstance(of, Between) else of.values
    if any(isinstance(one, str | bool) for one in values):
        return CategoricalDistribution(values if value in values else (*values, value))
    low, high = min(*values, value), max(*values, value)
    gaps = isinstance(of, Between) or len(values) <= high - low
    log = low > 0 and (of.log if isinstance(of, Between) else gaps and high / low >= _LOGARITHMIC)
    if all(isinstance(one, int) for one in (*values, value)):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _recorded_name(system: str) -> str:
    """Return the name of a system as trials have it, of the name as a block has it."""
    path, _, name = system.rpartition(":")
    return f"{Path(path).name}:{name}" if is_in_file(system) else system


@contextmanager
def _uncollected() -> Iterator[None]:
    """Read thousands of trials without garbage collection: it would go through all that is read time and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
            gc.freeze()  # it stays for as long as the report takes


def _outcomes(rows: Iterable[Row]) -> dict[str, Outcome]:
    """By signature, the done one where there are several."""
    outcomes: dict[str, Outcome] = {}
    for row in rows:
        signature = row.attributes.get("signature")
        if signature and (signature not in outcomes or outcomes[signature].status != "done"):
            outcomes[signature] = _outcome(row)
    return outcomes


def _outcome(row: Row) -> Outcome:
    attributes = row.attributes
    return Outcome(
        status="done" if row.done else "failed",
        seconds=attributes.get("seconds", math.nan),
        device=attributes.get("device", ""),
        parameters=attributes.get("parameters"),
        metrics={name: attributes[name] for name in METRICS if name in attributes} if row.done else {},
        curve=row.curve,
        reason=attributes.get("reason", ""),
        confusion=tuple(map(tuple, attributes.get("test_confusion", ()))),
        predicted=_predicted(row) if row.done else b"",
        log=attributes.get("log", ""),
    )


def _predicted(row: Row) -> bytes:
    """Return what a trial predicted; empty: it was not kept, or is damaged."""
    try:
        return unpacked(PREDICTED, row.unseen) or b""
    except InputError as error:
        _log.warning("the trial %s goes without its predictions: %s", row.attributes.get("signature"), error)
        return b""

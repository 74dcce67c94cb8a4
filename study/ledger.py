"""The ledger: the Optuna storage that says what has been run, and the only source of truth.

One Optuna study a block, one Optuna trial a trial. A trial is recorded when it has ended, in one transaction, so the
ledger never holds half of one, and what it does not hold is what is left to run. No sampler is asked: Optuna's own
GridSampler hands some points out twice and others never when several workers ask (its issues 4627, 5139, 5489).
"""

from __future__ import annotations

import gc
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cemobam_core.config import FUSIONS, MODULES
from cemobam_core.errors import InputError
from study.design import BLOCKS, Trial

SPLITS = ("train", "val", "test")
MEASURES = ("loss", "wa", "ua", "wf1")
METRICS = tuple(f"{split}_{measure}" for split in SPLITS for measure in MEASURES)

_FACTS = "made from"
"""The user attribute of an Optuna study that holds its :class:`StudyFacts`."""

Status = Literal["done", "failed"]

_K = IntDistribution(1, 100_000)
_DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "k_audio": _K,
    "k_text": _K,
    "fusion": CategoricalDistribution(FUSIONS),
    "modules": CategoricalDistribution(MODULES),
    "fold": IntDistribution(0, 1000),
    "seed": IntDistribution(0, 2**32 - 1),
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class LedgerFailed(Exception):
    """The storage refused to be read or written: a full disk, a lost connection."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one trial.

    Attributes:
        status: ``done``, or ``failed``, which the next run tries again.
        seconds: wall-clock time of the training and its evaluation.
        device: where it ran.
        metrics: by name, as in :data:`METRICS`; empty when failed.
        curve: validation WA by epoch.
        reason: why it failed.
        confusion: C rows of C counts of test utterances: row the label, column the prediction; empty when failed, and
            in ledgers of before it was kept.
        traceback: where it failed, for the log; the ledger does not keep it.
    """

    status: Status
    seconds: float
    device: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What a ledger keeps of a study beside its trials, so that it can be read without the features.

    Attributes:
        dataset: the data set's name.
        title: the data set's name as tables show it.
        fingerprint: of the features in their splits.
        folds: how many folds the features come in.
        settings: what all trials share.
        class_names: the emotions; none in ledgers of before they were kept.
        made_with: versions of what ran the study's first trial.
        recipe: signature of what the features were made from, where they were made of a raw corpus.
    """

    dataset: str
    title: str
    fingerprint: str
    folds: int
    settings: Mapping[str, Any]
    class_names: Sequence[str] = ()
    made_with: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""

    def __post_init__(self) -> None:  # noqa: D105
        object.__setattr__(self, "class_names", tuple(self.class_names))  # a list, as the ledger gives them


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
        self._studies: dict[str, optuna.Study] = {}
        try:
            self._storage = optuna.storages.get_storage(storage)
            # A study that was made but not yet described holds no trial.
            self._kept = {
                study.study_name: StudyFacts(**study.user_attrs[_FACTS])
                for study in self._storage.get_all_studies()
                if _FACTS in study.user_attrs
            }
        except (SQLAlchemyError, ArgumentError, ImportError, OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--storage {masked(storage)}: cannot be opened as an Optuna storage ({_first_line(error)}); "
                "give a URL such as sqlite:///results/study.db, and make sure that its place can be written to"
            ) from None

    def study_name(self, block: str) -> str:
        """The Optuna study of a block."""
        return f"{self._name}/{block}{self._tag}"

    @property
    def storage(self) -> BaseStorage:
        """Where it is kept, for the dashboard to serve."""
        return self._storage

    def optuna_study(self, block: str) -> optuna.Study | None:
        """The Optuna study of a block, to hang notes and figures on; None: it has no trial yet."""
        return self._study(block) if block in self._studies or self.study_name(block) in self._kept else None

    def facts(self) -> StudyFacts | None:
        """What is kept of the studies of this name and tag; None: there are none yet."""
        for block in BLOCKS:
            if self.study_name(block) in self._kept:
                return self._kept[self.study_name(block)]
        return None

    def open(self, facts: StudyFacts) -> None:
        """Say what the trials to come are made from.

        Raises:
            InputError: the ledger holds trials of this name that were made from other features.
        """
        for study_name, kept in self._kept.items():
            if study_name.startswith(f"{self._name}/") and kept.fingerprint != facts.fingerprint:
                raise InputError(
                    f"the ledger's study {study_name!r} was made from other features or another split (fingerprint "
                    f"{kept.fingerprint}, now {facts.fingerprint}); give these another --name or other --results"
                )
        self._facts = facts

    def outcomes(self, block: str) -> dict[str, Outcome]:
        """What the block's study holds: outcomes by signature, the done one where there are several."""
        outcomes: dict[str, Outcome] = {}
        if self.study_name(block) not in self._kept and block not in self._studies:
            return outcomes
        try:
            with _uncollected():
                trials = self._study(block).get_trials(deepcopy=False)
        except SQLAlchemyError as error:
            raise LedgerFailed(_first_line(error)) from error
        for trial in trials:
            signature = trial.user_attrs.get("signature")
            if signature and (signature not in outcomes or outcomes[signature].status != "done"):
                outcomes[signature] = _outcome(trial)
        return outcomes

    def record(self, block: str, trial: Trial, outcome: Outcome) -> None:
        """Write one ended trial into the block's study, whole or not at all.

        Raises:
            LedgerFailed: the storage refused.
        """
        done = outcome.status == "done"
        attributes: dict[str, Any] = {
            "status": outcome.status,
            "profile": trial.configuration.profile,
            **outcome.metrics,
            "epochs": trial.configuration.training.epochs,
            "seconds": outcome.seconds,
            "device": outcome.device,
            "signature": trial.signature(self._facts.fingerprint),
        }
        if outcome.reason:
            attributes["reason"] = outcome.reason
        if outcome.confusion:
            attributes["test_confusion"] = outcome.confusion
        ended = datetime.now()
        frozen = create_trial(
            state=TrialState.COMPLETE if done else TrialState.FAIL,
            value=outcome.metrics["val_wa"] if done else None,
            params=trial.parameters,
            distributions=_DISTRIBUTIONS,
            user_attrs=attributes,
            intermediate_values=dict(outcome.curve),
        )
        frozen.datetime_start, frozen.datetime_complete = ended - timedelta(seconds=outcome.seconds), ended
        try:
            self._study(block).add_trial(frozen)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise LedgerFailed(_first_line(error)) from error

    def _study(self, block: str) -> optuna.Study:
        if block not in self._studies:
            study = optuna.create_study(
                study_name=self.study_name(block),
                storage=self._storage,
                direction="maximize",
                load_if_exists=True,
            )
            if _FACTS not in study.user_attrs:
                with warnings.catch_warnings():  # experimental in Optuna, and only the dashboard's axis label
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names(["validation WA"])
                study.set_user_attr(_FACTS, asdict(self._facts))
            self._studies[block] = study
        return self._studies[block]


def masked(storage: str) -> str:
    """A storage URL without its password, to be printed."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


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


def _outcome(trial: FrozenTrial) -> Outcome:
    attributes = trial.user_attrs
    done = trial.state == TrialState.COMPLETE
    return Outcome(
        status="done" if done else "failed",
        seconds=attributes.get("seconds", math.nan),
        device=attributes.get("device", ""),
        metrics={name: attributes[name] for name in METRICS} if done else {},
        curve=trial.intermediate_values,
        reason=attributes.get("reason", ""),
        confusion=tuple(map(tuple, attributes.get("test_confusion", ()))),
    )


def _first_line(error: BaseException) -> str:
    """What was the matter in the first place: the database's own words."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]

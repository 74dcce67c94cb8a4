"""Outcomes of trials, and the facts that a ledger keeps about a study: plain data, without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from cemobam_core.metrics import METRICS as SCORES

SPLITS = ("train", "val", "test")
MEASURES = ("loss", *SCORES)
METRICS = tuple(f"{split}_{measure}" for split in SPLITS for measure in MEASURES)

Status = Literal["done", "failed"]
Split = Literal["val", "test"]
Metric = str
"""The name of a metric, as in :data:`cemobam_core.metrics.METRICS`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one trial.

    Attributes:
        status: ``done`` or ``failed``. The next run tries a failed trial again.
        seconds: Wall-clock time of the training and its evaluation.
        device: Device that the trial ran on.
        parameters: Number of parameters that gradient descent learnt. `None` if the system is fitted in another way,
            the trial failed, or the ledger is older than this field.
        metrics: Metrics by name, as in :data:`METRICS`. Empty if the trial failed.
        curve: Validation WA by epoch.
        reason: Reason of the failure.
        confusion: C rows of C counts of test utterances: a row per label, a column per prediction. Empty if the trial
            failed, and in ledgers that are older than this field.
        predicted: Index of the predicted class of each test utterance, one byte each, in the fold's order. Empty if
            the trial failed, if there are more than 255 classes, and in ledgers that are older than this field.
        traceback: Traceback of the failure, for the log. The ledger does not keep it.
        log: Path of the log file that has the traceback.
    """

    status: Status
    seconds: float
    device: str
    parameters: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    predicted: bytes = field(default=b"", repr=False)
    traceback: str = ""
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """Facts about a study that a ledger keeps beside its trials, so that it can be read without the features.

    Attributes:
        dataset: Name of the data set.
        title: Name of the data set in tables.
        fingerprint: Fingerprint of the features in their splits.
        folds: Number of folds of the features.
        settings: Settings that all trials share.
        class_names: The emotions. Empty in ledgers that are older than this field.
        made_with: Versions of the software that ran the study's first trial.
        recipe: Signature of the corpus and settings that the features were made from. Empty if they were not made
            from a raw corpus.
        splits: Fingerprint of the ids, folds and splits of the utterances. Empty in ledgers that are older than this
            field.
        recall: Recall of the approximate index that ranked the neighbours, by modality and K. Empty if all rankings
            are exact.
    """

    dataset: str
    title: str
    fingerprint: str
    folds: int
    settings: Mapping[str, Any]
    class_names: Sequence[str] = ()
    made_with: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    splits: str = ""
    recall: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:  # noqa: D105
        object.__setattr__(self, "class_names", tuple(self.class_names))  # the ledger returns a list

    def other_than(self, now: StudyFacts) -> str:
        """Return how these features differ from those of a run, for a message that refuses to mix them.

        Args:
            now: Facts of the run. Its features have another fingerprint, or another recipe.
        """
        if self.class_names and set(self.class_names) != set(now.class_names):
            return f"other classes ({', '.join(self.class_names)}; now {', '.join(now.class_names)})"
        if now.fingerprint:
            return f"other features or another split (fingerprint {self.fingerprint}, now {now.fingerprint})"
        return f"other features (signature {self.recipe}, now {now.recipe})"

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> StudyFacts:
        """Return the facts in a ledger, which an older or a newer version may have written.

        Args:
            kept: Facts by name. Missing facts are empty, and unknown ones are ignored.
        """
        empty = {"dataset": "", "title": "", "fingerprint": "", "folds": 1, "settings": {}}
        known = {one.name for one in fields(cls)}
        return cls(**{**empty, **{name: value for name, value in kept.items() if name in known}})

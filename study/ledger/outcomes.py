"""What became of a trial, and what a ledger keeps of a study beside its trials: plain data, without a database."""

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
    """What became of one trial.

    Attributes:
        status: ``done``, or ``failed``, which the next run tries again.
        seconds: wall-clock time of the training and its evaluation.
        device: where it ran.
        parameters: how many numbers were learnt by gradient descent; None: the system is fitted in another way, the
            trial failed, or the ledger is of before it was kept.
        metrics: by name, as in :data:`METRICS`; empty when failed.
        curve: validation WA by epoch.
        reason: why it failed.
        confusion: C rows of C counts of test utterances: row the label, column the prediction; empty when failed, and
            in ledgers of before it was kept.
        predicted: the index of the predicted class of each test utterance, a byte each, in the fold's order; empty
            when failed, with more than 255 classes, and in ledgers of before it was kept.
        traceback: where it failed, for the log; the ledger does not keep it.
        log: the file that has it.
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

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> StudyFacts:
        """Return the facts that a ledger has, which an older or a newer version may have written.

        Args:
            kept: by name; what is missing is empty, and what is not known here is left out.
        """
        empty = {"dataset": "", "title": "", "fingerprint": "", "folds": 1, "settings": {}}
        known = {one.name for one in fields(cls)}
        return cls(**{**empty, **{name: value for name, value in kept.items() if name in known}})

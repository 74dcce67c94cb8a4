"""Executing one trial: what every engine does with it, wherever it runs."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from traceback import format_exception

import torch
from torch import Tensor

from cemobam_core.config import METHOD_VERSION
from cemobam_core.corpora.splits import Assignment
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold
from cemobam_core.graph import TopKGraph
from study.design import Trial
from study.ledger import METRICS, Outcome
from study.models import Keeping

TRIES = 2
"""A trial whose worker dies (killed, out of memory) is tried once more, then recorded as failed."""


@dataclass(frozen=True, eq=False)
class StudyData:
    """What all trials share, made once: the features of every fold and the ranking of every split.

    Attributes:
        folds: features by fold.
        rankings: by fold, then split, each utterance's nearest.
        keeping: where trained models are kept; None: they are not.
    """

    folds: tuple[Fold, ...]
    rankings: tuple[dict[str, TopKGraph], ...]
    keeping: Keeping | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of it, each once."""
        for fold, rankings in zip(self.folds, self.rankings, strict=True):
            for name, features in fold.splits.items():
                yield from features.tensors().values()
                yield from (rankings[name].by_audio, rankings[name].by_text)

    @classmethod
    def prepare(cls, folds: tuple[Fold, ...], k_max: int, *, keeping: Keeping | None = None) -> StudyData:
        """Rank the neighbours in every split, once for the whole grid.

        Raises:
            InputError: a split with too few utterances for ``k_max`` neighbours.
        """
        rankings = tuple({name: s.rank(k_max) for name, s in fold.splits.items()} for fold in folds)
        return cls(folds, rankings, keeping)


def check_k(folds: Sequence[Fold | Assignment], k_max: int) -> None:
    """See that every split has enough utterances for the largest K.

    Raises:
        InputError: one has not; says which, and the largest K that would do.
    """
    name, smallest = min((item for fold in folds for item in fold.splits.items()), key=lambda item: len(item[1]))
    if k_max >= len(smallest):
        source = f"{smallest.source} has" if isinstance(smallest, FeatureSet) else "there are"
        raise InputError(
            f"K={k_max} (the largest of --k-audio, --k-text and --at): {source} {len(smallest)} utterances in the "
            f"{name} split, so K can be {len(smallest) - 1} at most"
        )


def versions() -> dict[str, str]:
    """What a trial's numbers, or a report's, may depend on."""
    known = {"python": platform.python_version(), "method": str(METHOD_VERSION)}
    for package in ("cemobam-study", "torch", "torch-geometric", "numpy", "scipy", "statsmodels", "scikit-learn"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            continue
    return known


def execute(trial: Trial, data: StudyData, device: str) -> Outcome:
    """Train and evaluate one trial; the numbers depend on the trial and its data alone.

    Raises:
        Exception: whatever the training raises; engines turn it into a failed outcome.
    """
    from cemobam_core.training import Batch, train  # noqa: PLC0415  (slow to import, of use to workers alone)

    start = time.perf_counter()
    fold, rankings = data.folds[trial.fold], data.rankings[trial.fold]
    pair, gather_from = trial.configuration.pair, trial.configuration.graph.gather_from
    batches = {
        name: Batch.from_features(split, rankings[name].edge_index(pair.k_audio, pair.k_text, gather_from=gather_from))
        for name, split in fold.splits.items()
    }
    config = replace(
        trial.configuration.model,
        num_classes=fold.train.num_classes,
        audio_dim=fold.train.audio.shape[-1],
        text_dim=fold.train.text.shape[-1],
    )
    result = train(config, batches, training=trial.configuration.training, seed=trial.seed, device=torch.device(device))
    metrics = {name: getattr(result.metrics[name.partition("_")[0]], name.partition("_")[2]) for name in METRICS}
    seconds = round(time.perf_counter() - start, 3)
    if data.keeping:
        test = batches["test"].to(device)
        with torch.no_grad():
            embedding = result.model.embedding(test.audio, test.text, test.edge_index, test.audio_mask, test.text_mask)
        data.keeping.keep(
            trial,
            result.model,
            class_names=fold.train.class_names,
            metrics=metrics,
            embedding=embedding,
            labels=fold.test.labels,
        )
    return Outcome(
        status="done",
        seconds=seconds,
        device=device,
        metrics=metrics,
        curve=result.curve,
        confusion=result.metrics["test"].confusion,
    )


def attempt(trial: Trial, data: StudyData, device: str) -> Outcome:
    """:func:`execute`, with what a trial raises as its outcome, so that the study goes on.

    Raises:
        MemoryError: on the CPU, or torch's on a GPU: as good as a worker's death, for its memory must be let go.
    """
    try:
        return execute(trial, data, device)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a trial's own failure
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Outcome(
            status="failed", seconds=0.0, device=device, reason=reason, traceback="".join(format_exception(error))
        )


def ran_past(timeout: float, device: str) -> Outcome:
    """The outcome of a trial that was given up after ``timeout`` seconds."""
    return Outcome(status="failed", seconds=timeout, device=device, reason=f"ran past --trial-timeout {timeout:g} s")

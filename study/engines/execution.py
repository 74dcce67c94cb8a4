"""The execution of trials, which is the same in every engine."""

from __future__ import annotations

import gc
import logging
import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from traceback import format_exception
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cemobam_core.approximate import Index
from cemobam_core.corpora.splits import SPLITS, Assignment
from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES, FeatureSet, Fold
from cemobam_core.graph import EvaluationGraph, GatherFrom, GraphConfig, RankedGraph, Ranking, in_parts, lowest
from cemobam_core.neighbours import Pooled, Ties
from cemobam_core.rows import HeldTensor, Rows, StoredTensor
from cemobam_core.systems import NeuralSystem
from cemobam_core.training.config import METHOD_VERSION, TrainingConfig
from study.design.configuration import Trial
from study.engines.models import Keeping
from study.engines.probabilities import KeptProbabilities
from study.ledger.outcomes import METRICS, Outcome

if TYPE_CHECKING:
    from cemobam_core.training.batch import Batch

_log = logging.getLogger(__name__)

Group = tuple[Trial, ...]
"""Trials that a worker gets at once: one on a CPU, and several that can be trained as one stack on a GPU."""

STACKED = 32
"""Largest number of trials in a group on a GPU. Trials that do not fit into its memory are given out again."""

_SHARE = 0.8
"""Largest share of a GPU's free memory that a stack may use, by estimate."""

TRIES = 2
"""Number of times that a trial is tried if its worker dies (killed, out of memory). Then it is recorded as failed."""


class Labelled(NamedTuple):
    """The choices of a trial, beside K, that the graph of a split depends on.

    Attributes:
        split: Name of the split.
        gather_from: As in :class:`GraphConfig`.
        evaluation_graph: As in :class:`GraphConfig`. ``own`` for train.
        evaluation_size: As in :class:`GraphConfig`. 0 for train.
        ties: As in :class:`GraphConfig`.
        seed: Seed of the trial if it orders ties, else 0.
        found_by: The ``index`` of :class:`GraphConfig`.
    """

    split: str
    gather_from: GatherFrom
    evaluation_graph: EvaluationGraph
    evaluation_size: int
    ties: Ties
    seed: int
    found_by: Index

    @classmethod
    def of(cls, split: str, graph: GraphConfig, seed: int) -> Labelled:
        """Return the choices that the graph of a trial's split depends on."""
        seed = seed if graph.ties == "random" else 0
        if split == "train":
            return cls(split, graph.gather_from, "own", 0, graph.ties, seed, graph.index)
        return cls(
            split, graph.gather_from, graph.evaluation_graph, graph.evaluation_size, graph.ties, seed, graph.index
        )


@dataclass(frozen=True, eq=False)
class StudyData:
    """Data that all trials share and that is made once: the features of all folds and the graphs of all splits.

    Attributes:
        folds: Features by fold.
        graphs: Ranked edges by fold, then by :class:`Labelled`. A missing graph is made when a trial needs it.
        k_max: The largest K.
        keeping: Place for trained models. `None` if models are not kept.
        probabilities: Place for the probabilities of the test utterances. `None` if they are not kept.
    """

    folds: tuple[Fold, ...]
    graphs: tuple[dict[Labelled, RankedGraph], ...]
    k_max: int
    keeping: Keeping | None = None
    probabilities: KeptProbabilities | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Yield all tensors in memory, each once. Features that stay in their files are not among them."""
        for fold, graphs in zip(self.folds, self.graphs, strict=True):
            for features in fold.splits.values():
                yield from (value for value in features.tensors().values() if isinstance(value, Tensor))
            for graph in graphs.values():
                yield from graph.tensors()

    def stored(self) -> set[StoredTensor]:
        """Return the tensors of features that stay in their files."""
        splits = (features for fold in self.folds for features in fold.splits.values())
        rows = (value for features in splits for value in features.tensors().values() if isinstance(value, Rows))
        return {part for one in rows for part in one.parts if isinstance(part, StoredTensor)}

    def held(self) -> StudyData:
        """Return the same data without files. Pickling takes every number along, once, as it is stored."""
        known: dict[StoredTensor, HeldTensor] = {}
        return replace(self, folds=tuple(fold.held(known) for fold in self.folds))

    @classmethod
    def prepare(
        cls,
        folds: tuple[Fold, ...],
        k_max: int,
        *,
        graphs: Iterable[GraphConfig] = (GraphConfig(),),
        seeds: Iterable[int] = (0,),
        keeping: Keeping | None = None,
        probabilities: KeptProbabilities | None = None,
        device: str = "cpu",
    ) -> StudyData:
        """Rank the neighbours in every split, once for all graphs.

        Args:
            folds: Features by fold.
            k_max: The largest K. 0 means that no trial uses a graph.
            graphs: Graph settings of the trials. Their K are ignored.
            seeds: Seeds of the trials.
            keeping: Place for trained models. `None` if models are not kept.
            probabilities: Place for the probabilities of the test utterances. `None` if they are not kept.
            device: Device that ranks large splits.

        Raises:
            InputError: If a split has too few utterances for ``k_max`` neighbours, too many ties to link all, or FAISS
                is not installed and an index needs it.
        """
        wanted = product(SPLITS, list(graphs), list(seeds))
        labelled = dict.fromkeys(Labelled.of(*one) for one in wanted) if k_max else {}
        made = []
        for fold in folds:
            rankings: dict[tuple[object, ...], Ranking] = {}
            made.append({one: _graph(fold, one, k_max, rankings, device) for one in labelled})
        return cls(folds, tuple(made), k_max, keeping, probabilities)

    @property
    def recall(self) -> dict[str, float]:
        """The lowest recall of an approximate index over all graphs, by modality. Empty if all rankings are exact."""
        found = lowest(graph.recall for graphs in self.graphs for graph in graphs.values())
        return {f"{name} at K={self.k_max}": value for name, value in zip(MODALITIES, found or (), strict=False)}

    def graph(self, fold: int, labelled: Labelled) -> RankedGraph:
        """Return the ranked edges of a split's graph, and make them if they are missing."""
        graphs = self.graphs[fold]
        if labelled not in graphs:
            graphs[labelled] = _graph(self.folds[fold], labelled, self.k_max, {})
        return graphs[labelled]


def _graph(
    fold: Fold, key: Labelled, k_max: int, rankings: dict[tuple[object, ...], Ranking], device: str = "cpu"
) -> RankedGraph:
    """Return the ranked edges of a split's graph. ``rankings`` caches the rankings that several graphs share."""
    features = fold.splits[key.split]
    how: Any = {"ties": key.ties, "seed": key.seed, "index": key.found_by, "device": device}
    try:
        if key.evaluation_size:
            pooled, size = features.pooled(), key.evaluation_size
            return in_parts(pooled, k_max, size, key.gather_from, **how)
        names = {"own": (key.split,), "anchored": ("train",), "joint": ("train", key.split)}[key.evaluation_graph]
        ranked = (*names, key.ties, key.seed, key.found_by)
        if ranked not in rankings:
            pooled = Pooled.joined([fold.splits[name].pooled() for name in names])
            rankings[ranked] = Ranking.of(pooled, k_max, **how)
        ranking = rankings[ranked]
    except InputError as error:
        raise InputError(f"{features.source}: {error}") from None
    if key.evaluation_graph == "anchored":
        return ranking.anchored(features.pooled(), key.gather_from)
    return ranking.graph(key.gather_from)


def check_k(folds: Sequence[Fold | Assignment], k_max: int, graphs: Iterable[GraphConfig] = ()) -> None:
    """Check that every split that is searched for neighbours has enough utterances for the largest K.

    Args:
        folds: Features, or the assignment of utterances to splits, by fold.
        k_max: The largest K.
        graphs: Graph settings of the trials. Their K are ignored. Empty means that each split has its own graph.

    Raises:
        InputError: If a split has too few utterances. The error names the split and the largest possible K.
    """
    own = [graph.evaluation_graph == "own" for graph in graphs]
    splits = SPLITS if any(own) or not own else ("train",)
    name, smallest = min(
        ((name, fold.splits[name]) for fold in folds for name in splits), key=lambda item: len(item[1])
    )
    if k_max >= len(smallest):
        source = f"{smallest.source} has" if isinstance(smallest, FeatureSet) else "there are"
        anchored = "; or give --evaluation-graph anchored" if name != "train" else ""
        raise InputError(
            f"K={k_max} (the largest of --k-audio, --k-text and --at): {source} {len(smallest)} utterances in the "
            f"{name} split, so K can be {len(smallest) - 1} at most{anchored}"
        )


def versions() -> dict[str, str]:
    """Return the versions of the software that the numbers of a trial or a report may depend on."""
    known = {"python": platform.python_version(), "method": str(METHOD_VERSION)}
    for package in ("cemobam-study", "torch", "torch-geometric", "numpy", "scipy", "scikit-learn"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            continue
    return known


def at_once(device: str) -> int:
    """Return the largest number of trials that a worker on a device gets at once."""
    return STACKED if device.startswith("cuda") else 1


def groups(trials: Iterable[Trial], at_most: int) -> Iterator[Group]:
    """Yield the trials in their order, in groups of consecutive trials that can be one stack (:func:`by_stack`).

    At most one trial is taken ahead of the groups that were yielded: the one that ends a group and begins the next.

    Args:
        trials: Trials, which are taken when they are needed.
        at_most: Largest number of trials in a group.
    """
    group: list[Trial] = []
    for trial in trials:
        if group and _stack_of(trial) != _stack_of(group[0]):
            yield tuple(group)
            group = []
        group.append(trial)
        if len(group) == at_most or _stack_of(trial) is None:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def unfinished(group: Group, outcomes: Sequence[Outcome], tries: int) -> list[tuple[Group, int]]:
    """Return the trials of a group that must be tried again.

    If a part of the group was done, the rest is one group. If nothing was done, each trial is a group by itself.

    Args:
        group: Group that a worker was given.
        outcomes: Outcomes of the group's first trials. Empty if the worker died or took too long.
        tries: Number of this try.

    Returns:
        Groups, each with the number of its next try. Only a trial that was alone when its worker died uses up a try.
    """
    if outcomes:
        return [(group[len(outcomes) :], 1)] if len(outcomes) < len(group) else []
    if len(group) == 1:
        return [(group, tries + 1)]
    return [((trial,), 1) for trial in group]


def by_stack(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials sorted by stack, in the order of each stack's first trial.

    Trials come seed by seed, so configurations alternate. Without this sorting, each group would have one trial.
    """
    stacks: dict[object, list[Trial]] = {}
    for trial in trials:
        stacks.setdefault(_stack_of(trial) or trial, []).append(trial)
    return [trial for stack in stacks.values() for trial in stack]


def _stack_of(trial: Trial) -> tuple[object, ...] | None:
    """Return a key that the trials of one stack share, or `None` if the trial is trained alone.

    Trials of one stack may differ only in K, in their seed and in the edges of their graphs.
    """
    configuration, graph = trial.configuration, trial.configuration.graph
    alone = not isinstance(configuration.system, NeuralSystem) or (
        configuration.get("schedule") == "plateau" or configuration.get("batch")
    )
    graph_kind = graph and (graph.gather_from, graph.evaluation_graph == "own")  # these have the same nodes
    return None if alone else (trial.fold, configuration.system, configuration.training, graph_kind)


def execute(trials: Group, data: StudyData, device: str) -> list[Outcome]:
    """Train and evaluate a group.

    The numbers of a trial depend only on the trial and its data. On a GPU, they may differ by rounding.

    Returns:
        One outcome per trial. Its seconds are an equal share of the group's seconds.

    Raises:
        Exception: Any error of the training, which engines turn into a failed outcome. If one of several trials
            diverges, its failed outcome is returned instead.
    """
    from cemobam_core.training.loop import TrainingDiverged, train_together  # noqa: PLC0415  (slow; only workers need it)

    start = time.perf_counter()
    fold, configuration = data.folds[trials[0].fold], trials[0].configuration
    batches = [batches_of(trial, data) for trial in trials]
    results = train_together(
        configuration.system,
        batches,
        training=configuration.training,
        seeds=[trial.seed for trial in trials],
        device=device,
    )
    seconds = round((time.perf_counter() - start) / len(trials), 3)
    outcomes = []
    for trial, batch, result in zip(trials, batches, results, strict=True):
        if isinstance(result, TrainingDiverged):
            if len(trials) == 1:
                raise result
            outcomes.append(_failed(result, device))
            continue
        metrics = {name: getattr(result.metrics[name.partition("_")[0]], name.partition("_")[2]) for name in METRICS}
        if data.keeping:
            data.keeping.keep(
                trial,
                result.model,
                class_names=fold.train.class_names,
                metrics=metrics,
                counts={name: len(split) for name, split in fold.splits.items()},
                test=batch["test"].to(device),
                train=fold.train,
            )
        if data.probabilities:
            assert result.metrics["test"].logits is not None
            data.probabilities.keep(trial, result.metrics["test"].logits)
        outcomes.append(
            Outcome(
                status="done",
                seconds=seconds,
                device=device,
                parameters=result.parameters,
                metrics=metrics,
                curve=result.curve,
                confusion=result.metrics["test"].confusion,
                predicted=result.metrics["test"].predicted,
            )
        )
    return outcomes


def batches_of(trial: Trial, data: StudyData) -> dict[str, Batch]:
    """Return the splits of the trial's fold, each with the graph that the trial uses for it."""
    from cemobam_core.training.batch import Batch  # noqa: PLC0415

    fold, graph = data.folds[trial.fold], trial.configuration.graph
    whole = not (trial.configuration.training and trial.configuration.training.batch)
    batches = {}
    for name, split in fold.splits.items():
        if graph is None:
            batches[name] = Batch.from_features(split, whole=whole)
            continue
        key = Labelled.of(name, graph, trial.seed)
        edges = data.graph(trial.fold, key).edge_index(graph.k_audio, graph.k_text)
        among_train = key.evaluation_graph != "own"
        if among_train:
            batches[name] = Batch.in_context(fold.train, split, edges, whole=whole)
        else:
            batches[name] = Batch.from_features(split, edges, whole=whole)
    return batches


class Attempts:
    """Executes one group after another in a worker.

    Args:
        data: Data that all trials share.
        device: Device of the worker.
    """

    def __init__(self, data: StudyData, device: str) -> None:
        self._data, self._device = data, device
        self._most = STACKED  # halved when the memory is too small for a group

    def attempt(self, trials: Group) -> list[Outcome]:
        """Return the outcomes of the first trials of a group: of as many as could be trained at once.

        The result is empty if a group of several trials fails. An error of a single trial becomes its outcome, so that
        the study continues.

        Raises:
            MemoryError: If the memory is too small for a single trial (on a GPU: `torch.OutOfMemoryError`). The worker
                must end, so that its memory is freed.
        """
        parts = math.ceil(len(trials) / min(self._most, self.room(trials)))
        trials = trials[: math.ceil(len(trials) / parts)]  # equal parts: a small rest takes nearly as long as a whole
        while True:
            try:
                return execute(trials, self._data, self._device)
            except (MemoryError, torch.OutOfMemoryError):
                if len(trials) == 1:
                    raise
                self._most = len(trials) // 2
                _log.warning("%s has too little memory for %d trials at once; trying half", self._device, len(trials))
                trials = trials[: self._most]
            except Exception as error:
                # The trials of a failed group are tried one by one, which shows the trial that fails.
                return [_failed(error, self._device)] if len(trials) == 1 else []
            gc.collect()  # free the memory of the failed attempt
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()

    def room(self, trials: Group) -> int:
        """Return how many of the trials fit into the device's free memory at once."""
        if len(trials) == 1 or not self._device.startswith("cuda"):
            return len(trials)
        from cemobam_core.training.footprint import bytes_of_training  # noqa: PLC0415

        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        configuration = trials[0].configuration
        assert isinstance(configuration.system, NeuralSystem)
        batches = batches_of(trials[0], self._data)
        each = bytes_of_training(
            configuration.system,
            batches["train"],
            configuration.training or TrainingConfig(),
            train=len(batches["train"].labels),
            largest=max(len(batch.inputs) for batch in batches.values()),
        )
        return max(1, int(_SHARE * free / each))


def _failed(error: Exception, device: str) -> Outcome:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    traceback = "".join(format_exception(error))
    return Outcome(status="failed", seconds=0.0, device=device, reason=reason, traceback=traceback)


def ran_past(timeout: float, device: str) -> Outcome:
    """Return the outcome of a trial that was given up after ``timeout`` seconds."""
    return Outcome(
        status="failed", seconds=timeout, device=device, reason=f"took longer than --trial-timeout {timeout:g} s"
    )

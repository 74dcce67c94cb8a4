"""Executing one trial: what every engine does with it, wherever it runs."""

from __future__ import annotations

import gc
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from traceback import format_exception
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cemobam_core.corpora.splits import SPLITS, Assignment
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, Fold
from cemobam_core.graph import EvaluationGraph, GatherFrom, GraphConfig, RankedGraph, Ranking, in_parts
from cemobam_core.neighbours import Pooled, Ties
from cemobam_core.systems import NeuralSystem
from cemobam_core.training.config import METHOD_VERSION
from study.design.configuration import Trial
from study.engines.models import Keeping
from study.engines.probabilities import KeptProbabilities
from study.ledger.outcomes import METRICS, Outcome

if TYPE_CHECKING:
    from cemobam_core.training.batch import Batch

_log = logging.getLogger(__name__)

Group = tuple[Trial, ...]
"""Trials that a worker is given at once: on a CPU one; on a GPU several that can be trained as one stack."""

STACKED = 32
"""Trials of a group on a GPU, at most; what does not fit into its memory at once is given again."""

_SHARE = 0.8
"""Of a GPU's free memory that a stack may take, by estimate."""

TRIES = 2
"""A trial whose worker dies (killed, out of memory) is tried once more, then recorded as failed."""


class Labelled(NamedTuple):
    """What a split is labelled in: what of a trial its graph depends on, beside K.

    Attributes:
        split: its name.
        gather_from: as :class:`GraphConfig` has it.
        evaluation_graph: likewise; ``own`` for train.
        evaluation_size: likewise; 0 for train.
        ties: likewise.
        seed: of the trial where it orders ties; else 0.
    """

    split: str
    gather_from: GatherFrom
    evaluation_graph: EvaluationGraph
    evaluation_size: int
    ties: Ties
    seed: int

    @classmethod
    def of(cls, split: str, graph: GraphConfig, seed: int) -> Labelled:
        """Return what a split of a trial is labelled in."""
        seed = seed if graph.ties == "random" else 0
        if split == "train":
            return cls(split, graph.gather_from, "own", 0, graph.ties, seed)
        return cls(split, graph.gather_from, graph.evaluation_graph, graph.evaluation_size, graph.ties, seed)


@dataclass(frozen=True, eq=False)
class StudyData:
    """What all trials share, made once: the features of every fold and the graphs of every split.

    Attributes:
        folds: features by fold.
        graphs: by fold, then by what a split is labelled in, the ranked edges. A graph that is missing is made when a
            trial needs it.
        k_max: the largest K.
        keeping: where trained models are kept; None: they are not.
        probabilities: where those of the test utterances are kept; None: they are not.
    """

    folds: tuple[Fold, ...]
    graphs: tuple[dict[Labelled, RankedGraph], ...]
    k_max: int
    keeping: Keeping | None = None
    probabilities: KeptProbabilities | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of it, each once."""
        for fold, graphs in zip(self.folds, self.graphs, strict=True):
            for features in fold.splits.values():
                yield from features.tensors().values()
            for graph in graphs.values():
                yield from graph.tensors()

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
    ) -> StudyData:
        """Rank the neighbours in every split, once for all graphs.

        Args:
            folds: the features.
            k_max: the largest K; 0: no trial uses a graph.
            graphs: of the trials, whatever their K.
            seeds: of the trials.
            keeping: where trained models are kept; None: they are not.
            probabilities: where those of the test utterances are kept; None: they are not.

        Raises:
            InputError: a split with too few utterances for ``k_max`` neighbours, or too many ties to link all.
        """
        wanted = product(SPLITS, list(graphs), list(seeds))
        labelled = dict.fromkeys(Labelled.of(*one) for one in wanted) if k_max else {}
        made = []
        for fold in folds:
            rankings: dict[tuple[object, ...], Ranking] = {}
            made.append({one: _graph(fold, one, k_max, rankings) for one in labelled})
        return cls(folds, tuple(made), k_max, keeping, probabilities)

    def graph(self, fold: int, labelled: Labelled) -> RankedGraph:
        """Return the ranked edges that a split is labelled in."""
        graphs = self.graphs[fold]
        if labelled not in graphs:
            graphs[labelled] = _graph(self.folds[fold], labelled, self.k_max, {})
        return graphs[labelled]


def _graph(fold: Fold, of: Labelled, k_max: int, rankings: dict[tuple[object, ...], Ranking]) -> RankedGraph:
    """Return the ranked edges that a split of a fold is labelled in; ``rankings`` keeps what several graphs share."""
    features = fold.splits[of.split]
    try:
        if of.evaluation_size:
            return in_parts(features.pooled(), k_max, of.evaluation_size, of.gather_from, ties=of.ties, seed=of.seed)
        names = {"own": (of.split,), "anchored": ("train",), "joint": ("train", of.split)}[of.evaluation_graph]
        if (*names, of.ties, of.seed) not in rankings:
            pooled = Pooled.joined([fold.splits[name].pooled() for name in names])
            rankings[*names, of.ties, of.seed] = Ranking.of(pooled, k_max, ties=of.ties, seed=of.seed)
        ranking = rankings[*names, of.ties, of.seed]
    except InputError as error:
        raise InputError(f"{features.source}: {error}") from None
    if of.evaluation_graph == "anchored":
        return ranking.anchored(features.pooled(), of.gather_from)
    return ranking.graph(of.gather_from)


def check_k(folds: Sequence[Fold | Assignment], k_max: int, graphs: Iterable[GraphConfig] = ()) -> None:
    """See that every split in which neighbours are looked for has enough utterances for the largest K.

    Args:
        folds: the features, or who goes where.
        k_max: the largest K.
        graphs: of the trials, whatever their K; none: each split has its own.

    Raises:
        InputError: one has not; says which, and the largest K that would do.
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
    """What a trial's numbers, or a report's, may depend on."""
    known = {"python": platform.python_version(), "method": str(METHOD_VERSION)}
    for package in ("cemobam-study", "torch", "torch-geometric", "numpy", "scipy", "scikit-learn"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            continue
    return known


def at_once(device: str) -> int:
    """How many trials a worker on such a device is given at once."""
    return STACKED if device.startswith("cuda") else 1


def groups(trials: Iterable[Trial], at_most: int) -> Iterator[Group]:
    """Yield the trials in their order, as many neighbours together as can be one stack (:func:`by_stack`).

    Takes no more trials than it gives, but for one that ends a group and begins the next.

    Args:
        trials: taken when they are needed.
        at_most: how many a group.
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


def undone(group: Group, outcomes: Sequence[Outcome], tries: int) -> list[tuple[Group, int]]:
    """What is left of a group, to be tried again: the rest, if a part was done; each alone, if nothing was.

    Args:
        group: that a worker was given.
        outcomes: of its first trials; none: the worker died, or took too long.
        tries: which try it was.

    Returns:
        Groups, and which try each is: a trial that was alone when its worker died has one try less.
    """
    if outcomes:
        return [(group[len(outcomes) :], 1)] if len(outcomes) < len(group) else []
    if len(group) == 1:
        return [(group, tries + 1)]
    return [((trial,), 1) for trial in group]


def by_stack(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials with those together that can be one stack, in the order of the first of each.

    Without it, a block whose configurations take turns seed by seed would come in groups of one.
    """
    stacks: dict[object, list[Trial]] = {}
    for trial in trials:
        stacks.setdefault(_stack_of(trial) or trial, []).append(trial)
    return [trial for stack in stacks.values() for trial in stack]


def _stack_of(trial: Trial) -> tuple[object, ...] | None:
    """Return what the trials of a stack have in common: they differ in K, seed and which utterances are linked alone.

    None: it is trained alone.
    """
    configuration, graph = trial.configuration, trial.configuration.graph
    alone = not isinstance(configuration.system, NeuralSystem) or configuration.get("schedule") == "plateau"
    points = graph and (graph.gather_from, graph.evaluation_graph == "own")  # with the same utterances
    return None if alone else (trial.fold, configuration.system, configuration.training, points)


def execute(trials: Group, data: StudyData, device: str) -> list[Outcome]:
    """Train and evaluate a group; one outcome a trial, whose seconds are its share of the group's.

    A trial's numbers depend on the trial and its data alone; on a GPU, but for rounding.

    Raises:
        Exception: whatever the training raises; engines turn it into an outcome, which it already is where one of
            several diverged.
    """
    from cemobam_core.training.loop import TrainingDiverged, train_together  # noqa: PLC0415  (slow; of use to workers alone)

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
    """Return every split of the trial's fold in the graph that the trial has for it."""
    from cemobam_core.training.batch import Batch  # noqa: PLC0415

    fold, graph = data.folds[trial.fold], trial.configuration.graph
    batches = {}
    for name, split in fold.splits.items():
        if graph is None:
            batches[name] = Batch.from_features(split)
            continue
        of = Labelled.of(name, graph, trial.seed)
        edges = data.graph(trial.fold, of).edge_index(graph.k_audio, graph.k_text)
        among_train = of.evaluation_graph != "own"
        batches[name] = Batch.in_context(fold.train, split, edges) if among_train else Batch.from_features(split, edges)
    return batches


class Attempts:
    """What a worker does with group after group.

    Args:
        data: what all trials share.
        device: where the worker computes.
    """

    def __init__(self, data: StudyData, device: str) -> None:
        self._data, self._device = data, device
        self._most = STACKED  # more than that at once were too many

    def attempt(self, trials: Group) -> list[Outcome]:
        """The outcomes of the group's first trials, of as many as could be trained at once; none if the group fails.

        What a single trial raises is its outcome, so that the study goes on.

        Raises:
            MemoryError: for a single trial, on the CPU, or torch's on a GPU: as good as a worker's death, for its
                memory must be let go.
        """
        trials = trials[: min(self._most, self.room(trials))]
        while True:
            try:
                return execute(trials, self._data, self._device)
            except (MemoryError, torch.OutOfMemoryError):
                if len(trials) == 1:
                    raise
                self._most = len(trials) // 2
                _log.warning("%d trials at once are too many for %s, which takes half", len(trials), self._device)
                trials = trials[: self._most]
            except Exception as error:
                # Whose failure a group's is, each alone will show.
                return [_failed(error, self._device)] if len(trials) == 1 else []
            gc.collect()  # what the failed attempt held
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()

    def room(self, trials: Group) -> int:
        """How many of them the device's free memory takes at once."""
        if len(trials) == 1 or not self._device.startswith("cuda"):
            return len(trials)
        from cemobam_core.training.loop import bytes_of_training  # noqa: PLC0415

        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        system = trials[0].configuration.system
        assert isinstance(system, NeuralSystem)
        each = bytes_of_training(system, batches_of(trials[0], self._data)["train"])
        return max(1, int(_SHARE * free / each))


def _failed(error: Exception, device: str) -> Outcome:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    traceback = "".join(format_exception(error))
    return Outcome(status="failed", seconds=0.0, device=device, reason=reason, traceback=traceback)


def ran_past(timeout: float, device: str) -> Outcome:
    """The outcome of a trial that was given up after ``timeout`` seconds."""
    return Outcome(status="failed", seconds=timeout, device=device, reason=f"ran past --trial-timeout {timeout:g} s")

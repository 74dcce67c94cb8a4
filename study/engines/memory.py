"""The memory that a study will need, and the memory that there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cemobam_core.features import FeatureSet, Fold
from cemobam_core.inputs import Sizes
from cemobam_core.rows import Rows
from cemobam_core.systems import NeuralSystem, System, name_of
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import TrainingConfig
from cemobam_core.training.footprint import bytes_of_training
from study.design.configuration import Configuration

_SAMPLE = 64
"""Number of utterances of the sample that estimates are made on."""

_PROCESS = 100_000_000
"""Bytes of a worker before its first trial, beside the memory that it shares with the others."""

_RANKED = 1_500
"""Bytes per utterance for the ranking of the neighbours, beside the embeddings of one modality."""

_BATCHES = tuple(2**power for power in range(15, 7, -1))
"""Sizes of mini-batches that are suggested, the largest first."""

_FULL = 0.9
"""Largest share of a GPU's memory that a trial may need, and of free memory that a remedy may need, by estimate."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The memory that a study needs, in bytes.

    Attributes:
        features: Features of all folds, once for all workers.
        ranking: Ranking of the neighbours, before the trials.
        trial: Peak of a trial, beside the features. 0 if it is not known.
        largest: Name of the system with this peak.
        on_gpu: Whether trials run on a GPU. Their peak is then that of the GPU.
    """

    features: int
    ranking: int
    trial: int
    largest: str
    on_gpu: bool

    @classmethod
    def of(cls, folds: Sequence[Fold], configurations: Sequence[Configuration], device: str) -> Needs:
        """Estimate the needs of some trainings on features.

        Args:
            folds: Features by fold.
            configurations: Configurations, one of which has the highest peak.
            device: Device of the trials.
        """
        fold = max(folds, key=lambda one: len(one.train))
        values = [x for split in fold.splits.values() for x in split.tensors().values()]
        shared = sum(x.nbytes for x in values if isinstance(x, Tensor))
        stored = sum(x.nbytes for x in values if isinstance(x, Rows))  # read by each worker, unless in mini-batches
        graph = any(one.graph for one in configurations)
        width = max(fold.train.sizes.audio_dim, fold.train.sizes.text_dim)
        ranking = (4 * width + _RANKED) * len(fold.train) if graph else 0
        peaks = {}
        for one in configurations:
            whole = not (one.training and one.training.batch)
            read = (stored + (shared if device != "cpu" else 0)) if whole else 0
            peaks[name_of(one.system)] = _peak(fold, one) + read
        largest = max(peaks, key=lambda name: peaks[name])
        return cls(
            features=len(folds) * shared,
            ranking=ranking,
            trial=peaks[largest],
            largest=largest,
            on_gpu=device != "cpu",
        )

    def total(self, workers: int) -> int:
        """Return the memory of the machine that the whole study needs with so many workers."""
        each = _PROCESS + (0 if self.on_gpu else self.trial)
        return self.features + max(self.ranking, workers * each)

    def described(self, workers: int) -> str:
        """Return the parts of the memory as words."""
        parts = [f"{in_words(self.features)} of features"]
        if not self.on_gpu:
            some = "a worker" if workers == 1 else f"{workers} workers"
            parts.append(f"{some} of {in_words(_PROCESS + self.trial)}")
        if self.ranking > workers * (_PROCESS + self.trial):
            parts = [parts[0], f"{in_words(self.ranking)} for the ranking"]
        return ", ".join(parts)


def shortage(
    needs: Needs, folds: Sequence[Fold], configurations: Sequence[Configuration], devices: Sequence[str]
) -> str:
    """Return why a study does not fit into the memory and which options make it fit, or an empty string if it fits.

    Args:
        needs: What the study needs.
        folds: Features by fold.
        configurations: The configurations of the estimate.
        devices: Device of each worker on this machine.
    """
    free, workers = free_memory(), len(devices)
    if needs.on_gpu:
        room = round(_FULL * torch.cuda.get_device_properties(devices[0]).total_memory)
        if needs.trial > room:
            smaller = _smaller(folds, configurations, devices[0], room)
            return (
                f"a trial of {needs.largest} needs about {in_words(needs.trial)} of GPU memory, but {devices[0]} has "
                f"{in_words(room)} for it; {_remedy(smaller)}"
            )
    if (whole := needs.total(workers)) <= free:
        return ""
    usable = round(_FULL * free)
    remedies = [f"--workers {n}" for n in range(workers - 1, 0, -1) if needs.total(n) <= usable][:1]
    if not needs.on_gpu:
        remedies += _smaller(folds, configurations, devices[0], (usable - needs.features) // workers - _PROCESS)
    return (
        f"the study needs about {in_words(whole)} of memory ({needs.described(workers)}), but {in_words(free)} are "
        f"free; {_remedy(remedies)}"
    )


def _remedy(options: Sequence[str]) -> str:
    return f"give {' or '.join(options)}" if options else "use a machine with more memory, or a smaller model"


def heaviest(configurations: Iterable[Configuration], sizes: Sizes) -> list[Configuration]:
    """Return the configuration of each system that has the most weights, with the largest K."""
    known: dict[System, int] = {}
    most: dict[str, tuple[tuple[int, int], Configuration]] = {}
    for one in configurations:
        if isinstance(one.system, NeuralSystem) and one.system not in known:
            with torch.random.fork_rng(devices=[]):
                weights = one.system.build(sizes).parameters()
                known[one.system] = sum(weight.numel() for weight in weights if not is_lazy(weight))
        score = known.get(one.system, 0), one.pair.k_audio + one.pair.k_text if one.pair else 0
        if (name := name_of(one.system)) not in most or score > most[name][0]:
            most[name] = score, one
    return [one for _, one in most.values()]


def _smaller(folds: Sequence[Fold], configurations: Sequence[Configuration], device: str, room: int) -> list[str]:
    """Return the option for mini-batches whose trials need less memory, or an empty list if there is none."""
    train = max(len(fold.train) for fold in folds)
    for batch in _BATCHES:
        smaller = [one.having({"batch": batch}) for one in configurations if isinstance(one.system, NeuralSystem)]
        if batch < train and smaller and Needs.of(folds, smaller, device).trial <= room:
            return [f"--batch {batch}"]
    return []


def _peak(fold: Fold, configuration: Configuration) -> int:
    """Return the peak of a trial, or 0 if it is not known: the system fails, or gradient descent does not train it."""
    if not isinstance(configuration.system, NeuralSystem):
        return 0
    graph, degree = configuration.graph, 0
    context = len(fold.train) if graph and graph.evaluation_graph != "own" else 0
    if graph:
        degree = graph.k_audio + graph.k_text + 1
    try:
        return bytes_of_training(
            configuration.system,
            _sample(fold.train, degree),
            configuration.training or TrainingConfig(),
            train=len(fold.train),
            largest=max(len(fold.train), *(context + len(split) for split in (fold.val, fold.test))),
        )
    except Exception:  # of a user's system; its trials will fail and say why
        return 0


def _sample(features: FeatureSet, degree: int) -> Batch:
    """Return some utterances, each with so many neighbours."""
    n = min(_SAMPLE, len(features))
    target = torch.arange(n).repeat_interleave(degree)
    source = (target + torch.arange(degree).repeat(n)) % n
    return Batch.from_features(features.select(range(n), source=features.source), torch.stack([source, target]))


def free_memory() -> int:
    """Return the bytes of memory that are free for this process, within the limits of its container or its job."""
    free = psutil.virtual_memory().available
    group = _group()
    for folder in (group, *group.parents) if group else ():
        try:
            most, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if most != "max":
            free = min(free, int(most) - int(used) + int(cached.get("inactive_file", 0)))
    return max(0, free)


def _group() -> Path | None:
    """Return the folder of this process's control group, or None if there is none (version 2, Linux only)."""
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    return Path("/sys/fs/cgroup") / own.removeprefix("0::").lstrip("/")


def in_words(size: int) -> str:
    """Return a number of bytes as words: ``1.2 GB``, or ``350 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"

"""Ways to draw mini-batches from a graph: what each costs in accuracy, and in seconds and memory per epoch.

    python benchmarks/minibatches.py [FEATURES.safetensors ...] [--seeds 5] [--epochs 100]

Trains CemoBAM (d = 128, K 8, 7) with the full batch and with mini-batches of an eighth of the train split, drawn in
three ways: clusters of the graph, which the tool uses; random utterances; and random utterances with sampled neighbours
(Hamilton et al., 2017, "Inductive Representation Learning on Large Graphs"). These take eight times as many steps as
the full batch. The last row takes one step an epoch (``step_after=epoch``).

The data are the demo and every given file, split at random by 50/10/40. Prints the test WA with its standard error over
seeds and utterances, the difference from the full batch with its interval, the share of the edges that an epoch uses,
the largest number of utterances in a step, and the processor time of an epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from cemobam_core import Batch, CemoBAM, FeatureSet, TrainingConfig, train
from cemobam_core.corpora.splits import split
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.features import Fold
from cemobam_core.training.parts import Parts
from study.findings.luck import contributions, crossed, level

FANOUT = (6, 4, 2)
"""Number of sampled neighbours per utterance, for each of the three graph layers, from the mini-batch outwards."""

ACCUMULATED = "clusters, one step an epoch"


class RandomParts(Parts):
    """Mini-batches of random utterances, with all edges among them."""

    _clusters = property(lambda self: torch.arange(self._n))


class SampledParts(RandomParts):
    """Mini-batches of random utterances, with sampled neighbours as their context."""

    def _cut(self, order: torch.Tensor) -> Iterator[Batch]:
        edges = self._batch.inputs.edge_index[:, self._batch.inputs.edge_index[1].argsort(stable=True)]
        first = torch.zeros(self._n + 1, dtype=torch.int64)
        first[1:] = edges[1].bincount(minlength=self._n).cumsum(0)
        for rows in order.tensor_split(self._number):
            layer, kept, seen = rows, [], [rows]
            for most in FANOUT:
                degree = first[layer + 1] - first[layer]
                drawn = torch.rand(len(layer), most, generator=torch.Generator().manual_seed(int(order[0])))
                places = (first[layer, None] + (drawn * degree[:, None]).long()).flatten().unique()
                kept.append(edges[:, places])
                layer = edges[0, places].unique()
                seen.append(layer)
            everyone = torch.cat(seen).unique()
            own = torch.zeros(self._n, dtype=torch.bool)
            own[rows] = True
            nodes = torch.cat([everyone[~own[everyone]], rows])
            loops = torch.stack([nodes, nodes])
            chosen = torch.cat([*kept, loops], dim=1).unique(dim=1)
            place = torch.empty(self._n, dtype=torch.int64)
            place[nodes] = torch.arange(len(nodes))
            inputs = self._batch.inputs.part(nodes, place[chosen])
            yield Batch(inputs, self._batch.labels[rows], self._batch.num_classes, context=len(nodes) - len(rows))


WAYS: dict[str, type[Parts] | None] = {
    "full batch": None,
    "clusters": Parts,
    "random": RandomParts,
    "neighbours": SampledParts,
    ACCUMULATED: Parts,
}
"""The class that draws the mini-batches."""


def measure(fold: Fold, label: str, size: int, seeds: int, epochs: int) -> tuple[np.ndarray, float]:
    """Return the predictions of each seed for the test utterances, (S, U), and the seconds per epoch."""
    batches = {name: Batch.from_features(f, f.rank(8).edge_index(8, 7)) for name, f in fold.splits.items()}
    way = WAYS[label]
    after: Literal["epoch", "batch"] = "epoch" if label == ACCUMULATED else "batch"
    training = TrainingConfig(epochs=epochs, batch=size if way else 0, step_after=after)
    predicted, seconds = [], 0.0
    for seed in range(seeds):
        with patch("cemobam_core.training.loop.Parts", way or Parts):
            start = time.process_time()
            result = train(CemoBAM(hidden_dim=128), batches, training=training, seed=seed)
            seconds += time.process_time() - start
        predicted.append(np.frombuffer(result.metrics["test"].predicted, dtype=np.uint8))
    return np.stack(predicted), seconds / seeds / epochs


def steps(fold: Fold, label: str, size: int) -> tuple[float, int]:
    """Return the share of the edges that an epoch uses, and the largest number of utterances in a step."""
    batch = Batch.from_features(fold.train, fold.train.rank(8).edge_index(8, 7))
    way = WAYS[label]
    if way is None:
        return 1.0, len(batch.labels)
    whole = way(batch, size)
    model = CemoBAM(hidden_dim=128).build(batch.sizes)
    parts = list(whole.surrounded(model) if label == ACCUMULATED else whole.shuffled())
    used = sum(part.inputs.edge_index.shape[1] for part in parts) / batch.inputs.edge_index.shape[1]
    return used, max(len(part.inputs) for part in parts)


def compare(name: str, fold: Fold, seeds: int, epochs: int) -> None:
    """Print the table of one data set."""
    size = -(-len(fold.train) // 8)
    labels = fold.test.labels.numpy()
    one_fold = np.zeros(len(labels), dtype=int)
    rows, made = [], {}
    for label, way in WAYS.items():
        predicted, seconds = measure(fold, label, size, seeds, epochs)
        made[label] = contributions(predicted, labels, "wa", fold.test.num_classes, one_fold)
        used, most = steps(fold, label, size)
        own = level(made[label])
        row = {"mini-batches": label, "WA": f"{100 * own.mean:.1f} ± {100 * own.se:.1f}", "difference": ""}
        if way:
            found = crossed(made[label] - made["full batch"])
            row["difference"] = f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        rows.append(row | {"edges": f"{used:.0%}", "utterances a step": most, "CPU s an epoch": f"{seconds:.3f}"})
    sizes = f"{len(fold.train)} train, {len(labels)} test, mini-batches of {size}"
    print(f"\n{name}: {sizes}, {seeds} seeds, {epochs} epochs\n")
    print(pd.DataFrame(rows).to_markdown(index=False), flush=True)


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare("demo", demo_fold(), args.seeds, args.epochs)
    for path in args.features:
        (fold,) = split(FeatureSet.load(path), "random:50/10/40")
        compare(path.name, fold, args.seeds, args.epochs)


if __name__ == "__main__":
    main()

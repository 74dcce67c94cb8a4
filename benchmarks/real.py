"""Both kinds of luck on real features: standard errors over seeds and over utterances, and agreement between seeds.

    python benchmarks/real.py FEATURES.safetensors [SEEDS] [EPOCHS]

Trains four systems on the features, with a random split (50/10/40) and with leave-one-session-out, in which the next
session validates. For each pair of systems it prints the standard error of the difference over seeds alone, over seeds
and utterances, and with speakers as clusters. For each system it prints the agreement between its seeds. The features
need speakers and sessions.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cemobam_core import Batch, CemoBAM, FeatureSet, TrainingConfig, train
from cemobam_core.corpora.splits import split
from cemobam_core.features import Fold
from cemobam_core.metrics import METRICS
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.logistic import Logistic
from cemobam_core.systems.system import System
from study.findings.luck import agreement, cluster_by, components, contributions, crossed, level
from study.findings.statistics import paired

SYSTEMS: dict[str, System] = {
    "cemobam": CemoBAM(hidden_dim=128),
    "without CH-GAT": CemoBAM(hidden_dim=128, modules="no_chgat"),
    "concat_mlp": ConcatMLP(),
    "logistic": Logistic(),
}


def predict(system: System, folds: tuple[Fold, ...], seeds: int, epochs: int) -> np.ndarray:
    """Return the predictions of each seed for the test utterances of all folds, (S, U), one fold after another."""
    predicted = []
    for seed in range(seeds):
        of_folds = []
        for fold in folds:
            batches = {name: Batch.from_features(f, f.rank(10).edge_index(8, 7)) for name, f in fold.splits.items()}
            result = train(system, batches, training=TrainingConfig(epochs=epochs), seed=seed)
            with torch.no_grad():
                of_folds.append(result.model(batches["test"].inputs).argmax(dim=1).numpy())
        predicted.append(np.concatenate(of_folds))
    return np.stack(predicted)


def main(path: Path, seeds: int, epochs: int) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    features = FeatureSet.load(path)
    for protocol in ("random:50/10/40", "session-val"):
        folds = split(features, protocol)
        labels = np.concatenate([fold.test.labels.numpy() for fold in folds])
        speakers = [name for fold in folds for name in (fold.test.speakers or ())]
        fold_of = np.concatenate([np.full(len(fold.test), i) for i, fold in enumerate(folds)])
        ratio = float(np.mean([len(fold.test) / len(fold.train) for fold in folds]))
        predicted = {name: predict(system, folds, seeds, epochs) for name, system in SYSTEMS.items()}
        rows, levels = [], []
        for metric in ("wa", "ua"):
            made = {
                name: contributions(p, labels, metric, features.num_classes, fold_of) for name, p in predicted.items()
            }
            for name, values in made.items():
                own = level(values)
                levels.append(
                    {
                        "system": name,
                        "metric": METRICS[metric].label,
                        "mean": 100 * own.mean,
                        "over seeds": 100 * own.components.over_seeds.se,
                        "both": 100 * own.se,
                        "seeds agree": 100 * agreement(predicted[name], features.num_classes),
                    }
                )
            for first, second in combinations(made, 2):
                values = made[first] - made[second]
                of = components(values)
                row = {
                    "first": first,
                    "second": second,
                    "metric": METRICS[metric].label,
                    "difference": 100 * values.mean(),
                    "seeds": 100 * paired(values.mean(axis=1), np.zeros(seeds)).se,
                    "utterances": 100 * np.sqrt(of.utterance / of.utterances),
                    "both": 100 * crossed(values).se,
                    "by speaker": 100 * crossed(values, clusters=cluster_by(speakers)).se,
                }
                if len(folds) > 1:
                    row["by fold"] = 100 * crossed(values, clusters=fold_of).se
                    row["by fold, corrected"] = 100 * crossed(values, clusters=fold_of, fold_ratio=ratio).se
                rows.append(row)
        print(f"\n{protocol}: {len(labels)} tested, {len(set(speakers))} speakers, {seeds} seeds, {epochs} epochs\n")
        print(pd.DataFrame(levels).to_markdown(index=False, floatfmt=".2f"))
        print()
        print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".2f"), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(value) for value in (*sys.argv[2:], *("5", "30")[len(sys.argv) - 2 :])))

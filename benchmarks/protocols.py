"""What a split protocol costs: CemoBAM on the same utterances under random, session and speaker-10 splits.

    python benchmarks/protocols.py FEATURES.safetensors [SEEDS] [EPOCHS] [WIDTH]

Every utterance is tested exactly once with each seed. Random folds are as many as those of the protocol that they stand
beside: five for sessions, ten for speakers. Both have splits of nearly the same sizes. They differ only in who is in
which split. The difference of a protocol to its random folds is paired by seed and by utterance. Its interval is over
other seeds and other utterances, with speakers as clusters. K is the paper's (8, 7). The script also prints the single
random split of 80/10/10 that the paper uses, drawn five times. The features need speakers and sessions.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split

from cemobam_core import Batch, CemoBAM, FeatureSet, TrainingConfig, train
from cemobam_core.corpora.splits import split
from cemobam_core.features import Fold
from study.findings.luck import cluster_by, contributions, crossed, level

PAIR = (8, 7)
METRIC = "wa"
DRAWS = 5

Predicted = tuple[np.ndarray, np.ndarray]
"""The predictions of every seed, (S, U), and the fold that tested each utterance, (U,), in the order of the file."""


def random_folds(features: FeatureSet, count: int, val: float, seed: int = 0) -> tuple[Fold, ...]:
    """Return folds drawn at random, stratified by class, each of which tests its own share of the utterances.

    Args:
        features: All utterances.
        count: Number of folds.
        val: Share of the utterances outside the test split that validate.
        seed: Seed of the draw.
    """
    labels = features.labels.numpy()
    folds = []
    for rest, test in StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels):
        training, validation = train_test_split(rest, test_size=val, random_state=seed, stratify=labels[rest])
        rows = {"train": np.sort(training), "val": np.sort(validation), "test": test}
        folds.append(Fold(**{name: features.select(which.tolist(), source=name) for name, which in rows.items()}))
    return tuple(folds)


def predict(fold: Fold, seeds: int, epochs: int, width: int) -> np.ndarray:
    """Return the predictions of each seed for the test split of a fold, (S, U)."""
    torch.set_num_threads(1)
    batches = {name: Batch.from_features(f, f.rank(max(PAIR)).edge_index(*PAIR)) for name, f in fold.splits.items()}
    predicted = []
    for seed in range(seeds):
        result = train(CemoBAM(hidden_dim=width), batches, training=TrainingConfig(epochs=epochs), seed=seed)
        with torch.no_grad():
            predicted.append(result.model(batches["test"].inputs).argmax(dim=1).numpy())
    return np.stack(predicted)


def collected(folds: tuple[Fold, ...], of_folds: list[np.ndarray], order: dict[str, int]) -> Predicted:
    """Return the predictions of all folds in the order of the file."""
    predicted = np.full((len(of_folds[0]), len(order)), -1)
    fold_of = np.full(len(order), -1)
    for i, (fold, values) in enumerate(zip(folds, of_folds, strict=True)):
        rows = [order[key] for key in fold.test.utterance_ids]
        predicted[:, rows] = values
        fold_of[rows] = i
    assert (fold_of >= 0).all(), "every utterance is tested once"
    return predicted, fold_of


def main(path: Path, seeds: int, epochs: int, width: int) -> None:
    """Print the tables."""
    features = FeatureSet.load(path)
    order = {key: i for i, key in enumerate(features.utterance_ids)}
    labels, speakers = features.labels.numpy(), features.speakers
    session, by_speaker = split(features, "session"), split(features, "speaker-10")
    designs = {
        "random, 5 folds": random_folds(features, len(session), val=0.2),
        "session": session,
        "random, 10 folds": random_folds(features, len(by_speaker), val=1 / (len(by_speaker) - 1)),
        "speaker-10": by_speaker,
    }
    single = [split(features, "random:80/10/10", seed)[0] for seed in range(DRAWS)]
    every = [*(fold for folds in designs.values() for fold in folds), *single]
    with ProcessPoolExecutor() as pool:
        made = pool.map(predict, every, *([value] * len(every) for value in (seeds, epochs, width)))
        of_designs = {name: collected(folds, [next(made) for _ in folds], order) for name, folds in designs.items()}
        of_single = [next(made) for _ in single]
    print(f"\n{len(features)} utterances, {seeds} seeds, {epochs} epochs, hidden_dim {width}, K {PAIR[0]},{PAIR[1]}\n")
    values = {
        name: contributions(predicted, labels, METRIC, features.num_classes, fold_of)
        for name, (predicted, fold_of) in of_designs.items()
    }
    rows = []
    for name, folds in designs.items():
        own = level(values[name], clusters=cluster_by(speakers))
        sizes = [f"{np.mean([len(fold.splits[part]) for fold in folds]):.0f}" for part in ("train", "val", "test")]
        # over all folds at once, because the few utterances of a fold may lack a class
        ua = contributions(of_designs[name][0], labels, "ua", features.num_classes).mean()
        row = {"protocol": name, "folds": len(folds), "train, val, test": ", ".join(sizes), "WA": 100 * own.mean}
        rows.append({**row, "95% interval": f"{100 * own.low:.1f} to {100 * own.high:.1f}", "UA": 100 * ua})
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f"))
    draws = [100 * (p == fold.test.labels.numpy()).mean() for p, fold in zip(of_single, single, strict=True)]
    print(
        f"\nrandom:80/10/10, one split, {DRAWS} draws of the split: WA {', '.join(f'{draw:.1f}' for draw in draws)}\n"
    )
    for protocol, beside in (("session", "random, 5 folds"), ("speaker-10", "random, 10 folds")):
        of = crossed(values[protocol] - values[beside], clusters=cluster_by(speakers))
        ends = f"{100 * of.low:+.1f} to {100 * of.high:+.1f}"
        print(f"{protocol} minus {beside}: {100 * of.mean:+.1f} points of WA (95% interval {ends}; p = {of.p:.3f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(value) for value in (*sys.argv[2:], *("5", "100", "128")[len(sys.argv) - 2 :])))

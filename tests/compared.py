"""Studies that compare systems, with known differences and known luck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from populations import Luck, draw_family
from simulated import CLASSES, about, class_names, row

from study.design.factors import Pair
from study.findings.aggregate import columns
from study.findings.predictions import Predictions
from study.findings.results import AboutBlock, Results

PLAIN = ("prior", "logistic", "svm", "knn", "audio_mlp", "text_mlp", "concat_mlp", "late_fusion", "tfn", "lmf",
         "memocmt", "ser_fuse", "server", "glomer")  # fmt: skip
GRAPH = ("cemobam", "hemogat", "gcn", "graphsage", "gatv2", "graph_transformer", "label_propagation",
         "correct_and_smooth")  # fmt: skip
EVERY = (*GRAPH, *PLAIN)
"""Systems that a study may compare."""

QUIET = Luck(seed=(0.3, 0.3))


def compared(
    points: Mapping[str, float],
    *,
    tuned: Mapping[str, float] | None = None,
    luck: Luck = QUIET,
    seeds: int = 5,
    utterances: int = 551,
    folds: int = 1,
    dataset: str = "iemocap",
    without_chgat: float | None = None,
    rng: int = 0,
) -> Results:
    """Return the results of a study of systems, with predictions.

    Args:
        points: Points of WA above 70% with default settings, by system.
        tuned: The same with the configuration that validation chose. `None` means that there is no block ``tuned``.
        luck: Luck of all systems.
        seeds: Seeds that all systems run with.
        utterances: Number of utterances of the test split, and of the validation split.
        folds: Number of folds. The test utterances are dealt to them in turn.
        dataset: Name of the data set.
        without_chgat: Points of the ablation without CH-GAT. `None` means that there is no block ``ablation``.
        rng: Random generator of all luck.
    """
    random = np.random.default_rng(rng)
    named = [(name, "paper", "full", x) for name, x in points.items()]
    named += [(name, name, "full", x) for name, x in (tuned or {}).items()]
    if without_chgat is not None:
        named.append(("cemobam", "paper", "no_chgat", without_chgat))
    val, test = draw_family(random, luck, np.array([x for *_, x in named]), seeds=seeds, utterances=utterances)
    labels, fold = np.arange(utterances) % len(CLASSES), np.arange(utterances) % folds
    records: list[dict[str, Any]] = []
    predicted, rows = [], []
    for place, (system, profile, modules, _) in enumerate(named):
        graph = system in GRAPH
        own = system == "cemobam"
        rows.append((profile, system, 8 if graph else None, 7 if graph else None,
                     "min" if own else None, modules if own else None))  # fmt: skip
        for seed in range(seeds):
            for one in range(folds):
                here = fold == one
                right = test[place, seed]
                made = row(8, 7, seed, float(val[place, seed].mean()), float(right[here].mean()), profile=profile)
                identity = dict(
                    zip(("profile", "system", "k_audio", "k_text", "fusion", "modules"), rows[-1], strict=True)
                )
                records.append({**made, **identity, "fold": one, "parameters": 1000 * (place + 1) if graph else pd.NA})
                predicted.append(np.where(here, np.where(right > 0, labels, (labels + 1) % len(CLASSES)), -1))
    trials = pd.DataFrame(records, columns=list(columns()))
    trials["parameters"] = trials["parameters"].astype("Int64")
    study = about((8, 7), seeds, Pair(8, 7), dataset)
    count = len(points)
    blocks = [_block("systems", "system", rows[:count], seeds)]
    if tuned is not None:
        blocks.append(_block("tuned", "profile", rows[count : count + len(tuned)], seeds))
    if without_chgat is not None:
        blocks.append(_block("ablation", "modules", [rows[list(points).index("cemobam")], rows[-1]], seeds))
    kept = Predictions(
        utterances=pd.DataFrame(
            {
                "id": [f"u{i}" for i in range(utterances)],
                **{"fold": fold, "label": labels, "speaker": None, "session": None, "seconds": np.nan},
            }
        ),
        predicted=np.array(predicted, np.int16),
        train_sizes=(8 * utterances,) * folds,
    )
    titled = {"iemocap": "IEMOCAP", "esd": "ESD"}.get(dataset, dataset)
    made_about = replace(
        study,
        blocks=tuple(blocks),
        folds=folds,
        class_names=class_names(dataset),
        title=titled,
        base=rows[0],
        seeds=tuple(range(seeds)),
    )
    return Results(about=replace(made_about, confirm=()), trials=trials, kept=kept)


JOINT = ("label_propagation", "correct_and_smooth")
"""Systems that are measured in a joint graph."""


def _block(name: str, column: str, rows: list[tuple[Any, ...]], seeds: int) -> AboutBlock:
    return AboutBlock(
        name=name,
        question="",
        title=name.capitalize(),
        columns=(column,),
        rows=tuple(rows),
        transductive=tuple(row[1] in JOINT for row in rows),
        reference=0,
        chooses=False,
        compared=True,
        needs_pair=False,
        seeds=tuple(range(seeds)),
        n_seeds=(seeds,) * len(rows),
        confirms=False,
        tunes="",
        decided_by="utterances",
        labels={},
        table=name,
        drawing=name,
        file=name,
    )

"""A study whose predictions are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from simulated import about, row

from study.design.factors import Pair
from study.findings.aggregate import columns
from study.findings.predictions import Predictions
from study.findings.results import Results

CLASSES = ("anger", "happiness", "neutral", "sadness")


def results_of(
    predicted: dict[str, Sequence[Sequence[int]]],
    labels: Sequence[int],
    *,
    ids: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    speakers: Sequence[str | None] | None = None,
    sessions: Sequence[str | None] | None = None,
    seconds: Sequence[float] | None = None,
    class_names: Sequence[str] = CLASSES,
) -> Results:
    """Return the results of a study of the paper's blocks at K 8,7.

    Args:
        predicted: Predictions by fusion, with one row per seed and one column per utterance. The study's own fusion is
            ``min``.
        labels: Labels of the utterances.
        ids: Identifiers of the utterances. The default is numbers.
        folds: Folds of the utterances. The default is one fold.
        speakers: Speakers of the utterances.
        sessions: Sessions of the utterances.
        seconds: Lengths of the utterances in seconds.
        class_names: Class names of the study.
    """
    of_fold = np.zeros(len(labels), np.int64) if folds is None else np.asarray(folds)
    count = int(of_fold.max()) + 1
    utterances = pd.DataFrame(
        {
            "id": pd.Series(list(ids or [f"u{i}" for i in range(len(labels))]), dtype=object),
            "fold": of_fold,
            "label": np.asarray(labels, np.int64),
            "speaker": pd.Series(list(speakers or [None] * len(labels)), dtype=object),
            "session": pd.Series(list(sessions or [None] * len(labels)), dtype=object),
            "seconds": np.full(len(labels), np.nan) if seconds is None else np.asarray(seconds, float),
        }
    )
    rows: list[dict[str, Any]] = []
    held = []
    seeds = len(next(iter(predicted.values())))
    for fusion, by_seed in predicted.items():
        for seed, labelled in enumerate(by_seed, seeds):  # seeds that took no part in choosing the pair
            for fold in range(count):
                here = of_fold == fold
                given = np.where(here, labelled, -1)
                right = float((given == utterances["label"])[here].mean())
                rows.append({**row(8, 7, seed, 0.5, right, fusion=fusion), "fold": fold})
                held.append(given)
    study = about((8, 7), seeds, Pair(8, 7))
    return Results(
        about=replace(study, folds=count, class_names=tuple(class_names)),
        trials=pd.DataFrame(rows, columns=list(columns())),
        kept=Predictions(
            utterances=utterances, predicted=np.array(held, dtype=np.int16), train_sizes=tuple([10] * count)
        ),
    )

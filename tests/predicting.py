"""Studies with predictions: simulated results with predictions beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from study.findings.predictions import Predictions
from study.findings.results import Results
from study.ledger.outcomes import Outcome
from study.ledger.utterances import TestUtterances


def some_utterances(n: int = 60) -> TestUtterances:
    """Test utterances of four classes and five speakers, in one fold."""
    return TestUtterances(
        ids=tuple(f"u{i:03d}" for i in range(n)),
        labels=tuple(i % 4 for i in range(n)),
        folds=(0,) * n,
        speakers=tuple(f"s{i % 5}" for i in range(n)),
        sessions=None,
        seconds=tuple(1 + i / 8 for i in range(n)),
        train_sizes=(200,),
    )


def predicting(results: Results, utterances: TestUtterances | None = None) -> Results:
    """Return the results with random predictions, of which 70% are correct, and with the WA that they give."""
    utterances, rng = utterances or some_utterances(), np.random.default_rng(0)
    labels = np.array(utterances.labels)
    right = rng.random((len(results.trials), len(labels))) < 0.7
    predicted = np.where(right, labels, (labels + 1) % 4).astype(np.uint8)
    outcomes = [Outcome(status="done", seconds=1.0, device="cpu", predicted=row.tobytes()) for row in predicted]
    kept = Predictions.of(utterances, results.trials["fold"], outcomes)
    return replace(results, trials=results.trials.assign(test_wa=right.mean(axis=1)), kept=kept)

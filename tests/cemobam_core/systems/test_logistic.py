from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cemobam_core import Batch, Fold, train
from cemobam_core.systems.logistic import Logistic


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_it_is_scikit_learns_own_pipeline(small_fold: Fold, c: float) -> None:
    batches = {name: Batch.from_features(split) for name, split in small_fold.splits.items()}
    result = train(Logistic(c=c), batches)
    both = {name: np.concatenate([split.audio, split.text], axis=1) for name, split in small_fold.splits.items()}
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=100_000, tol=1e-8))
    theirs.fit(both["train"], small_fold.train.labels)
    for name, split in small_fold.splits.items():
        probabilities = result.model(batches[name].inputs).softmax(dim=1)
        np.testing.assert_allclose(probabilities, theirs.predict_proba(both[name]), atol=0.01 if c < 100 else 0.1)
        assert result.metrics[name].wa == pytest.approx(theirs.score(both[name], split.labels))
        assert result.metrics[name].loss == pytest.approx(
            log_loss(split.labels, theirs.predict_proba(both[name]), labels=range(4)), rel=0.05, abs=5e-3
        )


def test_every_seed_gives_the_same(small_fold: Fold) -> None:
    batches = {name: Batch.from_features(split) for name, split in small_fold.splits.items()}
    assert train(Logistic(), batches, seed=1).metrics == train(Logistic(), batches, seed=2).metrics


def test_its_log_probabilities_are_finite_however_sure_it_is(small_fold: Fold) -> None:
    batches = {name: Batch.from_features(split) for name, split in small_fold.splits.items()}
    model = train(Logistic(c=1e9, max_iter=10_000), batches).model
    assert torch.isfinite(model(batches["test"].inputs)).all()

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from batches import any_batch
from sklearn.dummy import DummyClassifier

from cemobam_core import Batch, EstimatorSystem, InputError, Inputs, Sizes, evaluate, train
from cemobam_core.training.loop import TrainingResult, train_together


@dataclass(frozen=True, kw_only=True)
class Prior(EstimatorSystem):
    """An estimator that always predicts the share of each class."""

    def build(self, sizes: Sizes, seed: int) -> Any:
        return DummyClassifier(strategy="prior", random_state=seed)


def batch_of(labels: list[int], num_classes: int) -> Batch:
    x = torch.randn(len(labels), 3)
    return Batch(Inputs.from_features(x, x), torch.tensor(labels), num_classes)


def test_a_class_that_it_never_saw_is_the_least_likely() -> None:
    trained, asked = batch_of([0, 0, 0, 2], 4), batch_of([0, 1, 2, 3], 4)
    result = train(Prior(), {"train": trained, "val": asked})
    probabilities = result.model(asked.inputs).softmax(dim=1)
    torch.testing.assert_close(probabilities, torch.tensor([[0.75, 0.0, 0.25, 0.0]]).expand(4, -1))
    assert result.metrics["val"].wa == 0.25
    assert np.isfinite(result.metrics["val"].loss)
    assert result.curve == {}


def test_it_is_evaluated_as_a_network_is() -> None:
    batch = batch_of([0, 0, 1], 2)
    result = train(Prior(), {"train": batch, "val": batch})
    assert evaluate(result.model, batch) == result.metrics["train"]


def test_several_are_fitted_each_on_its_own() -> None:
    splits = [{"train": batch, "val": batch} for batch in (batch_of([0, 0, 1], 2), batch_of([0, 1, 1], 2))]
    results = train_together(Prior(), splits, seeds=[0, 1])
    predicted = []
    for result in results:
        assert isinstance(result, TrainingResult)
        predicted.append(int(result.model(splits[0]["val"].inputs)[0].argmax()))
    assert predicted == [0, 1]


def test_it_is_fitted_on_both_pooled_embeddings() -> None:
    inputs = any_batch(9, (4, 3), 0).inputs
    matrix = Prior().matrix(inputs)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, torch.cat([inputs.audio.pooled, inputs.text.pooled], dim=1))


class Wrong:
    """An estimator with invalid probabilities."""

    classes_ = np.array([0, 1])

    def __init__(self, given: Any) -> None:
        self.given = given

    def fit(self, *_: object) -> Any:
        return self

    def predict_proba(self, _: object) -> Any:
        return self.given


@dataclass(frozen=True, kw_only=True)
class Odd(EstimatorSystem):
    """A system with such an estimator."""

    given: Any = None

    def build(self, sizes: Sizes, seed: int) -> Any:
        return Wrong(self.given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((3, 3)), r"Odd: predict_proba returned \(3, 3\)"),
        (np.ones(3), r"Odd: predict_proba returned \(3,\)"),
        (np.full((3, 2), np.nan), "or a value that is not finite"),
    ],
)
def test_probabilities_that_are_none_are_told(given: Any, message: str) -> None:
    batch = batch_of([0, 1, 1], 2)
    with pytest.raises(InputError, match=message):
        train(Odd(given=given), {"train": batch, "val": batch})

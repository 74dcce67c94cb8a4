"""Prior, nearest neighbours and the support vector machine: examples by hand and scikit-learn's results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from cemobam_core import Batch, EstimatorSystem, FeatureSet, Fold, Inputs, Sizes, train
from cemobam_core.systems.knn import KNN
from cemobam_core.systems.logistic import Logistic
from cemobam_core.systems.prior import Prior
from cemobam_core.systems.svm import SVM


def both(split: FeatureSet) -> np.ndarray:
    return np.concatenate([split.audio, split.text], axis=1)


def batches_of(fold: Fold) -> dict[str, Batch]:
    return {name: Batch.from_features(split) for name, split in fold.splits.items()}


def on_a_line(places: list[float]) -> Inputs:
    x = torch.tensor(places, dtype=torch.float32).unsqueeze(1)
    return Inputs.from_features(x, torch.zeros(len(x), 1))  # the text carries no information


def test_the_prior_is_the_frequencies_of_the_training_labels() -> None:
    labels = torch.tensor([0, 0, 0, 2])
    model = Prior().fit(on_a_line([0, 1, 2, 3]), labels, Sizes(audio_dim=1, text_dim=1, num_classes=3), 0)
    probabilities = model(on_a_line([9, 1])).softmax(dim=1)
    torch.testing.assert_close(probabilities, torch.tensor([[0.75, 0.0, 0.25]] * 2))


def test_neighbours_vote_by_their_distance() -> None:
    """The nearest neighbours of 1.9 are 2 (class 1) and 1 (class 0), at distances 0.1 and 0.9 before standardising."""
    places, labels = on_a_line([0, 1, 2, 9]), torch.tensor([0, 0, 1, 2])
    sizes = Sizes(audio_dim=1, text_dim=1, num_classes=3)
    for weights, expected in (("uniform", [0.5, 0.5, 0.0]), ("distance", [0.1, 0.9, 0.0])):
        knn = KNN(neighbours=2, metric="euclidean", weights=weights)  # type: ignore[arg-type]
        probabilities = knn.fit(places, labels, sizes, 0)(on_a_line([1.9])).softmax(dim=1)
        torch.testing.assert_close(probabilities, torch.tensor([expected]), rtol=1e-4, atol=1e-6)


def test_more_neighbours_than_utterances_are_all_of_them() -> None:
    sizes = Sizes(audio_dim=1, text_dim=1, num_classes=2)
    model = KNN(neighbours=50).fit(on_a_line([0, 1, 2]), torch.tensor([0, 0, 1]), sizes, 0)
    torch.testing.assert_close(model(on_a_line([5])).softmax(dim=1), torch.tensor([[2 / 3, 1 / 3]]))


def test_cosine_neighbours_are_those_of_the_graph(small_fold: Fold) -> None:
    """With standardised embeddings, each test utterance gets the label of its most similar training utterance."""
    x, y = (both(split).astype(np.float64) for split in (small_fold.train, small_fold.test))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, y = ((z - mean) / scale for z in (x, y))
    similar = y @ x.T / np.linalg.norm(x, axis=1)
    model = train(KNN(neighbours=1), batches_of(small_fold)).model
    predicted = model(batches_of(small_fold)["test"].inputs).argmax(dim=1)
    assert predicted.tolist() == small_fold.train.labels[similar.argmax(axis=1)].tolist()


@pytest.mark.parametrize("c", [0.001, 0.1])
def test_the_machine_is_at_the_minimum_of_its_objective(small_fold: Fold, c: float) -> None:
    """½ ‖w‖² + c Σ max(0, 1 - y (w·x + b))² for one class against the others, as SciPy minimises it."""
    x = both(small_fold.train).astype(np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, y = (x - mean) / scale, 2.0 * (small_fold.train.labels.numpy() == 1) - 1

    def objective(v: np.ndarray) -> float:
        missing = np.maximum(0, 1 - y * (x @ v[:-1] + v[-1]))
        return float(v[:-1] @ v[:-1] / 2 + c * missing @ missing)

    theirs = minimize(objective, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-6})
    estimator = train(SVM(c=c), batches_of(small_fold)).model.estimator  # type: ignore[attr-defined]
    ours = estimator.coef_[1] * scale  # for standardised embeddings
    bias = estimator.intercept_[1] + estimator.coef_[1] @ mean
    assert objective(np.append(ours, bias)) == pytest.approx(theirs.fun, rel=1e-3)
    np.testing.assert_allclose(ours, theirs.x[:-1], atol=0.03 * np.abs(theirs.x).max())


def test_the_machines_probabilities_are_the_softmax_of_its_decision_values(small_fold: Fold) -> None:
    model = train(SVM(), batches_of(small_fold)).model
    values = model.estimator.decision_function(both(small_fold.test))  # type: ignore[attr-defined]
    expected = torch.from_numpy(values).softmax(dim=1).float()
    torch.testing.assert_close(model(batches_of(small_fold)["test"].inputs).softmax(dim=1), expected)


@pytest.mark.parametrize("system", [Prior(), KNN(neighbours=3), SVM(), Logistic()])
def test_the_order_of_the_training_utterances_does_not_matter(small_fold: Fold, system: EstimatorSystem) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    mixed = replace(small_fold, train=small_fold.train.select(order.tolist(), source="mixed"))
    test = batches_of(small_fold)["test"].inputs
    ours, theirs = (train(system, batches_of(fold)).model(test) for fold in (small_fold, mixed))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("system", [KNN(neighbours=3), SVM(), Logistic()])
def test_padding_does_not_matter(system: EstimatorSystem) -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(30, steps, 5, generator=generator) for steps in (4, 3))
    mask = torch.arange(4) < torch.randint(1, 5, (30, 1), generator=generator)
    labels, sizes = torch.arange(30) % 3, Sizes(audio_dim=5, text_dim=5, num_classes=3)
    one = Inputs.from_features(audio, text, audio_mask=mask)
    other = Inputs.from_features(torch.where(mask.unsqueeze(-1), audio, 7.0), text, audio_mask=mask)
    torch.testing.assert_close(system.fit(one, labels, sizes, 0)(one), system.fit(other, labels, sizes, 0)(other))

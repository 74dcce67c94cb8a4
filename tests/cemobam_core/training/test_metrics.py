from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cemobam_core.training.metrics import confusion_matrix, metrics_from_logits


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 10_000))
def test_they_are_scikit_learns(classes: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    measured = metrics_from_logits(logits, labels)
    predicted = logits.argmax(dim=1)
    recalls = sklearn_metrics.recall_score(labels, predicted, average=None, labels=labels.unique(), zero_division=0)
    assert measured.wa == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert measured.ua == pytest.approx(recalls.mean())
    assert measured.wf1 == pytest.approx(
        sklearn_metrics.f1_score(labels, predicted, average="weighted", zero_division=0)
    )
    assert measured.loss == pytest.approx(
        sklearn_metrics.log_loss(labels, logits.double().softmax(dim=1), labels=range(classes)), rel=1e-4
    )


def test_wa_and_ua_are_not_swapped() -> None:
    # 9 of class 0, all right; 1 of class 1, wrong: plain accuracy 0.9, mean recall 0.5
    labels = torch.tensor([0] * 9 + [1])
    logits = torch.tensor([[1.0, 0.0]] * 10)
    measured = metrics_from_logits(logits, labels)
    assert (measured.wa, measured.ua) == (pytest.approx(0.9), pytest.approx(0.5))
    assert measured.wf1 == pytest.approx(0.9 * 18 / 19)


def test_what_was_predicted_is_kept_a_byte_an_utterance() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 4.0, 3.0], [0.0, 0.0, 0.5], [1.0, 1.0, 0.0]])  # first of equals
    measured = metrics_from_logits(logits, torch.tensor([1, 1, 2, 0]))
    assert measured.predicted == bytes([1, 0, 2, 0])
    assert measured.wa == 0.75
    assert measured.logits is logits
    assert "predicted" not in repr(measured)


@pytest.mark.parametrize(("classes", "kept"), [(2, True), (255, True), (256, False)])
def test_a_class_that_does_not_fit_into_a_byte_is_not_kept(classes: int, kept: bool) -> None:
    logits = torch.eye(classes)
    measured = metrics_from_logits(logits, torch.arange(classes))
    assert measured.wa == 1.0
    assert measured.predicted == (bytes(range(classes)) if kept else b"")


def test_rows_of_the_confusion_matrix_are_labels() -> None:
    counts = confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 1]), 2)
    assert counts.tolist() == [[0, 2], [0, 1]]

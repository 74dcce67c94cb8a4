"""Linear classifiers along principal axes, compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cemobam_core import InputError
from cemobam_core.training import linear
from cemobam_core.training.linear import Axes, fit


def made(n: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features with a mean and with variances that differ by six orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    means, mixing = torch.randn(classes, dim, generator=generator), torch.randn(dim, dim, generator=generator)
    scales = 10 ** torch.linspace(0, -3, dim)
    x = (torch.randn(n, dim, generator=generator) + 0.5 * means[labels]) * scales @ mixing + 5
    return x.double(), labels


@pytest.mark.parametrize(("n", "dim", "classes"), [(60, 8, 3), (30, 50, 4)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_minimum_is_scikit_learns(n: int, dim: int, classes: int, c: float) -> None:
    x, labels = made(n, dim, classes)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(scaler.transform(x), labels)
    weights, bias, _ = fit(x, labels, classes, loss="cross_entropy", c=c, max_iter=10_000, tolerance=1e-12)
    ours = (x @ weights.T + bias).softmax(dim=1)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaler.transform(x)), atol=1e-5)
    np.testing.assert_allclose(weights * torch.from_numpy(scaler.scale_), theirs.coef_, atol=1e-4)


def test_it_takes_few_steps_where_plain_l_bfgs_takes_many() -> None:
    x, labels = made(400, 60, 4)
    x = x + 30 * torch.randn(400, 3, dtype=x.dtype, generator=torch.Generator().manual_seed(5)) @ x[:3]
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(max_iter=10_000, tol=1e-6).fit(scaler.transform(x), labels)
    *_, steps = fit(x, labels, 4, loss="cross_entropy", c=1.0, max_iter=1000, tolerance=1e-6)
    assert 3 * steps < theirs.n_iter_[0]


def test_a_constant_feature_and_a_copy_of_another_do_no_harm() -> None:
    x, labels = made(60, 8, 3)
    odd = torch.cat([x, torch.full((60, 1), 3.3, dtype=x.dtype), x[:, :1]], dim=1).float()
    weights, bias, _ = fit(odd, labels, 3, loss="cross_entropy", c=1.0, max_iter=100)
    assert torch.isfinite(weights).all()
    assert torch.isfinite(bias).all()
    torch.testing.assert_close(weights[:, 0], weights[:, -1], rtol=1e-2, atol=1e-3)
    assert weights[:, 8].abs().max() < 1e-5


def test_steps_are_limited() -> None:
    x, labels = made(60, 8, 3)
    assert fit(x, labels, 3, loss="squared_hinge", c=1.0, max_iter=2)[2] == 2


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_hinge"])
def test_derivatives_are_those_of_the_loss(loss: str) -> None:
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    wanted = torch.nn.functional.one_hot(torch.arange(7) % 3, 3).T.double()
    total, error = linear.LOSSES[loss].of(scores, wanted)
    total.backward()
    torch.testing.assert_close(error.detach(), scores.grad)


def test_axes_are_kept_for_the_same_features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_CACHE", [])
    (x, _), (y, _) = made(60, 8, 3), made(60, 8, 3, seed=1)
    first = Axes.of(x)
    assert Axes.of(x.clone()) is first
    assert Axes.of(y) is not first
    assert Axes.of(x) is first
    x[3, 2] += 1e-9
    assert Axes.of(x.clone()) is not first


def test_axes_beyond_the_memory_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_CACHE", [])
    monkeypatch.setattr(linear, "_CACHE_BYTES", 1)
    x, y = made(60, 8, 3)[0], made(60, 8, 3, seed=1)[0]
    Axes.of(x)
    assert Axes.of(y) is Axes.of(y)
    assert len(linear._CACHE) == 1


def test_the_axes_give_the_features_back() -> None:
    x, _ = made(60, 8, 3)
    axes = Axes.of(x)
    torch.testing.assert_close(axes.turned @ axes.rotation.T * axes.scale + axes.mean, x)
    torch.testing.assert_close(axes.turned.square().mean(dim=0), axes.variances)


@pytest.mark.parametrize(
    ("spoil", "message"), [(float("nan"), "NaN or infinity"), (None, "have the same label; a linear classifier needs")]
)
def test_what_cannot_be_fitted_is_told(spoil: float | None, message: str) -> None:
    x, labels = made(20, 4, 2)
    if spoil is not None:
        x[3, 1] = spoil
    with pytest.raises(InputError, match=message):
        fit(x, labels * (spoil is not None), 2 if spoil is not None else 1, loss="cross_entropy", c=1.0, max_iter=9)

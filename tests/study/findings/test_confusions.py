"""The difference of two confusion matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.findings.confusions import _rejected, matrix_difference
from study.findings.statistics import LEVEL, holm, paired


def test_it_is_in_shares_of_the_label_paired_by_seed() -> None:
    first = {0: np.array([[8, 2], [5, 5]]), 1: np.array([[9, 1], [5, 5]]), 7: np.array([[1, 0], [0, 1]])}
    second = {0: np.array([[6, 4], [5, 5]]), 1: np.array([[8, 2], [4, 6]])}
    difference = matrix_difference(first, second)
    assert difference
    assert difference.seeds == 2
    assert difference.points == pytest.approx(np.array([[0.15, -0.15], [0.05, -0.05]]))


def test_cells_beyond_noise_are_those_of_the_paired_test_with_holms_correction() -> None:
    rng = np.random.default_rng(0)
    base = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    worse = np.array([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    first, second = (
        {seed: np.stack([rng.multinomial(200, p) for p in of]) for seed in range(8)} for of in (base, worse)
    )
    difference = matrix_difference(first, second)
    assert difference
    shares = [np.stack([of[seed] / 200 for seed in range(8)]).reshape(8, -1) for of in (first, second)]
    p = holm([paired(a, b).p for a, b in zip(*(x.T for x in shares), strict=True)])
    assert difference.beyond_noise.ravel().tolist() == [one < LEVEL for one in p]
    assert difference.beyond_noise[0, :2].all()
    assert not difference.beyond_noise[1:].any()


def test_a_class_without_utterances_has_no_difference() -> None:
    one = {seed: np.array([[3 + seed, 1, 0], [1, 3, 0], [0, 0, 0]]) for seed in range(3)}
    difference = matrix_difference(
        one, {seed: matrix[::-1][[1, 0, 0]] * [[1], [1], [0]] for seed, matrix in one.items()}
    )
    assert difference
    assert np.isnan(difference.points[2]).all()
    assert not difference.beyond_noise[2].any()


def test_the_same_difference_in_every_seed_is_tested_by_signs() -> None:
    first = {seed: np.array([[10, 0], [0, 10]]) for seed in range(12)}
    second = {seed: np.array([[5, 5], [0, 10]]) for seed in range(12)}
    many, few = matrix_difference(first, second), matrix_difference(dict(list(first.items())[:5]), second)
    assert many
    assert few
    assert many.beyond_noise.tolist() == [[True, True], [False, False]]
    assert not few.beyond_noise.any()


def test_nothing_in_common_is_no_difference() -> None:
    one, other = np.eye(2, dtype=int), np.eye(3, dtype=int)
    assert matrix_difference({0: one}, {1: one}) is None
    assert matrix_difference({0: one}, {0: other}) is None
    assert matrix_difference({}, {}) is None
    alone = matrix_difference({0: one}, {0: one})
    assert alone
    assert not alone.beyond_noise.any()


@given(st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=30))
def test_holm_is_that_of_the_other_tests(p: list[float]) -> None:
    expected = [bool(x < LEVEL) for x in holm(p)]
    assert _rejected(np.array(p)).tolist() == expected

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from compared import compared
from scipy import stats

from study.findings.ranks import by_fold, ranked, why_not
from study.findings.systems import contenders, measured_block

SCORES = pd.DataFrame({"a": [9, 9, 8, 7, 9], "b": [8, 9, 9, 6, 8], "c": [1, 2, 3, 4, 5]}, dtype=float)
"""Ranks by hand: a 1, 1.5, 2, 1, 1; b 2, 1.5, 1, 2, 2; c always 3."""


def test_ranks_by_hand() -> None:
    made = ranked(SCORES)
    assert made.names == ("a", "b", "c")
    assert made.means == pytest.approx((1.3, 1.7, 3.0))
    assert made.n == 5
    chi2 = stats.friedmanchisquare(*SCORES.to_numpy().T).statistic
    without_ties = 12 * 5 / (3 * 4) * (1.3**2 + 1.7**2 + 3**2 - 3 * 4**2 / 4)  # Demšar (2006), page 11
    assert made.chi2 == pytest.approx(chi2)
    assert chi2 == pytest.approx(without_ties / (1 - 6 / (5 * 24)))  # one pair of ties among five rows of three
    assert made.f == pytest.approx(4 * chi2 / (5 * 2 - chi2))
    assert made.p == pytest.approx(stats.f.sf(made.f, 2, 8))
    assert made.critical == pytest.approx(2.343 * (3 * 4 / 30) ** 0.5, rel=5e-4)
    assert made.groups == ((0, 1), (1, 2))


def test_the_critical_difference_of_demsar() -> None:
    """The critical difference of four classifiers on 14 data sets is 1.25 (Demšar, 2006, section 3.2.4)."""
    assert ranked(pd.DataFrame(np.random.default_rng(0).random((14, 4)))).critical == pytest.approx(1.25, abs=5e-3)


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_values_of_nemenyi(k: int, q: float) -> None:
    """The critical values are those of Demšar (2006), Table 5(a)."""
    made = ranked(pd.DataFrame(np.random.default_rng(0).random((6, k))))
    assert made.critical == pytest.approx(q * (k * (k + 1) / 36) ** 0.5, rel=5e-4)


def test_groups_are_the_longest_runs() -> None:
    """With ranks 1, 2, 3 and 4 on 8 folds, a critical difference of 1.66 joins only neighbours."""
    made = ranked(pd.DataFrame([[4, 3, 2, 1]] * 8, columns=list("abcd"), dtype=float))
    assert made.means == (1, 2, 3, 4)
    assert made.groups == ((0, 1), (1, 2), (2, 3))
    assert made.f == np.inf
    assert made.p == 0


def test_ties_everywhere_are_no_difference() -> None:
    made = ranked(pd.DataFrame(np.full((5, 3), 0.5)))
    assert made.means == (2, 2, 2)
    assert (made.chi2, made.p) == (0, 1)
    assert made.groups == ((0, 2),)


def test_systems_by_fold_are_means_over_seeds() -> None:
    results = compared({"cemobam": 2.0, "gcn": 0.0, "svm": -2.0}, folds=6, seeds=3)
    block = measured_block(results)
    assert block
    names = [x.name for x in contenders(results, block)]
    scores = by_fold(results, block, names, "test_wa")
    assert scores.shape == (6, 3)
    ours = results.trials.query("system == 'gcn' and fold == 4")["test_wa"]
    assert len(ours) == 3
    assert scores.loc[4, "gcn"] == pytest.approx(ours.mean())
    results.trials.loc[results.trials["system"] == "gcn", "status"] = ["done"] * 17 + ["failed"]
    assert list(by_fold(results, block, names, "test_wa")) == ["cemobam", "svm"]


def test_it_says_why_there_are_no_ranks() -> None:
    assert why_not(1, 9, "folds") == "it takes 5 folds or more; this has 1"
    assert why_not(5, 2, "corpora") == "it takes 3 systems that are done on all corpora; this has 2"
    assert why_not(5, 3, "folds") == ""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies
from scipy import stats
from simulated import NOISES, NOTHING, Noise, claimed, hill, luck, study, worse

from cemobam_core.metrics import METRICS
from study.findings.analysis import Analysis
from study.findings.statistics import (
    DIFFERENCES,
    SHARES,
    grid_variance,
    half_width,
    held_out,
    holm,
    interval_ends,
    marginal,
    mean_interval,
    paired,
    selection,
)


def test_the_interval_of_five_by_hand() -> None:
    # mean 3, deviation sqrt(2.5), t with four degrees of freedom 2.7764: 2.7764 * sqrt(2.5 / 5) = 1.9632
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (interval.mean, interval.n) == (3.0, 5)
    assert (interval.low, interval.high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)
    one = mean_interval(np.array([2.0]))
    assert one.mean == 2.0
    assert np.isnan(one.low)
    assert np.isnan(mean_interval(np.array([])).mean)


@given(
    strategies.lists(strategies.floats(0, 1), min_size=3, max_size=8),
    strategies.floats(0, 1),
)
def test_an_interval_of_shares_is_cut_to_them_and_loses_no_mean_that_can_be(shares: list[float], truth: float) -> None:
    values = np.array(shares)
    cut, whole = mean_interval(values, SHARES), mean_interval(values)
    assert 0 <= cut.low <= cut.mean + 1e-12
    assert cut.mean - 1e-12 <= cut.high <= 1
    assert (cut.low <= truth <= cut.high) == (whole.low <= truth <= whole.high)


def test_an_interval_that_stays_within_its_range_is_left_as_it_is() -> None:
    low, high = interval_ends(0.5, 0.01, 5, SHARES)
    assert (low, high) == pytest.approx((0.5 - half_width(0.01, 5), 0.5 + half_width(0.01, 5)))
    assert interval_ends(0.99, 0.02, 3, SHARES)[1] == 1.0


def test_two_seeds_have_no_interval_of_anything() -> None:
    """With two seeds, Student's t would reach 12.7 standard errors on either side, beyond all percentages."""
    values = np.array([0.6, 0.9])
    assert np.isnan([mean_interval(values).low, mean_interval(values).high]).all()
    difference = paired(values, np.array([0.5, 0.7]))
    assert np.isnan([difference.low, difference.high]).all()
    assert 0 < difference.p < 1
    assert np.isnan(paired(values, values - 0.1).low)  # also if both differences are equal
    val, test = luck(np.random.default_rng(0), Noise(), 2, 4, 3)
    variance = grid_variance(test)
    assert variance
    assert np.isnan([variance.share_low, variance.share_high]).all()
    assert np.isnan(selection(val, test).on_new_seed.low)
    assert all(np.isnan(effect.low) for effect in marginal(test, "k_audio"))


def test_a_difference_of_shares_cannot_pass_100_points() -> None:
    made = paired(np.array([1.0, 1.0, 0.1]), np.array([0.0, 0.2, 0.0]))
    assert made.low >= DIFFERENCES[0]
    assert made.high == DIFFERENCES[1]


def test_a_paired_difference_is_scipys() -> None:
    first, second = np.array([0.8, 0.7, 0.9, 0.85]), np.array([0.75, 0.69, 0.8, 0.86])
    made, theirs = paired(first, second), stats.ttest_rel(first, second)
    assert made.p == pytest.approx(theirs.pvalue)
    assert (made.low, made.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    differences = first - second
    assert made.d_z == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_equal_differences_are_no_proof() -> None:
    made = paired(np.full(5, 0.8), np.full(5, 0.7))
    assert made.p == pytest.approx(2**-4)
    assert made.low == made.high == pytest.approx(0.1)
    assert paired(np.ones(5), np.ones(5)).p == 1.0
    assert np.isnan(paired(np.ones(1), np.zeros(1)).p)
    assert np.isnan(paired(np.ones(0), np.zeros(0)).mean)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    with_gap = holm([0.01, np.nan, 0.04])
    assert with_gap[0] == pytest.approx(0.02)
    assert np.isnan(with_gap[1])
    assert holm([]) == []


@given(strategies.lists(strategies.floats(0, 1), min_size=1, max_size=12))
def test_holm_steps_down(p_values: list[float]) -> None:
    expected, highest = {}, 0.0
    for step, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[i]))
        expected[i] = highest
    assert holm(p_values) == pytest.approx([expected[i] for i in range(len(p_values))])


def test_the_analysis_of_variance_is_that_of_statsmodels() -> None:
    from statsmodels.stats.anova import AnovaRM

    rng = np.random.default_rng(1)
    values = rng.standard_normal((4, 3, 5)) + rng.standard_normal((4, 1, 1)) + np.arange(3)[None, :, None]
    rows = [(s, a, t, values[s, a, t]) for s in range(4) for a in range(3) for t in range(5)]
    frame = pd.DataFrame(rows, columns=["seed", "K_audio", "K_text", "y"])
    theirs = AnovaRM(frame, "y", "seed", within=["K_audio", "K_text"]).fit().anova_table
    made = grid_variance(values)
    assert made
    for effect, name in zip(made.effects, ("K_audio", "K_text", "K_audio:K_text"), strict=True):
        assert effect.f == pytest.approx(theirs.loc[name, "F Value"])
        assert effect.df == theirs.loc[name, "Num DF"]
        assert 1 / effect.df <= effect.epsilon <= 1
        p = stats.f.sf(effect.f, effect.epsilon * effect.df, effect.epsilon * theirs.loc[name, "Den DF"])
        assert effect.p == pytest.approx(p)


def test_epsilon_and_omega_by_hand() -> None:
    # three levels of one K give two Helmert contrasts; the second score is three times the first, so they span one
    # dimension of two, and epsilon is 1/2
    contrasts = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    scores = np.array([[1.0, 3.0], [-1.0, -3.0], [2.0, 6.0], [0.0, 0.0]])
    values = (scores @ contrasts)[:, :, None]
    made = grid_variance(values)
    assert made
    (effect,) = made.effects
    assert effect.epsilon == pytest.approx(0.5)
    # SS of the effect: 4 * (0.5² + 1.5²) = 10; error: mean of the scores' variances (1.6667 + 15) / 2 = 8.3333
    assert effect.f == pytest.approx(5 / 8.33333, rel=1e-5)
    assert effect.omega2 == 0.0
    assert made.share == 0.0


def test_how_much_is_k_is_found() -> None:
    """The deviation of K is as large as that of a mean of five, so K causes half of the variance of the means."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(40):
        _, test = luck(rng, Noise(), 5, 10, 10)
        made = grid_variance(test + rng.standard_normal((1, 10, 10)) / np.sqrt(5))
        assert made
        assert made.share_low <= made.share <= made.share_high
        shares.append(made.share)
        assert made.std_of_seeds == pytest.approx(1.0, abs=0.15)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 10, 10), (5, 1, 1)])
def test_what_cannot_tell_k_from_luck_says_nothing(shape: tuple[int, int, int]) -> None:
    assert grid_variance(np.random.default_rng(0).standard_normal(shape)) is None
    assert grid_variance(np.broadcast_to(np.arange(4.0).reshape(1, 2, 2), (3, 2, 2)).copy()) is None  # no luck at all


def test_a_grid_of_one_row_has_one_effect() -> None:
    made = grid_variance(np.random.default_rng(0).standard_normal((5, 1, 4)))
    assert made
    assert [effect.name for effect in made.effects] == ["K_text"]


def test_marginal_effects_leave_the_seeds_luck_out() -> None:
    seeds = np.array([0.0, 10.0, 20.0])[:, None, None]
    values = seeds + np.array([0.0, 1.0, 2.0])[None, :, None] + np.zeros((3, 3, 4))
    audio, text = marginal(values, "k_audio"), marginal(values, "k_text")
    assert [x.mean for x in audio] == pytest.approx([-1, 0, 1])
    assert [x.high - x.low for x in audio] == pytest.approx([0] * 3, abs=1e-12)
    assert [x.mean for x in text] == pytest.approx([0] * 4)


def test_nobody_measures_what_they_picked() -> None:
    """Seed 0 favours pair 0 by far. Without it, pair 1 is best, so seed 0 is measured at pair 1, the others at 0."""
    choosing = np.array([[[9.0, 0.0, 0.0]], [[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]]])
    measured = np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0]]])
    assert held_out(choosing, measured).tolist() == [2.0, 4.0, 7.0]
    made = selection(choosing, measured)
    assert (made.chosen, made.same) == (0, 2)
    assert made.reported == pytest.approx(4.0)
    assert made.on_new_seed.mean == pytest.approx(13 / 3)
    assert made.optimism.mean == pytest.approx(-1 / 3)


def test_choosing_on_test_is_optimistic_by_as_much_as_luck_makes_it() -> None:
    """The largest of 100 means of five is 2.508 of their deviations too high on average (Tippett, 1925)."""
    rng, gains, fresh = np.random.default_rng(3), [], []
    for _ in range(200):
        _, test = luck(rng, Noise(seed=0.0), 5, 10, 10)
        made = selection(test, test)
        gains.append(made.reported)
        fresh.append(made.on_new_seed.mean)
    assert np.mean(gains) == pytest.approx(2.508 / np.sqrt(5), abs=0.03)
    assert np.mean(fresh) == pytest.approx(0, abs=0.1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One metric is enough, because the others have the same values."""
    monkeypatch.setattr("study.findings.results.SCORES", {"wa": METRICS["wa"]})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "side", "grids"),
    [("like the demo's", 3, 40), *(pytest.param(name, 10, 200, marks=pytest.mark.slow) for name in NOISES)],
)
def test_where_there_is_no_effect_none_is_claimed(name: str, side: int, grids: int) -> None:
    """No family of tests may find effects in more grids than a level of 5% allows (with probability 1 in 100)."""
    rng = np.random.default_rng(2026)
    size = (side, side)
    made = [claimed(Analysis(study(rng, NOISES[name], variants=NOTHING, size=size))) for _ in range(grids)]
    found = pd.DataFrame(made).sum()
    assert (found <= stats.binom.ppf(0.999, grids, 0.05)).all(), found


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["independent", "like the demo's"])
def test_where_there_is_an_effect_it_is_found(name: str) -> None:
    """The grid has a hill of four deviations of a trial, and the variants are worse by the same amount."""
    rng = np.random.default_rng(7)
    made = [claimed(Analysis(study(rng, NOISES[name], effect=hill(4.0), variants=worse(4.0)))) for _ in range(20)]
    found = pd.DataFrame(made).mean()
    assert (found >= 0.8).all(), found

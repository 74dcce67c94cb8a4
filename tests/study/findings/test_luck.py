from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies
from scipy import stats

from cemobam_core.metrics import METRICS
from cemobam_core.metrics.metric import Counts
from study.design.seeds import LOOKS, SPENT
from study.findings.luck import (
    FEWEST_CLUSTERS,
    Components,
    agreement,
    agreement_between,
    cluster_by,
    components,
    contributions,
    crossed,
    equivalence,
    level,
    mcnemar,
    over_looks,
    probabilities,
    reproduced,
    seeds_needed,
    utterances_needed,
    vote,
)
from study.findings.statistics import LEVEL, Array, Difference, paired

BY_HAND = np.array([[1.0, 2.0, 6.0], [2.0, 5.0, 8.0]]) / 100


def labelled(seed: int = 0, seeds: int = 4, utterances: int = 60, classes: int = 4) -> tuple[Any, Any]:
    """Return labels, and predictions of several seeds that are correct in two of three cases."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, utterances)
    wrong = rng.integers(0, classes, (seeds, utterances))
    return np.where(rng.random((seeds, utterances)) < 0.6, labels, wrong), labels


def drawn(
    seed: int, seeds: int, utterances: int, parts: tuple[float, float, float] = (1.0, 5.0, 10.0), mean: float = 0.0
) -> Array:
    """Return differences in points with known deviations of seeds, utterances and error."""
    rng = np.random.default_rng(seed)
    a, b, e = parts
    made = mean + a * rng.standard_normal((seeds, 1)) + b * rng.standard_normal(utterances)
    return np.asarray(made + e * rng.standard_normal((seeds, utterances))) / 100


def value(metric: str, predicted: Any, labels: Any, classes: int) -> float:
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, predicted), 1)
    return float(METRICS[metric].of(Counts.of(torch.from_numpy(confusion))))


def test_seeds_and_utterances_by_hand() -> None:
    # means of seeds 3, 5, of utterances 1.5, 3.5, 7, of all 4. Mean squares: seeds 3 · (1 + 1) / 1 = 6;
    # utterances 2 · (6.25 + 0.25 + 9) / 2 = 15.5; left over are ±0.5, ∓0.5, 0: 4 · 0.25 / 2 = 0.5
    of = components(BY_HAND)
    assert (of.error * 1e4, of.seed * 1e4, of.utterance * 1e4) == pytest.approx((0.5, (6 - 0.5) / 3, (15.5 - 0.5) / 2))
    assert of.se * 100 == pytest.approx(np.sqrt((6 + 15.5 - 0.5) / 6))
    made = crossed(BY_HAND)
    assert (made.mean, made.se, made.n, made.utterances) == pytest.approx((0.04, of.se, 2, 3))
    assert np.isnan(made.low)  # two seeds have no interval
    assert made.df <= 1
    assert made.p == pytest.approx(2 * stats.t.sf(made.mean / made.se, made.df))


def test_degrees_of_freedom_by_hand() -> None:
    # a = 2, b = 3, error = 1 over S U = 5 · 9; 4, 8 and 32 degrees of freedom
    of = Components(seed=1.0 * 5, utterance=2.0 * 9, error=1.0 * 45, seeds=5, utterances=9, clusters=9)
    assert of.se == pytest.approx(2.0)
    higher = 2 * (1 + np.sqrt(2 / 4)), 3 * (1 + np.sqrt(2 / 8))
    expected = [(a + b - 1) ** 2 / (a**2 / 4 + b**2 / 8 + 1 / 32) for a, b in ((2, 3), (higher[0], 3), (2, higher[1]))]
    assert of.df == pytest.approx(min(expected))
    assert of.over_seeds.se == pytest.approx(np.sqrt(2))  # only the means of seeds count
    assert of.over_seeds.df == pytest.approx(4)


def test_with_clusters_of_one_size_it_is_the_analysis_of_their_means() -> None:
    values = drawn(0, 5, 24)
    clusters = np.repeat(np.arange(8), 3)
    means = values.reshape(5, 8, 3).mean(axis=2)
    by_cluster, by_mean = crossed(values, clusters=clusters), crossed(means)
    assert (by_cluster.se, by_cluster.df, by_cluster.p) == pytest.approx((by_mean.se, by_mean.df, by_mean.p))
    alone = crossed(values, clusters=np.arange(24))
    assert (alone.se, alone.df) == pytest.approx((crossed(values).se, crossed(values).df))


def test_clusters_of_several_sizes_by_hand() -> None:
    # two seeds that differ by a shift, so no error; means of utterances −3, 1, 2 around the mean; clusters {0, 1}, {2}:
    # sums −2 and 2, so (4 + 4) / 3² · 2 / 1 for the clusters, and ±1 for the seeds: 1² · 2 / (2 · 1)
    values = np.array([[-4.0, 0.0, 1.0], [-2.0, 2.0, 3.0]])
    of = components(values, clusters=np.array([7, 7, 3]))
    assert of.clusters == 2
    assert of.error == pytest.approx(0)
    assert of.se**2 == pytest.approx(16 / 9 + 1)


def test_overlapping_training_sets_make_folds_vary_more() -> None:
    values, folds = drawn(0, 4, 30, (0.0, 5.0, 0.0)), np.repeat(np.arange(5), 6)
    plain, corrected = (components(values, clusters=folds, fold_ratio=ratio).se for ratio in (0.0, 0.25))
    # (1 / 5 + 1 / 4) instead of 1 / 5
    assert corrected**2 / plain**2 == pytest.approx((1 / 5 + 1 / 4) / (1 / 5))


def test_it_agrees_with_a_mixed_model_of_statsmodels() -> None:
    import statsmodels.formula.api as smf

    seeds, utterances = 8, 15
    values = drawn(5, seeds, utterances, (3.0, 4.0, 5.0), mean=2.0)
    frame = pd.DataFrame(
        [(s, u, 100 * values[s, u]) for s in range(seeds) for u in range(utterances)],
        columns=["seed", "utterance", "d"],
    )
    crossed_effects = {"seed": "0 + C(seed)", "utterance": "0 + C(utterance)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels warns during its iterations
        fit = smf.mixedlm("d ~ 1", frame.assign(all=1), groups="all", re_formula="0", vc_formula=crossed_effects).fit(
            reml=True
        )
    of = components(values)
    theirs = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    assert 1e4 * of.seed == pytest.approx(theirs["seed"], rel=0.01)
    assert 1e4 * of.utterance == pytest.approx(theirs["utterance"], rel=0.01)
    assert 1e4 * of.error == pytest.approx(fit.scale, rel=0.01)
    made = crossed(values)
    assert 100 * made.mean == pytest.approx(fit.fe_params.iloc[0], abs=1e-6)
    assert 100 * made.se == pytest.approx(fit.bse_fe.iloc[0], rel=0.01)


@given(strategies.integers(0, 10**6), strategies.booleans())
def test_neither_order_nor_sign_matters(seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    values = drawn(seed, int(rng.integers(3, 7)), int(rng.integers(12, 30)))
    clusters = rng.integers(0, 4, values.shape[1]) if grouped else None
    made = crossed(values, clusters=clusters)
    moved = rng.permutation(values.shape[1])
    again = crossed(
        values[rng.permutation(len(values))][:, moved], clusters=None if clusters is None else 10 - clusters[moved]
    )
    turned = crossed(-values, clusters=clusters)
    assert (again.mean, again.se, again.df, again.p) == pytest.approx((made.mean, made.se, made.df, made.p))
    assert (-turned.mean, turned.se, -turned.high) == pytest.approx((made.mean, made.se, made.low))
    twice = crossed(2 * values, clusters=clusters)
    assert (twice.se, twice.df, twice.p) == pytest.approx((2 * made.se, made.df, made.p))


@given(strategies.integers(0, 10**6), strategies.integers(2, 6), strategies.integers(2, 20))
def test_other_utterances_only_add_to_the_seeds_luck(seed: int, seeds: int, utterances: int) -> None:
    values = drawn(seed, seeds, utterances, (seed % 3, seed % 5, 1.0))
    over_seeds, both = paired(values.mean(axis=1), np.zeros(seeds)), crossed(values)
    assert both.mean == pytest.approx(over_seeds.mean)
    assert both.se >= over_seeds.se * (1 - 1e-9)
    over_utterances = values.mean(axis=0).std(ddof=1) / np.sqrt(utterances)
    assert both.se >= over_utterances * (1 - 1e-9)
    assert components(values).over_seeds.se == pytest.approx(max(over_seeds.se, np.sqrt(_error(values))))


def _error(values: Array) -> float:
    """Return the part of the error in the variance of the mean, from its definition."""
    of = components(values)
    return of.error / values.size


def test_what_says_nothing_of_luck_has_no_p_value() -> None:
    for shape in ((1, 30), (5, 1), (1, 1)):
        made = crossed(drawn(0, *shape))
        assert np.isfinite(made.mean)
        assert np.isnan([made.se, made.p, made.low, made.high, made.df]).all()
        assert np.isnan([equivalence(made), *probabilities(made)]).all()
    one_speaker = crossed(drawn(0, 5, 30), clusters=np.zeros(30, dtype=np.int64))
    assert np.isnan([one_speaker.se, one_speaker.p]).all()
    assert np.isnan(crossed(np.empty((0, 0))).mean)
    spoilt = drawn(0, 5, 30)
    spoilt[2, 3] = np.nan
    assert np.isnan([crossed(spoilt).mean, crossed(spoilt).p, crossed(spoilt).low]).all()


def test_equal_differences_are_no_proof() -> None:
    made = crossed(np.full((5, 40), 0.02))
    assert (made.se, made.p, made.low, made.high) == pytest.approx((0.0, 2**-4, 0.02, 0.02))
    same = crossed(np.zeros((5, 40)))
    assert (same.mean, same.p) == (0.0, 1.0)
    assert equivalence(same) == 2**-5
    assert equivalence(made) == 1.0
    assert probabilities(same) == (0.0, 1.0, 0.0)
    assert probabilities(made) == (1.0, 0.0, 0.0)


def test_systems_without_luck_of_seeds_are_judged_by_utterances() -> None:
    """Logistic regression gives the same for every seed. The interval is then Student's t over utterances."""
    once = drawn(1, 1, 200)[0]
    made, expected = crossed(np.tile(once, (5, 1))), stats.ttest_1samp(once, 0)
    assert made.p == pytest.approx(expected.pvalue, rel=0.05)
    assert made.se == pytest.approx(once.std(ddof=1) / np.sqrt(200))


def test_a_difference_of_shares_cannot_pass_100_points() -> None:
    made = crossed(np.array([[1.0, 1.0, 1.0, 0.0], [1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]]))
    assert made.high == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_contributions_mean_the_metric(metric: str) -> None:
    predicted, labels = labelled()
    made = contributions(predicted, labels, metric, 4)
    assert made.shape == predicted.shape
    assert made.mean(axis=1) == pytest.approx([value(metric, row, labels, 4) for row in predicted])


@pytest.mark.parametrize("metric", METRICS)
def test_a_contribution_is_the_influence_of_an_utterance(metric: str) -> None:
    """The influence is the change of the metric if one utterance counts a little more, by its definition."""
    predicted, labels = labelled(seeds=1)
    made = contributions(predicted, labels, metric, 4)[0]
    base, step = value(metric, predicted[0], labels, 4), 1e-6
    for u in (0, 7, 31):
        confusion = np.zeros((4, 4))
        np.add.at(confusion, (labels, predicted[0]), (1 - step) / len(labels))
        confusion[labels[u], predicted[0, u]] += step
        # The metrics treat a count below one as one, so counts are given in thousandths.
        nudged = float(METRICS[metric].of(Counts.of(torch.from_numpy(1000 * confusion))))
        assert made[u] - made.mean() == pytest.approx((nudged - base) / step, abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_near_the_jackknifes(metric: str) -> None:
    predicted, labels = labelled(seeds=1, utterances=300)
    made = contributions(predicted, labels, metric, 4)[0]
    without = [value(metric, np.delete(predicted[0], u), np.delete(labels, u), 4) for u in range(300)]
    jackknife = np.sqrt(299 / 300 * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert made.std(ddof=1) / np.sqrt(300) == pytest.approx(jackknife, rel=0.03)


def test_wa_is_right_or_wrong() -> None:
    predicted, labels = labelled()
    assert contributions(predicted, labels, "wa", 4) == pytest.approx((predicted == labels).astype(float))


def test_a_class_that_never_comes_does_no_harm() -> None:
    predicted, labels = np.array([[0, 1, 1, 0]]), np.array([0, 1, 0, 0])
    for metric in METRICS:
        made = contributions(predicted, labels, metric, 5)
        assert np.isfinite(made).all()
        assert made.mean() == pytest.approx(value(metric, predicted[0], labels, 5))


@pytest.mark.parametrize("metric", METRICS)
def test_over_folds_the_metric_is_their_mean(metric: str) -> None:
    predicted, labels = labelled(utterances=60)
    folds = np.repeat([3, 1, 2], [30, 20, 10])
    made = contributions(predicted, labels, metric, 4, folds)
    of_fold = [[value(metric, row[folds == f], labels[folds == f], 4) for f in (1, 2, 3)] for row in predicted]
    assert made.mean(axis=1) == pytest.approx(np.mean(of_fold, axis=1))
    # the sum of a fold's deviations is the deviation of the fold, for any size
    deviations = made - made.mean(axis=1, keepdims=True)
    for number, fold in enumerate((1, 2, 3)):
        own = (np.array(of_fold)[:, number] - np.mean(of_fold, axis=1)) * 60 / 3
        assert deviations[:, folds == fold].sum(axis=1) == pytest.approx(own)


def test_speakers_are_clusters_where_there_are_enough() -> None:
    names = [f"speaker {i % FEWEST_CLUSTERS}" for i in range(40)]
    made = cluster_by(names)
    assert made is not None
    assert len(set(made.tolist())) == FEWEST_CLUSTERS
    assert cluster_by(names[: FEWEST_CLUSTERS - 1]) is None
    assert cluster_by(None) is None


def test_a_level_has_both_kinds_of_luck() -> None:
    predicted, labels = labelled(utterances=200)
    values = contributions(predicted, labels, "wa", 4)
    made = level(values)
    assert made.mean == pytest.approx(values.mean())
    assert (made.n, made.utterances) == (4, 200)
    half = stats.t.ppf(0.975, made.df) * made.se
    assert (made.low, made.high) == pytest.approx((made.mean - half, made.mean + half))
    wider = level(values, level=0.01)
    assert wider.low < made.low < made.mean < made.high < wider.high
    assert level(np.ones((5, 20))).high == 1.0
    assert np.isnan(level(values[:1]).se)


def test_a_published_level_has_luck_of_its_own() -> None:
    # seed 1, utterance 2, error 4 over 5 seeds and 100 utterances: (1 + 4 / 100) (1 / 5 + 1 / 5) + 2 · 2 / 100
    of = Components(seed=1.0, utterance=2.0, error=4.0, seeds=5, utterances=100, clusters=100)
    ours = replace(level(np.zeros((5, 4)) + 0.5), mean=0.7, components=of)
    made = reproduced(ours, 0.75)
    assert made.se == pytest.approx(np.sqrt(1.04 * 0.4 + 0.04))
    assert made.mean == pytest.approx(-0.05)
    more = reproduced(replace(ours, components=replace(of, seeds=10)), 0.75)
    assert more.se == pytest.approx(np.sqrt(1.04 * 0.3 + 0.04))
    assert np.isnan(reproduced(level(drawn(0, 1, 30)), 0.5).p)


def test_a_published_level_is_reproduced_lower_or_higher() -> None:
    ours = level(0.7 + drawn(2, 20, 4000, (0.2, 2.0, 2.0)))
    assert equivalence(reproduced(ours, ours.mean + 0.001)) < LEVEL
    lower, higher = reproduced(ours, ours.mean + 0.05), reproduced(ours, ours.mean - 0.05)
    assert equivalence(lower) > 0.99
    assert lower.p < LEVEL
    assert lower.mean < 0 < higher.mean


def test_equivalence_is_two_one_sided_tests() -> None:
    first, second = np.array([0.712, 0.705, 0.700, 0.709, 0.704]), np.array([0.710, 0.708, 0.703, 0.706, 0.704])
    made = paired(first, second)
    d = first - second
    expected = max(
        stats.ttest_1samp(d, -0.01, alternative="greater").pvalue, stats.ttest_1samp(d, 0.01, alternative="less").pvalue
    )
    assert equivalence(made) == pytest.approx(expected)
    assert equivalence(made) < LEVEL
    assert equivalence(made, 0.001) > LEVEL
    assert equivalence(paired(first + 0.02, second)) > 0.5


@given(strategies.floats(-0.05, 0.05), strategies.floats(1e-4, 0.05), strategies.floats(1, 500))
def test_probabilities_sum_to_one_and_follow_the_mean(mean: float, se: float, df: float) -> None:
    made = Difference(mean=mean, low=0, high=0, d_z=0, p=0.5, n=5, se=se, df=df)
    better, same, worse = probabilities(made)
    assert better + same + worse == pytest.approx(1)
    assert min(better, same, worse) >= 0
    assert (better >= worse) == (mean >= 0) or better == pytest.approx(worse)
    assert probabilities(replace(made, mean=-mean)) == pytest.approx((worse, same, better))
    assert better == pytest.approx(1 - stats.t.cdf((0.01 - mean) / se, df))
    # the one-sided tests and the posterior give the same number
    assert equivalence(made) == pytest.approx(max(better, worse))


def test_so_many_seeds_tell() -> None:
    of = components(drawn(3, 5, 400)).over_seeds
    for mean in (0.005, 0.01, 0.02):
        n = seeds_needed(mean, of)
        assert n is not None
        assert mean > stats.t.ppf(0.975, n - 1) * np.sqrt(of.seed / n)
        assert n == 2 or mean <= stats.t.ppf(0.975, n - 2) * np.sqrt(of.seed / (n - 1))
    assert seeds_needed(0.01, of, 0.01) > seeds_needed(0.01, of)  # type: ignore[operator]
    assert seeds_needed(0.0, of) is None


def test_no_number_of_seeds_makes_up_for_few_utterances() -> None:
    of = components(drawn(3, 5, 400, (0.2, 20.0, 2.0)))  # a point over utterances
    assert seeds_needed(0.01, of) is None
    more = utterances_needed(0.01, of)
    assert more is not None
    assert more > 400
    assert seeds_needed(0.01, replace(of, utterances=4 * more, clusters=4 * more)) is not None
    assert utterances_needed(0.0001, of) is None  # the part of the seeds alone is too large
    clustered = replace(of, clusters=10)
    assert utterances_needed(0.01, clustered) >= more  # type: ignore[operator]


def test_looks_spend_the_level_once() -> None:
    assert len(LOOKS) == len(SPENT)
    assert sum(SPENT) == pytest.approx(LEVEL)
    assert over_looks(0.0099, SPENT[0]) < LEVEL < over_looks(0.0101, SPENT[0])
    assert over_looks(0.0199, SPENT[2]) < LEVEL < over_looks(0.0201, SPENT[2])
    assert over_looks(0.9, SPENT[0]) == 1.0
    assert np.isnan(over_looks(float("nan"), SPENT[0]))
    values = drawn(0, 5, 50)
    at_look = crossed(values, level=SPENT[0])
    assert at_look.high - at_look.low > crossed(values).high - crossed(values).low
    first, second = values.mean(axis=1), np.zeros(5)
    assert paired(first, second, SPENT[0]).high > paired(first, second).high
    assert paired(first, second, SPENT[0]).p == paired(first, second).p


def test_votes_and_agreement_by_hand() -> None:
    predicted = np.array([[0, 1, 2, 3], [0, 1, 1, 2], [0, 2, 1, 1], [1, 2, 1, 0]])
    assert vote(predicted, 4).tolist() == [
        0,
        1,
        1,
        0,
    ]  # 1 and 2 have two votes each, so 1 wins; all four classes have one each, so 0 wins
    # pairs of seeds alike, of six: 3, 2, 3, 0
    assert agreement(predicted, 4) == pytest.approx((3 + 2 + 3 + 0) / 6 / 4)
    assert agreement_between(predicted[:1], predicted[1:2], 4) == pytest.approx(0.5)
    assert agreement_between(predicted, predicted, 4) == pytest.approx((10 + 8 + 10 + 4) / 16 / 4)
    assert np.isnan(agreement(predicted[:1], 4))
    assert agreement(np.tile(predicted[0], (3, 1)), 4) == 1.0


def test_mcnemar_is_that_of_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    labels = np.zeros(30, dtype=int)
    first, second = np.repeat([0, 0, 1, 1], [10, 9, 2, 9]), np.repeat([0, 1, 0, 1], [10, 9, 2, 9])
    p, only_first, only_second = mcnemar(first, second, labels)
    assert (only_first, only_second) == (9, 2)
    assert p == pytest.approx(theirs([[10, 9], [2, 9]], exact=True).pvalue)
    assert mcnemar(first, first, labels) == (1.0, 0, 0)


def test_the_real_utterances_have_speakers_enough_for_clusters(real_pickle: Any) -> None:
    from safetensors import safe_open

    with safe_open(real_pickle.parent / "IEMOCAP_551.safetensors", "np") as file:
        made = cluster_by(json.loads(file.metadata()["speakers"]))
    assert made is not None
    sizes = np.bincount(made)
    assert (len(sizes), sizes.sum()) == (10, 551)

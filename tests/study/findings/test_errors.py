"""The errors of a study: recall by group, its interval, and hard utterances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predicted import results_of
from scipy import stats

from study.findings.errors import (
    FEWEST_TRIALS,
    SHOWN_GROUPS,
    Errors,
    Recall,
    hard_utterances,
    left_out,
    recalls,
    share_interval,
    shown_groups,
)
from study.findings.luck import components
from study.findings.results import Results

LABELS = [0] * 6 + [1] * 4 + [3] * 2
SEEDS = [
    [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 3, 3],
    [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1],
    [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 3, 3],
]


def told(made: list[Recall], by: str) -> dict[str, tuple[float, int]]:
    return {one.group: (one.mean, one.utterances) for one in made if one.by == by}


def test_recall_by_class_is_the_mean_over_seeds_of_the_share_that_is_right() -> None:
    made = recalls(results_of({"min": SEEDS}, LABELS))
    assert told(made, "class") == {
        "anger": (pytest.approx(15 / 18), 6),
        "happiness": (pytest.approx(5 / 12), 4),
        "sadness": (pytest.approx(5 / 6), 2),
    }  # no utterance has the label neutral
    assert {one.by for one in made} == {"class"}  # nothing else is known
    anger, happiness, _ = made
    assert 0 < anger.low < anger.mean < anger.high < 1
    assert np.isnan([happiness.low, happiness.high]).all()  # four utterances
    assert {one.seeds for one in made} == {3}


def test_recall_by_speaker_session_and_length() -> None:
    speakers = ["Ann", "Bob", "Ann", "Bob", "Ann", "Bob"] * 2
    sessions = ["Ses10"] * 4 + ["Ses2"] * 4 + ["Ses1"] * 4
    seconds = [1.0, 2.0, 3.0, 4.0] * 3
    made = recalls(results_of({"min": [LABELS] * 3}, LABELS, speakers=speakers, sessions=sessions, seconds=seconds))
    assert told(made, "speaker") == {"Ann": (1.0, 6), "Bob": (1.0, 6)}
    assert list(told(made, "session")) == ["Ses1", "Ses2", "Ses10"]
    assert told(made, "length") == {
        "up to 1.8 s": (1.0, 3), "1.8 to 2.5 s": (1.0, 3), "2.5 to 3.2 s": (1.0, 3), "over 3.2 s": (1.0, 3),
    }  # fmt: skip
    assert sum(one.utterances for one in made if one.by == "class") == len(LABELS)


def test_what_is_not_known_of_some_or_the_same_for_all_makes_no_group() -> None:
    speakers = ["Ann", None] * 6
    made = recalls(
        results_of({"min": SEEDS}, LABELS, speakers=speakers, sessions=["one"] * 12, seconds=[2.0] * 11 + [np.nan])
    )
    assert {one.by for one in made} == {"class"}


def test_lengths_of_which_most_are_the_same_make_fewer_groups() -> None:
    made = recalls(results_of({"min": SEEDS}, LABELS, seconds=[2.0] * 9 + [2.01, 2.02, 2.03]))
    assert {name: n for name, (_, n) in told(made, "length").items()} == {"up to 2.000 s": 9, "over 2.002 s": 3}


def test_an_utterance_that_two_folds_test_counts_once() -> None:
    ids = ["a", "b", "a", "c"]
    results = results_of({"min": [[0, 0, 1, 0]] * 3}, [0, 0, 0, 0], ids=ids, folds=[0, 0, 1, 1])
    (anger,) = recalls(results)
    assert (anger.utterances, anger.mean) == (3, pytest.approx((0.5 + 1 + 1) / 3))


def test_a_ledger_without_predictions_or_complete_seeds_has_no_recall() -> None:
    results = results_of({"min": SEEDS}, LABELS)
    without = Results(about=results.about, trials=results.trials)
    assert recalls(without) == []
    assert hard_utterances(without) is None
    assert recalls(replace(results, about=replace(results.about, folds=2))) == []
    others = results_of({"max": SEEDS}, LABELS)
    assert Errors(others).recalls == []


def test_the_interval_by_hand() -> None:
    """Three seeds agree: each utterance is correct with all seeds or with none, so n is the number of utterances."""
    right = np.tile(np.repeat([1.0, 0.0], [15, 5]), (3, 1))
    of = components(right)
    # the standard error is that of 20 draws; ten more utterances show p (1 - p) / n
    size = 0.75 * 0.25 * 30 / (20 * of.se**2 + 10 * 0.75 * 0.25 / 20)
    t = stats.t.ppf(0.975, of.df)
    low, high = share_interval(right)
    for end in (low, high):  # Wilson: the shares from which 0.75 is t standard errors away
        assert abs(0.75 - end) == pytest.approx(t * np.sqrt(end * (1 - end) / size))
    assert low < 0.75 < high


def test_where_all_are_right_the_interval_reaches_as_far_as_so_few_utterances_can_tell() -> None:
    low, high = share_interval(np.ones((5, 20)))
    t = stats.t.ppf(0.975, 19)
    assert high == 1.0
    assert low == pytest.approx(20 / (20 + t**2))
    assert share_interval(np.zeros((5, 20))) == (0.0, pytest.approx(1 - low))


@given(st.integers(3, 6), st.integers(5, 12), st.data())
def test_an_interval_lies_within_0_and_1_and_holds_the_mean(seeds: int, utterances: int, data: st.DataObject) -> None:
    cells = st.lists(st.booleans(), min_size=seeds * utterances, max_size=seeds * utterances)
    right = np.array(data.draw(cells), dtype=float).reshape(seeds, utterances)
    low, high = share_interval(right)
    assert 0 <= low <= right.mean() <= high <= 1
    turned = share_interval(1 - right)
    assert (1 - turned[1], 1 - turned[0]) == (pytest.approx(low), pytest.approx(high))


def test_enough_speakers_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(10), 20)
    right = (rng.random((5, 200)) < np.repeat(rng.random(10), 20)).astype(float)
    alone, clustered = share_interval(right), share_interval(right, speaker)
    assert clustered[1] - clustered[0] > 1.5 * (alone[1] - alone[0])
    labels = [0] * 200
    made = recalls(results_of({"min": np.where(right, 0, 1).tolist()}, labels, speakers=[f"s{i}" for i in speaker]))
    assert (made[0].low, made[0].high) == clustered
    assert made[0].over_speakers
    assert not any(one.over_speakers for one in made if one.by == "speaker")


@pytest.mark.parametrize(("seeds", "utterances"), [(2, 40), (1, 40), (5, 4)])
def test_too_few_have_no_interval(seeds: int, utterances: int) -> None:
    assert np.isnan(share_interval(np.ones((seeds, utterances)))).all()


def test_speakers_go_from_worst_to_best_and_the_middle_is_left_out() -> None:
    many = [
        Recall(by="speaker", group=f"s{i}", mean=(i * 7 % 30) / 30, low=0, high=1, utterances=9, seeds=5)
        for i in range(30)
    ]
    classes = [
        Recall(by="class", group=c, mean=m, low=0, high=1, utterances=9, seeds=5) for c, m in (("b", 1), ("a", 0))
    ]
    shown = shown_groups([*classes, *many])
    assert [one.group for one in shown["class"]] == ["b", "a"]
    means = [one.mean for one in shown["speaker"]]
    assert means == sorted(means)
    assert len(means) == SHOWN_GROUPS
    assert (means[0], means[-1]) == (0.0, 29 / 30)
    assert left_out([*classes, *many]) == ["Of the 30 groups by speaker the 10 worst and the 10 best are shown"]
    assert left_out(classes) == []


def test_hard_utterances_are_wrong_in_nine_of_ten_trials_of_any_configuration() -> None:
    labels = [0, 0, 1, 2]
    # u1: always wrong, six times as sadness; u2: wrong in nine of ten; u3: in eight of ten
    own = [[0, 3, 0, 0]] * 3 + [[0, 3, 0, 0], [0, 1, 0, 2]]
    other = [[0, 3, 0, 3]] * 2 + [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 1, 2]]
    hard = hard_utterances(results_of({"min": own, "max": other}, labels, speakers=["Ann", "Bob", "Ann", "Bob"]))
    assert hard
    assert (hard.utterances, hard.trials) == (4, FEWEST_TRIALS)
    first, second = hard.frame.to_dict("records")
    assert (first["id"], first["label"], first["taken_for"]) == ("u1", "anger", "sadness")
    assert (first["taken_for_share"], first["wrong_share"], first["trials"]) == (0.6, 1.0, 10)
    assert first["speaker"] == "Bob"
    assert (second["id"], second["wrong_share"]) == ("u2", pytest.approx(0.9))


def test_fewer_trials_call_nothing_hard_and_other_systems_do_not_count() -> None:
    assert hard_utterances(results_of({"min": [[1, 1]] * 9}, [0, 0])) is None
    results = results_of({"min": [[1, 0]] * 10, "max": [[0, 1]] * 10}, [0, 0])
    theirs = results.trials.assign(system=np.where(results.trials["fusion"] == "max", "gcn", "cemobam"))
    hard = hard_utterances(replace(results, trials=theirs))
    assert hard
    assert hard.frame["id"].tolist() == ["u0"]
    assert hard.trials == 10


def test_failed_trials_do_not_count() -> None:
    results = results_of({"min": [[1, 0]] * 11}, [0, 0])
    results.trials.loc[0, "status"] = "failed"
    hard = hard_utterances(results)
    assert hard
    assert hard.frame["trials"].tolist() == [10]


def test_the_same_utterance_in_two_folds_is_one() -> None:
    results = results_of({"min": [[1, 0, 1, 0]] * 5}, [0, 0, 0, 0], ids=["a", "b", "a", "c"], folds=[0, 0, 1, 1])
    hard = hard_utterances(results)
    assert hard
    assert hard.frame[["id", "trials"]].to_numpy().tolist() == [["a", 10]]
    assert hard.utterances == 3


def test_classes_without_names_and_huge_names() -> None:
    speakers = ["9" * 5000, "x" * 10_000] * 6
    results = results_of({"min": SEEDS * 4}, LABELS, speakers=speakers, class_names=())
    made = recalls(results)
    assert [one.group for one in made if one.by == "class"] == ["class 0", "class 1", "class 3"]
    assert {one.group for one in made if one.by == "speaker"} == set(speakers)
    hard = hard_utterances(results)
    assert hard
    assert set(hard.frame["taken_for"]) <= {"class 0", "class 1", "class 2", "class 3"}

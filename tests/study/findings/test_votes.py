"""The vote of a configuration's seeds."""

from __future__ import annotations

import numpy as np
import pytest
from predicted import results_of

from study.findings.results import Results
from study.findings.votes import Vote, vote_of


def own_vote(results: Results) -> Vote | None:
    block = results.about.block("fusion")
    assert block
    return vote_of(results, block)


def test_the_vote_beside_its_seeds_by_hand() -> None:
    # every seed is wrong once, each at another utterance, so the vote is correct everywhere
    labels = [0, 0, 0, 1, 1, 1]
    vote = own_vote(results_of({"min": [[1, 0, 0, 1, 1, 1], [0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]}, labels))
    assert vote
    assert vote.seeds == 3
    assert vote.scores["wa"] == 1.0
    assert vote.means["wa"] == pytest.approx(5 / 6)
    assert vote.gains["wa"] == pytest.approx(1 / 6)
    assert vote.scores.keys() == {"wa", "ua", "wf1", "macro_f1"}
    # gains by utterance: 1/3 three times, 0 three times; their deviation is sqrt(1/30), and t with 5 is 2.571
    half = 2.5706 * np.sqrt(1 / 30) / np.sqrt(6)
    assert (vote.low, vote.high) == (pytest.approx(1 / 6 - half, abs=1e-4), pytest.approx(1 / 6 + half, abs=1e-4))


def test_a_tie_goes_to_the_class_that_comes_first_every_time() -> None:
    labels = [2, 1, 2, 2, 2]
    seeds = [[2, 1, 2, 2, 2], [1, 2, 2, 2, 2], [0, 0, 2, 2, 2]]
    vote, again = (own_vote(results_of({"min": order}, labels)) for order in (seeds, seeds[::-1]))
    assert vote
    assert again
    assert vote.scores == again.scores
    assert vote.scores["wa"] == pytest.approx(3 / 5)  # class 0 at both


def test_the_metrics_are_the_mean_over_folds() -> None:
    labels, folds = [0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]
    vote = own_vote(results_of({"min": [[0, 1, 1, 1, 1, 1]] * 3}, labels, folds=folds))
    assert vote
    assert vote.scores["wa"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert vote.gains["wa"] == pytest.approx(0)


def test_two_seeds_do_not_vote_nor_what_has_no_predictions() -> None:
    results = results_of({"min": [[0, 1]] * 2}, [0, 1])
    assert own_vote(results) is None
    results = results_of({"min": [[0, 1]] * 3}, [0, 1])
    assert own_vote(Results(about=results.about, trials=results.trials)) is None
    vote = own_vote(results)
    assert vote
    assert np.isnan(vote.low)  # two utterances


def test_more_classes_than_are_named() -> None:
    vote = own_vote(results_of({"min": [[6, 1, 6]] * 3}, [6, 1, 5], class_names=("a", "b")))
    assert vote
    assert vote.scores["wa"] == pytest.approx(2 / 3)

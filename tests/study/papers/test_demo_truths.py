"""What is said of the demo's truths, for every verdict that a study can reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from study.design.factors import Pair
from study.papers.demo import truths

BEST = Pair(2, 7)


def said(pair: Pair | None = BEST, dataset: str = "demo", *, given: bool = False, **verdicts: str) -> list[str]:
    """The outcomes for a study with these verdicts."""
    about = SimpleNamespace(dataset=dataset, given=given, at=pair)
    claims = [SimpleNamespace(id=name, verdict=verdict) for name, verdict in verdicts.items()]
    analysis = SimpleNamespace(results=SimpleNamespace(about=about))
    return [truth.outcome for truth in truths(cast(Any, analysis), cast(Any, claims))]


RIGHT = {"chgat_needed": "confirmed", "xcbam_needed": "confirmed", "min_wins": "equivalent", "k_matters": "confirmed"}


def test_a_study_that_is_right_finds_every_truth() -> None:
    assert said(**RIGHT) == ["found"] * 5


def test_other_data_have_no_truths() -> None:
    assert said(dataset="iemocap", **RIGHT) == []


@pytest.mark.parametrize(
    ("claim", "place", "verdict", "outcome"),
    [
        ("chgat_needed", 0, "equivalent", "wrong"),
        ("chgat_needed", 0, "contradicted", "wrong"),
        ("chgat_needed", 0, "undecided", "not shown"),
        ("xcbam_needed", 1, "contradicted", "wrong"),
        ("min_wins", 2, "confirmed", "wrong"),
        ("min_wins", 2, "contradicted", "wrong"),
        ("min_wins", 2, "undecided", "not shown"),
        ("k_matters", 3, "undecided", "not shown"),
        ("k_matters", 3, "not tested", "not tested"),
    ],
)
def test_each_verdict_has_its_outcome(claim: str, place: int, verdict: str, outcome: str) -> None:
    found = said(**{**RIGHT, claim: verdict})
    assert found[place] == outcome
    assert [x for i, x in enumerate(found) if i != place] == ["found"] * 4


@pytest.mark.parametrize(
    ("pair", "outcome"),
    [(Pair(1, 4), "found"), (Pair(3, 9), "found"), (Pair(4, 7), "wrong"), (Pair(2, 3), "wrong"), (None, "not tested")],
)
def test_the_chosen_pair_must_be_among_the_best(pair: Pair | None, outcome: str) -> None:
    assert said(pair, **RIGHT)[4] == outcome


def test_a_pair_that_is_given_is_no_finding() -> None:
    assert said(given=True, **RIGHT)[4] == "not tested"


def test_without_verdicts_nothing_was_tested() -> None:
    assert said(None) == ["not tested"] * 5

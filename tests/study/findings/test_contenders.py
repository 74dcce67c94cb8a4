"""The rules for the two questions about systems, with given differences."""

from __future__ import annotations

import pytest
from scipy import stats

from study.findings.analysis import Comparison, judged
from study.findings.statistics import Difference
from study.findings.systems import better_than_all, graph_helps


def family(*p_values: float, se: float = 0.01) -> list[Comparison]:
    """Return comparisons with these p-values. A negative p-value means that the first is worse."""
    made = []
    for p in p_values:
        mean = float(stats.t.isf(abs(p) / 2, 4)) * se * (1 if p > 0 else -1)
        of = Difference(mean=mean, low=0.0, high=0.0, d_z=0.0, p=abs(p), n=5, se=se, df=4)
        made.append(
            Comparison(
                family="systems", metric="wa", first="a", second="b", seed=of, utterances=None, decided_by="seed",
                level=0.05, components=None, rope=1.0,
            )
        )  # fmt: skip
    return judged(made)


@pytest.mark.parametrize(
    ("p_values", "decision"),
    [
        ((0.04, 0.04, 0.04), "confirmed"),  # all must be significant, so Holm's correction is not needed
        ((0.04, 0.06), "undecided"),
        ((0.06, -0.03), "undecided"),  # one that is better is enough, so Holm's correction is needed
        ((0.001, -0.02), "contradicted"),
        ((0.001, 0.001, -0.5), "undecided"),
    ],
)
def test_better_than_all(p_values: tuple[float, ...], decision: str) -> None:
    assert better_than_all(family(*p_values)) == decision


@pytest.mark.parametrize(
    ("p_values", "decision"),
    [
        ((0.024,), "confirmed"),
        ((0.026,), "undecided"),  # at half the level
        ((0.012, 0.9), "confirmed"),
        ((0.013, 0.9), "undecided"),  # Holm doubles it
        ((-0.024, -0.024, -0.024), "contradicted"),
        ((-0.024, -0.026), "undecided"),
        ((-0.001, 0.9), "undecided"),
    ],
)
def test_a_graph_helps(p_values: tuple[float, ...], decision: str) -> None:
    assert graph_helps(family(*p_values), [True] * len(p_values)) == decision


def test_what_is_behind_another_system_is_no_proof() -> None:
    made = family(0.001, 0.002)
    assert graph_helps(made, [False, True]) == "confirmed"
    assert graph_helps(made, [False, False]) == "undecided"


def test_what_is_within_the_rope_is_equivalent() -> None:
    same = family(0.5, -0.5, se=0.001)
    assert better_than_all(same) == graph_helps(same, [True, True]) == "equivalent"

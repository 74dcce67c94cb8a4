from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import small_design

from study.design.design import ANY_PAIR
from study.design.seeds import LOOKS, SPENT, fresh_seeds, more_seeds
from study.findings.statistics import LEVEL

SEEDS = st.sets(st.integers(0, 1000), min_size=1, max_size=12).map(lambda seeds: tuple(sorted(seeds)))


@given(SEEDS, st.integers(1, 30))
def test_fresh_seeds_took_part_in_no_choice(choosing: tuple[int, ...], n: int) -> None:
    fresh = fresh_seeds(choosing, n)
    assert len(set(fresh)) == n
    assert not set(fresh) & set(choosing)
    assert fresh_seeds(choosing, n + 5)[:n] == fresh  # more of them are only added


@given(SEEDS, st.integers(1, 30))
def test_more_seeds_begin_with_those_asked_for(seeds: tuple[int, ...], n: int) -> None:
    more = more_seeds(seeds, n)
    assert len(set(more)) == n
    assert more[: len(seeds)] == seeds[:n]
    assert more_seeds(seeds, n + 5)[:n] == more


@pytest.mark.parametrize(
    ("choosing", "confirm", "fresh"),
    [
        ((0, 1, 2, 3, 4), 0, (5, 6, 7, 8, 9)),
        ((0, 1, 7), 0, (8, 9, 10)),
        ((0, 1, 7), 1, (8,)),
        ((3,), 4, (4, 5, 6, 7)),
    ],
)
def test_as_many_seeds_confirm_as_choose_unless_told_otherwise(
    choosing: tuple[int, ...], confirm: int, fresh: tuple[int, ...]
) -> None:
    assert replace(small_design(seeds=choosing), confirm=confirm).fresh_seeds == fresh


def test_the_looks_share_the_level() -> None:
    assert LOOKS == (5, 10, 20)
    assert sum(SPENT) == pytest.approx(LEVEL)
    assert len(SPENT) == len(LOOKS)


def test_configurations_may_have_seeds_of_their_own() -> None:
    design = small_design(seeds=(0, 1))
    cls, least, most, mean = design.configurations("fusion", ANY_PAIR)
    trials = design.trials("fusion", ANY_PAIR, {cls: (5,), least: (5, 6, 7), most: (5, 6), mean: ()})
    assert [(t.configuration.get("fusion"), t.seed) for t in trials] == [
        ("cls", 5), ("min", 5), ("max", 5), ("min", 6), ("max", 6), ("min", 7),
    ]  # fmt: skip
    assert [t.seed for t in design.trials("fusion", ANY_PAIR, (3, 9))] == [3] * 4 + [9] * 4
    assert [t.seed for t in design.trials("fusion", ANY_PAIR)] == [0] * 4 + [1] * 4

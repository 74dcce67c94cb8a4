"""Matrices of test cases: every pair of values in the quick tests, every combination in all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def pairwise(**choices: Sequence[Any]) -> Any:
    """Parametrise a test with every combination of the choices, all marked slow but a few that cover every pair.

    Two values that fail together are found by a few cases in which every pair of values occurs (Cohen et al., 1997,
    "The AETG system"); here each next case is the one that covers most pairs that are not covered yet.
    """
    combinations = list(itertools.product(*choices.values()))
    pairs = {case: set(itertools.combinations(enumerate(case), 2)) for case in combinations}
    left = set().union(*pairs.values())
    quick = []
    while left:
        quick.append(max(combinations, key=lambda case: len(pairs[case] & left)))
        left -= pairs[quick[-1]]
    slow = [pytest.param(*case, marks=pytest.mark.slow) for case in combinations if case not in quick]
    return pytest.mark.parametrize(tuple(choices), [*quick, *slow])

from __future__ import annotations

from typing import Any

import pytest

from cemobam_core import InputError
from study import Factor


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("lr", [], "factor lr: give it at least one value"),
        ("lr", [1, 2, 1.0], "factor lr: the value 1.0 is given twice"),
        ("lr", [1, "a"], "all numbers, all names, or True and False, not [1, 'a']"),
        ("lr", [True, 2], "all numbers, all names, or True and False"),
        ("deep", [True, "no"], "all numbers, all names, or True and False"),
        ("lr", [None], "all numbers, all names, or True and False, not [None]"),
        ("lr", [[1], [2]], "all numbers, all names, or True and False"),
        ("fusion", "min", "factor fusion: its values must be a list, not 'min'"),
        ("lr", 3, "factor lr: its values must be a list, not 3"),
        ("Hidden dim", [1], "factor 'Hidden dim': give the name of a setting"),
        ("", [1], "factor '': give the name of a setting"),
        (3, [1], "factor 3: give the name of a setting"),
        ("lr\n", [1], "give the name of a setting"),
    ],
)
def test_a_mistake_is_told_in_one_line(name: Any, values: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        Factor(name, values)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "ordered"),
    [([2, 1], True), ((1e-4, 1), True), (range(1, 3), True), (["a"], False), ([True, False], False)],
)
def test_numbers_have_an_order_and_names_have_none(values: Any, ordered: bool) -> None:
    factor = Factor("x", values)
    assert factor.values == tuple(values)
    assert factor.ordered == ordered

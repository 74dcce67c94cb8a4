"""Search spaces and their valid values."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cemobam_core import Between, InputError, OneOf, TrainingConfig
from cemobam_core.graph import GraphConfig
from cemobam_core.systems import names, system_class


@pytest.mark.parametrize(
    ("low", "high", "log", "said"),
    [
        (1.0, 1.0, False, "give two finite numbers, the smaller one first"),
        (2.0, 1.0, False, r"Between\(2.0, 1.0\)"),
        (0.0, float("inf"), False, "finite"),
        (float("nan"), 1.0, False, "finite"),
        (0.0, 1.0, True, "both limits must be above 0"),
    ],
)
def test_ends_that_are_none_are_refused(low: float, high: float, log: bool, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Between(low, high, log=log)


@pytest.mark.parametrize("values", [(), (1,), (1, 1), ("a", "b", "a")])
def test_values_are_several_and_different(values: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least two values, each once"):
        OneOf(*values)


@pytest.mark.parametrize("name", names())
def test_what_a_system_tunes_or_prescribes_are_settings_of_it(name: str) -> None:
    kind = system_class(name)
    of = {f.name for f in (*fields(kind), *fields(TrainingConfig), *(fields(GraphConfig) if kind.uses_graph else ()))}
    assert set(kind.search) <= of
    assert set(kind.prescribed) <= of - {f.name for f in fields(kind)}
    for setting, space in kind.search.items():
        if setting in {f.name for f in fields(kind)}:
            ends = (space.low, space.high) if isinstance(space, Between) else space.values
            for value in ends:
                kind(**{setting: value})  # both limits, or every value, are valid

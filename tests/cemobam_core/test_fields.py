from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from cemobam_core import InputError
from cemobam_core.fields import check_fields


@dataclass(frozen=True)
class Config:
    layers: int = 2
    warm_up: int = 0
    shift: int = -1
    rate: float = 0.1
    bias: float = -0.5
    name: str = "a"
    loud: bool = False
    kind: Literal["x", "y", 3] = "x"
    widths: tuple[int, ...] = (1, 2)
    limit: int | None = None
    must: int = 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"layers": 1, "warm_up": 0, "rate": 0, "kind": 3},
        {"shift": -7, "bias": -1e9, "name": ""},
        {"widths": (), "limit": 5, "loud": True},
    ],
)
def test_values_that_fit_pass(values: dict[str, Any]) -> None:
    check_fields(Config(**values))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", 0, "layers=0 must be a whole number of at least 1"),
        ("layers", 1.0, "layers=1.0 must be a whole number of at least 1"),
        ("layers", True, "layers=True must be a whole number"),
        ("layers", "3", "layers='3' must be a whole number"),
        ("warm_up", -1, "warm_up=-1 must be a whole number of at least 0"),
        ("shift", 0.5, "shift=0.5 must be a whole number$"),
        ("rate", -0.1, "rate=-0.1 must be a finite number of at least 0"),
        ("rate", float("inf"), "rate=inf must be a finite number"),
        ("rate", float("nan"), "rate=nan must be a finite number"),
        ("rate", "0.1", "rate='0.1' must be a finite number"),
        ("bias", float("nan"), "bias=nan must be a finite number$"),
        ("name", 3, "name=3 must be a string"),
        ("loud", 1, "loud=1 must be true or false"),
        ("kind", "z", "kind='z' is not one of x, y, 3"),
    ],
)
def test_a_value_that_does_not_fit_is_named(field: str, value: object, message: str) -> None:
    config = Config()
    object.__setattr__(config, field, value)
    with pytest.raises(InputError, match=message):
        check_fields(config)

"""Checks of configurations, which are frozen dataclasses: each value must fit its type hint."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cemobam_core.errors import InputError


def check_fields(config: object) -> None:
    """Check a configuration's values against its type hints.

    A field with the hint ``bool``, ``int``, ``float``, ``str`` or ``Literal[…]`` must hold such a value. Other hints
    are not checked. Numbers must be finite. An integer must be at least 1, or at least 0 if its default is 0. A float
    must be at least 0. A field with a negative default accepts any number.

    Raises:
        InputError: A value has the wrong type, is out of range or is not one of the choices.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        default = field.default if isinstance(field.default, (int, float)) else 1
        if wanted := _wanted(hints[field.name], default, value := getattr(config, field.name)):
            raise InputError(f"{field.name}={value!r} {wanted}")


def check_below_one(config: object, name: str) -> None:
    """Raise InputError if a field, such as a dropout probability, is 1 or more."""
    if (value := getattr(config, name)) >= 1:
        raise InputError(f"{name}={value} must be less than 1")


def check_multiple(config: object, name: str, of: str) -> None:
    """Raise InputError if a field (a size, for example) is not a multiple of another one (the attention heads)."""
    if (value := getattr(config, name)) % (divisor := getattr(config, of)):
        raise InputError(f"{name}={value} must be a multiple of {of}={divisor}")


def _wanted(hint: Any, default: int | float, value: Any) -> str:
    """Return the requirement that a value violates, or an empty string if the value is valid."""
    right, wanted, signed = True, "", default < 0
    if get_origin(hint) is Literal:
        right, wanted = value in get_args(hint), f"is not one of {', '.join(map(str, get_args(hint)))}"
    elif hint is bool:
        right, wanted = isinstance(value, bool), "must be true or false"
    elif hint is str:
        right, wanted = isinstance(value, str), "must be a string"
    elif hint in (int, float):
        kind, least = ("whole", min(1, default)) if hint is int else ("finite", 0)
        number = isinstance(value, hint if hint is int else (int, float)) and not isinstance(value, bool)
        right = number and math.isfinite(value) and (signed or value >= least)
        wanted = f"must be a {kind} number" + ("" if signed else f" of at least {least}")
    return "" if right else wanted

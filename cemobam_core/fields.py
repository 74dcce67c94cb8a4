"""Configurations are frozen dataclasses whose values are checked against their type hints."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cemobam_core.errors import InputError


def check_fields(config: object) -> None:
    """Check a configuration's values against its type hints.

    A field that is hinted ``bool``, ``int``, ``float``, ``str`` or ``Literal[…]`` must hold such a value; other hints
    are not checked. Numbers are finite. A whole number is at least 1, or 0 if its default is 0. Another number is at
    least 0. A field whose default is negative may hold any number.

    Raises:
        InputError: a value that is not one of the choices, of another type, or out of range.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        default = field.default if isinstance(field.default, (int, float)) else 1
        if wanted := _wanted(hints[field.name], default, value := getattr(config, field.name)):
            raise InputError(f"{field.name}={value!r} {wanted}")


def check_below_one(config: object, name: str) -> None:
    """Raise InputError if a field holds 1 or more, which no probability of dropout can be."""
    if (value := getattr(config, name)) >= 1:
        raise InputError(f"{name}={value} must be less than 1")


def check_multiple(config: object, name: str, of: str) -> None:
    """Raise InputError if a field, such as a size, is not a multiple of another one, such as the attention heads."""
    if (value := getattr(config, name)) % (divisor := getattr(config, of)):
        raise InputError(f"{name}={value} must be a multiple of {of}={divisor}")


def _wanted(hint: Any, default: int | float, value: Any) -> str:
    """Return what a field asks for, if a value is not that; else an empty string."""
    right, wanted, signed = True, "", default < 0
    if get_origin(hint) is Literal:
        right, wanted = value in get_args(hint), f"is not one of {', '.join(map(str, get_args(hint)))}"
    elif hint is bool:
        right, wanted = isinstance(value, bool), "must be true or false"
    elif hint is str:
        right, wanted = isinstance(value, str), "must be a text"
    elif hint in (int, float):
        kind, least = ("whole", min(1, default)) if hint is int else ("finite", 0)
        number = isinstance(value, hint if hint is int else (int, float)) and not isinstance(value, bool)
        right = number and math.isfinite(value) and (signed or value >= least)
        wanted = f"must be a {kind} number" + ("" if signed else f" of at least {least}")
    return "" if right else wanted

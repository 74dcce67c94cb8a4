"""Parsers of option values. Each function reads one value, or raises an error of one line that says what to write."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import TypeVar

from cemobam_core.corpora import CORPORA
from cemobam_core.systems.search import Value

T = TypeVar("T")

LARGEST_SEED = 2**32 - 1

FORMATS = ("png", "pdf", "svg")
"""Formats of figures."""


def whole_numbers(text: str) -> tuple[int, ...]:
    """Parse ``1:10`` or ``1,4,8``: whole numbers of at least 1, each once. Return them in order."""
    numbers: list[int] = []
    if span := re.fullmatch(r"(\d+):(\d+)", text):
        first, last = map(int, span.groups())
        if first > last:
            raise ArgumentTypeError(f"{text!r} runs backwards; write {last}:{first}")
        numbers = list(range(first, last + 1)) if last - first < 10_000 else []
    elif re.fullmatch(r"\d+(,\d+)*", text):
        numbers = _each_once(text, [int(part) for part in text.split(",")])
    if not numbers or min(numbers) < 1:
        raise ArgumentTypeError(
            f"{text!r} is not a list of whole numbers of at least 1; write 1:10 for 1 to 10, or a list such as 1,4,8"
        )
    return tuple(sorted(numbers))


def seeds(text: str) -> tuple[int, ...]:
    """Parse ``5`` for seeds 0 to 4, or a list such as ``0,1,7`` (``7,`` for one seed)."""
    if re.fullmatch(r"\d+", text) and 0 < int(text) <= 10_000:
        return tuple(range(int(text)))
    if re.fullmatch(r"\d+(,\d+)*,?", text) and "," in text:
        numbers = _each_once(text, [int(part) for part in text.rstrip(",").split(",")])
        if max(numbers) <= LARGEST_SEED:
            return tuple(sorted(numbers))
    raise ArgumentTypeError(
        f"{text!r} is not a number or list of seeds; write 5 for seeds 0 to 4, or a list such as 0,1,7"
    )


def seed(text: str) -> int:
    """Parse one seed."""
    if not re.fullmatch(r"\d+", text) or int(text) > LARGEST_SEED:
        raise ArgumentTypeError(f"{text!r} is not a seed: a whole number from 0 to {LARGEST_SEED}")
    return int(text)


def size_in_bytes(text: str) -> int:
    """Parse ``500MB`` or ``2GB``: a size of at least 1MB."""
    found = re.fullmatch(r"(\d{1,6})(MB|GB|TB)", text)
    if not found or not int(found[1]):
        raise ArgumentTypeError(f"{text!r} is not a size; write a whole number with MB, GB or TB, such as 500MB or 2GB")
    return int(found[1]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12}[found[2]]


def layer(text: str) -> int | str:
    """Parse ``9``, ``last`` or ``last4``: a hidden state of an encoder."""
    if text in ("last", "last4"):
        return text
    if re.fullmatch(r"\d{1,3}", text):
        return int(text)
    raise ArgumentTypeError(f"{text!r} is not a layer; write its number, last, or last4 for the mean of the last four")


def blocks(text: str) -> tuple[str, ...]:
    """Parse ``grid,fusion``: names of blocks."""
    return tuple(dict.fromkeys(text.split(",")))


Setting = tuple[str, Value]


def setting(text: str) -> Setting:
    """Parse ``gat_layers=2``: the name of a setting and its value."""
    name, told, value = text.partition("=")
    if not told or not value or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ArgumentTypeError(f"{text!r} is not a setting; write KEY=VALUE, such as gat_layers=2")
    return name, plain_value(value)


def variation(text: str) -> tuple[str, tuple[Value, ...]]:
    """Parse ``hidden_dim=128,256``: the name of a setting and its values."""
    name, told, listed = text.partition("=")
    if not told or not listed or not re.fullmatch(r"[A-Za-z_]\w*", name) or "" in listed.split(","):
        raise ArgumentTypeError(f"{text!r} is not a setting with values; write KEY=V1,V2, such as hidden_dim=128,256")
    return name, tuple(map(plain_value, _each_once(text, listed.split(","))))


def plain_value(text: str) -> Value:
    """Parse a whole number, a number, ``true``, ``false``, or a name."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def systems(text: str) -> tuple[str, ...]:
    """Parse ``cemobam,concat_mlp,mine.py:MyModel``: systems to compare."""
    return tuple(map(system, _each_once(text, text.split(","))))


def system(text: str) -> str:
    """Parse the name of a built-in system, or ``FILE.py:NAME``."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*|.+\.py:[A-Za-z_]\w*", text):
        raise ArgumentTypeError(
            f"{text!r} is not a system; write a name from cemobam systems, or FILE.py:NAME such as mine.py:MyModel"
        )
    return text


def whole_number(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not re.fullmatch(r"\d{1,7}", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def at_least_two(text: str) -> int:
    """Parse a whole number of at least 2."""
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 2:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 2")
    return int(text)


def at_least_three(text: str) -> int:
    """Parse a number of tokens: at least 3, for [CLS], one token and [SEP]."""
    if not re.fullmatch(r"\d{1,7}", text) or int(text) < 3:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 3: [CLS], a token and [SEP]")
    return int(text)


def positive(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def points(text: str) -> float:
    """Parse percentage points above 0 and below 100."""
    value = positive(text)
    if value >= 100:
        raise ArgumentTypeError(f"{text!r} is not below 100 percentage points")
    return value


def share(text: str) -> float:
    """Parse ``1%`` or ``0.01``."""
    matched = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", text)
    value = float(matched[1]) / (100 if matched[2] else 1) if matched else -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is not a share; write 1% or 0.01")
    return value


def formats(text: str) -> tuple[str, ...]:
    """Parse ``svg,pdf``: formats of figures."""
    names = _each_once(text, text.lower().split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise ArgumentTypeError(f"{unknown[0]!r} is not a format of figures; choose from {', '.join(FORMATS)}")
    return tuple(names)


def dots_per_inch(text: str) -> int:
    """Parse the resolution of a PNG."""
    if not re.fullmatch(r"\d{1,7}", text) or not 50 <= int(text) <= 1200:
        raise ArgumentTypeError(f"{text!r} is not a resolution: a whole number from 50 to 1200 dots per inch")
    return int(text)


def port(text: str) -> int:
    """Parse the number of a TCP port. 0 is any free port."""
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise ArgumentTypeError(
            f"{text!r} is not a port; write a whole number from 1024 to 65535, or 0 for any free port"
        )
    return int(text)


def address(text: str) -> str:
    """Parse the address of a Ray cluster: ``HOST:6379``, ``ray://HOST:10001`` or ``auto``."""
    if text != "auto" and not re.fullmatch(r"(ray://)?[\w.\[\]:-]+:\d{1,5}", text):
        raise ArgumentTypeError(f"{text!r} is not the address of a Ray cluster; write HOST:6379, or auto")
    return text


def name(text: str) -> str:
    """Parse the name of a data set or a study. Names of known data sets may be in upper case."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ArgumentTypeError(
            f"{text!r} is not a name; use letters, digits and ._- and start with a letter or a digit"
        )
    return text.lower() if text.lower() in CORPORA else text


def _each_once(text: str, values: list[T]) -> list[T]:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ArgumentTypeError(f"{text!r} names {twice[0]} twice; write each value once")
    return values

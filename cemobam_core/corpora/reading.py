"""Reading of a corpus's files behind the wall: a child reads them all, and gives back plain facts, which are checked.

A reader of a corpus knows nothing of this. It is a function that returns dataclasses of paths, strings and numbers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.errors import InputError, printable
from cemobam_core.wall import Content, Wall

T = TypeVar("T")


def read_walled(kind: type[T], read: Callable[..., tuple[T, ...]], path: Path, *arguments: Any) -> tuple[T, ...]:
    """Return what a function reads from a file or folder in a child process, see :class:`~cemobam_core.wall.Wall`.

    Args:
        kind: Type of what it returns: strings, or a dataclass of strings, numbers, paths, and tuples and mappings of
            them.
        read: Function of the path and further arguments.
        path: The file or folder.
        arguments: Further arguments.

    Raises:
        InputError: The function raised one, or the files cannot be read, or reading them crashes or exceeds a limit.
    """

    def facts(path: Path, *arguments: Any) -> Content:
        try:
            return {}, _plain(read(path, *arguments))
        except OSError as error:
            what = error.filename or path
            raise InputError(f"{what}: cannot be read ({error.strerror}); check its permissions") from None

    with Wall(facts, folders=True) as wall:
        _, told = wall(path, *arguments)
    build = _builder(kind)
    try:
        return tuple([build(one) for one in _same(list, told)])
    except _UnlikeError:
        raise InputError(f"{path}: its content could not be passed on; get it again from a source you trust") from None


def read_raw(read: Callable[..., RawCorpus], path: Path, *arguments: Any) -> RawCorpus:
    """Return the corpus that a function reads, as :func:`read_walled` does.

    Names of files and folders in its notes are printable.

    Args:
        read: Function of the path and further arguments.
        path: The file or folder.
        arguments: Further arguments.

    Raises:
        InputError: As for :func:`read_walled`.
    """
    (raw,) = read_walled(RawCorpus, lambda *given: (read(*given),), path, *arguments)
    return replace(
        raw,
        notes=tuple(map(printable, raw.notes)),
        bad=tuple(replace(bad, id=printable(bad.id), reason=printable(bad.reason)) for bad in raw.bad),
    )


def _plain(value: Any) -> Any:
    """Return a value as what JSON has: a dataclass as the list of its fields, a path as a string."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Path):
        return os.fspath(value)
    kind: Any = type(value)
    return [_plain(getattr(value, name)) for name in _names(kind)]


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


class _UnlikeError(Exception):
    """Facts that are not of the expected kind."""


def _builder(kind: Any) -> Callable[[Any], Any]:
    """Return the function that makes a value of a kind of its facts. It raises an error if they are of another kind."""
    if kind in (str, int, float, bool, NoneType):
        return functools.partial(_same, kind)
    if kind is Path:
        return lambda facts: Path(_same(str, facts))
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return functools.partial(_any_of, [_builder(one) for one in inside])
    if origin is tuple:  # of any number of one kind
        one = _builder(inside[0])
        return lambda facts: tuple([one(fact) for fact in _same(list, facts)])
    if origin is not None and issubclass(origin, Mapping):
        of = _builder(inside[1])
        return lambda facts: {key: of(fact) for key, fact in _same(dict, facts).items()}
    assert is_dataclass(kind), kind
    make: Any = kind
    hints = get_type_hints(make)
    builders = [(name, _builder(hints[name])) for name in _names(make)]

    def built(facts: Any) -> Any:
        if len(_same(list, facts)) != len(builders):
            raise _UnlikeError
        return make(**{name: build(fact) for (name, build), fact in zip(builders, facts, strict=True)})

    return built


def _same(kind: type, facts: Any) -> Any:
    if type(facts) is not kind:
        raise _UnlikeError
    return facts


def _any_of(builders: list[Callable[[Any], Any]], facts: Any) -> Any:
    for build in builders:
        try:
            return build(facts)
        except _UnlikeError:
            continue
    raise _UnlikeError

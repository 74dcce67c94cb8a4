"""Systems, one per file: ways to label utterances. The tool finds every file in this folder, so nothing lists them.

A user's own system is a class in any other file, ``FILE.py:NAME`` (see ``cemobam_core.systems.files``).
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from cemobam_core.errors import InputError
from cemobam_core.systems.files import class_in_file, did_you_mean, file_of, is_in_file
from cemobam_core.systems.system import EstimatorSystem, FittedSystem, NeuralSystem, System

__all__ = [
    "EstimatorSystem",
    "FittedSystem",
    "NeuralSystem",
    "System",
    "group",
    "name_of",
    "names",
    "system_class",
    "version_of",
]

GROUPS = ("all", "paper", "baselines", "graphs")
"""Groups of systems that ``--systems`` accepts as one name. ``all`` contains every system."""

_NO_SYSTEMS = {"convolutions", "files", "prescribed", "propagation", "search", "system", "tryout", "unimodal"}
"""Modules of this folder that define no system."""


def names() -> list[str]:
    """Return the names of all built-in systems, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_SYSTEMS)


def group(name: str) -> list[str]:
    """Return the names of the systems of a group. CemoBAM comes first, because the others are compared with it.

    Args:
        name: Name of the group, one of ``GROUPS``.
    """
    return ["cemobam", *(one for one in names() if one != "cemobam" and name in ("all", system_class(one).group))]


def system_class(name: str) -> type[System]:
    """Return the class of a built-in system or of ``FILE.py:NAME``.

    Loading a user's file runs it. Call ``try_system`` of ``cemobam_core.systems.tryout`` first, which tests the file in
    a separate process.

    Raises:
        InputError: No system has this name (the message lists all names), the file cannot be loaded, or the class in it
            is not a system.
    """
    if is_in_file(name):
        return class_in_file(name)
    if name not in names():
        raise InputError(
            f"no system is called {name!r}; choose from {', '.join(names())}, or give FILE.py:NAME"
            + did_you_mean(name, names())
        )
    module = import_module(f"{__name__}.{name}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, System) and value.__module__ == module.__name__
    )
    return found


def name_of(system: System | type[System]) -> str:
    """Return the name that ``--system`` accepts. For a user's file, it is without the folder: ``mine.py:MyModel``."""
    kind = system if isinstance(system, type) else type(system)
    file = file_of(kind)
    return f"{file.name}:{kind.__name__}" if file else kind.__module__.rpartition(".")[2]


def version_of(system: System | type[System]) -> str:
    """Return the version of the system's code, which is part of every trial's signature.

    For a built-in system it is ``version``. For a user's file it is the first 16 hexadecimal digits of the SHA-256 of
    its content. If the class inherits a ``version`` other than 1 from a built-in system, that follows after a dot.
    """
    kind = system if isinstance(system, type) else type(system)
    file = file_of(kind)
    if file is None:
        return str(kind.version)
    return file.version if kind.version == 1 else f"{file.version}.{kind.version}"

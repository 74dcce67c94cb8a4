"""Systems: ways to label utterances, one a file. A file here is found by its name; nothing else lists it.

A system of a user's own is a class in a file anywhere else, ``FILE.py:NAME`` (:mod:`.files`).
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
"""The groups of systems that ``--systems`` takes as one name; ``all`` is every system."""

_NO_SYSTEMS = {"convolutions", "files", "prescribed", "propagation", "search", "system", "tryout", "unimodal"}
"""The modules here that define no system."""


def names() -> list[str]:
    """Return the names of the systems that the tool has, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_SYSTEMS)


def group(name: str) -> list[str]:
    """Return the names of the systems of a group, CemoBAM first, which the others are compared with.

    Args:
        name: of the group, one of :data:`GROUPS`.
    """
    return ["cemobam", *(one for one in names() if one != "cemobam" and name in ("all", system_class(one).group))]


def system_class(name: str) -> type[System]:
    """Return the system of a name: a built-in one, or the class that ``FILE.py:NAME`` names.

    To load a user's file runs it. Call :func:`.tryout.try_system` first: there it can do no harm.

    Raises:
        InputError: there is no system of this name (lists those that there are), or the file cannot be loaded, or the
            class in it is not a system.
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
    """Return the name of a system: as ``--system`` takes it, or of a user's file its last part, ``mine.py:MyModel``."""
    kind = system if isinstance(system, type) else type(system)
    file = file_of(kind)
    return f"{file.name}:{kind.__name__}" if file else kind.__module__.rpartition(".")[2]


def version_of(system: System | type[System]) -> str:
    """Return what a trial's signature must say of the system's code, beside its name.

    It is the ``version`` of a built-in system; of a user's file, 16 hexadecimal digits of the sha256 of its content,
    and the version that it has from a built-in system if that is not the first.
    """
    kind = system if isinstance(system, type) else type(system)
    file = file_of(kind)
    if file is None:
        return str(kind.version)
    return file.version if kind.version == 1 else f"{file.version}.{kind.version}"

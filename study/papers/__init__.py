"""The studies of papers, as data, with one folder per paper."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.papers import cemobam

__all__ = ["cemobam"]


def __getattr__(name: str) -> Any:
    """Import a paper's study when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"study.papers.{name}")

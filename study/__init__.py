"""The experiment: designs, the ledger of what has been run, engines, and what comes out.

``study.run(...)`` runs a study from a notebook or a script, and ``study.figures(...)`` draws its figures.
``from study import load_results`` gives the results of a study as frames; ``from study import Block, Factor, papers``
is what a study file needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study import papers
    from study.design.block import Block
    from study.design.factors import Factor
    from study.findings.results import Results, load_results
    from study.notebook import figures, run

__all__ = ["Block", "Factor", "Results", "figures", "load_results", "papers", "run"]

_HOMES = {
    "Block": "study.design.block",
    "Factor": "study.design.factors",
    "Results": "study.findings.results",
    "figures": "study.notebook",
    "load_results": "study.findings.results",
    "run": "study.notebook",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a command line does not wait for pandas."""
    if name == "papers":
        return import_module("study.papers")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

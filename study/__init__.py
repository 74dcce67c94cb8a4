"""The experiment: designs, the ledger of what has been run, engines, and what comes out.

``from study import load_results`` gives the results of a study as frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.findings.results import Results, load_results

__all__ = ["Results", "load_results"]


def __getattr__(name: str) -> Any:
    """Imported when first used: a command line does not wait for pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from study.findings import results  # noqa: PLC0415

    return getattr(results, name)

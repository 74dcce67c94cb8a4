"""The table of tuning: the tried configurations, the choice by validation, and whether more budget may help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from study.design.block import shown
from study.findings.analysis import MEASURES
from study.findings.results import About
from study.findings.tuned import Trace
from study.findings.wording import in_words
from study.output.tables import Cell, Table, number

NAME = "tuning"


def tuning_table(traces: list[Trace], about: About) -> Table | None:
    """Return a row per system: the validation score of its defaults and of its best, and the values of the best.

    Args:
        traces: The tuning of each system.
        about: The study.

    Returns:
        The table, whose csv has a row for each configuration, or `None` if nothing was tuned.
    """
    tried = [trace for trace in traces if trace.best is not None]
    if not tried:
        return None
    cells: list[tuple[str | Cell, ...]] = []
    for trace in tried:
        assert trace.best is not None
        done = int(np.isfinite(trace.scores).sum())
        cells.append(
            (
                trace.block.tunes,
                str(done) if done == len(trace.scores) else f"{done} of {len(trace.scores)}",
                number(100 * trace.scores[0]),
                number(100 * trace.scores[trace.best]),
                str(trace.best) if trace.best else "defaults",
                chosen_values(trace, about) or ("nothing to tune" if len(trace.scores) == 1 else "its defaults"),
            )
        )
    label = MEASURES[about.select_by]
    notes = [
        "Each configuration ran with one seed. The test split had no part in the choice. The first configuration is "
        "the system's defaults. The best of several configurations is partly chance, so it is measured again with "
        "fresh seeds.",
    ]
    if late := [trace.block.tunes for trace in tried if _late(trace)]:
        notes.append(f"A larger budget may help: {', '.join(late)} (best found in the last fifth of the budget).")
    return Table(
        name=NAME,
        caption=f"Tuning: {label} on validation of {about.title}, percent",
        notes=tuple(notes),
        frame=_frame(tried, about),
        head="System",
        groups=(("", ("Tried", "Defaults", "Best", "Found at", "Chosen values")),),
        cells=tuple(cells),
        wide=True,
    )


def chosen_values(trace: Trace, about: About) -> str:
    """Describe the values that validation chose. Empty for the defaults."""
    if not trace.best:
        return ""
    return ", ".join(f"{in_words(name)} {shown(value)}" for name, value in _values(trace, about, trace.best).items())


def _late(trace: Trace) -> bool:
    """Return whether the best was found in the last fifth of the budget, so a larger budget may improve it."""
    return bool(trace.best and len(trace.scores) >= 5 and trace.best >= 0.8 * len(trace.scores))


def _values(trace: Trace, about: About, place: int) -> dict[str, Any]:
    """Return one configuration's values of the settings that a system tuned, by name."""
    first, row = trace.block.rows[0], trace.block.rows[place]
    varied = {i for one in trace.block.rows for i, (a, b) in enumerate(zip(first, one, strict=True)) if a != b}
    return {name: row[i] for i, name in enumerate(about.identity) if i in varied and name != "profile"}


def _frame(traces: list[Trace], about: About) -> pd.DataFrame:
    records = []
    for trace in traces:
        best = trace.best_so_far
        for place, score in enumerate(trace.scores):
            records.append(
                {
                    **{"system": trace.block.tunes, "configuration": place, "chosen": place == trace.best},
                    f"val_{about.select_by}": 100 * score,
                    "val_loss": trace.losses[place],
                    "best_so_far": 100 * best[place],
                    **_values(trace, about, place),
                }
            )
    return pd.DataFrame(records)

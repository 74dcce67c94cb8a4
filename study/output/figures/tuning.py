"""Tuning: the best validation score by the budget spent, a panel for each system."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.findings.statistics import Array
from study.output.figures.style import COLOURS, TEXT_WIDTH, style

_ACROSS = 5
"""Panels in a row, at most."""

_TALL = 1.15
"""Inches of a row of panels."""


def tuning_figure(scores: Mapping[str, Array], *, label: str, title: str) -> Figure:
    """Draw what each system tried and the best so far; a curve that is flat in the end had budget enough.

    Args:
        scores: by system, validation of each configuration in the order in which it was tried, fractions, the
            defaults first; NaN where one failed.
        label: of the metric.
        title: the data set.
    """
    across = min(_ACROSS, len(scores))
    rows = math.ceil(len(scores) / across)
    every = np.concatenate(list(scores.values()))
    best = [np.nanmax(of) for of in scores.values() if np.isfinite(of).any()]
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 0.65 + _TALL * rows), layout="constrained")
        panels = figure.subplots(rows, across, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, (name, of) in zip(panels, scores.items(), strict=False):
            places = np.arange(1, len(of) + 1)
            panel.axhline(100 * of[0], color=COLOURS[8], linewidth=0.8, linestyle=":", zorder=1)
            panel.plot(places, 100 * of, "o", color=COLOURS[8], markersize=2, alpha=0.6, zorder=2)
            panel.step(places, 100 * np.fmax.accumulate(of), where="post", color=COLOURS[0], linewidth=1.2, zorder=3)
            panel.set_title(name, fontsize=7)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            panel.grid(axis="y", linewidth=0.3, color="0.9")
        for empty in panels[len(scores) :]:
            empty.remove()
        for column in range(across):  # below a panel that was removed no axis is left
            last = max(i for i in range(column, len(scores), across))
            panels[last].tick_params(labelbottom=True)
        if best:
            # what is far below every system's best says only that it failed
            low = max(100 * np.nanmin(every), 100 * min(best) - 25)
            panels[0].set_ylim(low - 1, 100 * max(best) + 2)
        figure.suptitle(f"{title}: tuning (line: the best so far; dotted: the defaults)", fontsize=8)
        figure.supxlabel("configurations tried", fontsize=7)
        figure.supylabel(f"validation {label} (%)", fontsize=7)
    return figure

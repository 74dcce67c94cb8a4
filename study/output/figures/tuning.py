"""Tuning: the best validation score over the budget, with a panel for each system."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.findings.statistics import Array
from study.output.figures.style import TEXT_WIDTH, colour, legend_below, shade, style

_ACROSS = 5
"""Most panels in a row."""

_TALL = 1.15
"""Height of a row of panels, in inches."""


def tuning_figure(scores: Mapping[str, Array], *, label: str, title: str) -> Figure:
    """Draw the score of each configuration that a system tried, and the best so far.

    If a curve is flat at its end, the budget was large enough.

    Args:
        scores: Validation score of each configuration as a fraction, by system, in the order in which they were tried.
            The defaults come first. NaN where a configuration failed.
        label: Name of the metric.
        title: Data set.
    """
    across = min(_ACROSS, len(scores))
    rows = math.ceil(len(scores) / across)
    every = np.concatenate(list(scores.values()))
    best = [np.nanmax(of) for of in scores.values() if np.isfinite(of).any()]
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 0.85 + _TALL * rows), layout="constrained")
        panels = figure.subplots(rows, across, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, (name, of) in zip(panels, scores.items(), strict=False):
            places = np.arange(1, len(of) + 1)
            panel.axhline(100 * of[0], color=shade(0.5), linewidth=0.8, linestyle=":", zorder=1, label="the defaults")
            panel.plot(
                places, 100 * of, "o", color=shade(0.5), markersize=2, alpha=0.6, zorder=2, label="a configuration"
            )
            panel.step(
                places, 100 * np.fmax.accumulate(of), where="post", color=colour(0), linewidth=1.2, zorder=3,
                label="the best so far",
            )  # fmt: skip
            panel.set_title(name, fontsize=7)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            panel.grid(axis="y", linewidth=0.3)
        for empty in panels[len(scores) :]:
            empty.remove()
        for place, panel in enumerate(panels[: len(scores)]):
            if place + across >= len(scores):  # the last in its column
                panel.tick_params(labelbottom=True)
                panel.set_xlabel("configuration")
            if place % across == 0:
                panel.set_ylabel(f"validation\n{label} (%)")
        if best:
            # a score far below the best of every system would only compress the others
            low = max(100 * np.nanmin(every), 100 * min(best) - 25)
            panels[0].set_ylim(low - 1, 100 * max(best) + 2)
        figure.suptitle(f"{title}: tuning on validation", fontsize=8)
        legend_below(figure, panels[0].get_legend_handles_labels()[0])
    return figure

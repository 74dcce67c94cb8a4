"""Systems, the best first: single seeds, the mean with its interval, default settings and published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from study.findings.wording import cut
from study.output.figures.style import (
    COLUMN_WIDTH,
    MARKERS,
    colour,
    keep_within,
    legend_below,
    mark,
    plain,
    shade,
    style,
)

_ROW = 0.19
"""Height of a system's row, in inches."""

_FAR = 3.0
"""Distance from the median, in widths of the upper half. Systems further below are drawn at the edge."""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """The scores of a system, in percent.

    Attributes:
        name: Name that readers know.
        seeds: Score of each seed.
        mean: Mean of the scores.
        low: Lower end of the interval of the mean. NaN if there is none.
        high: Upper end of the interval of the mean. NaN if there is none.
        defaults: Mean with default settings. NaN if it is unknown, or if the system is not tuned.
        published: Score that a paper reports. NaN if there is none.
        uses_graph: Whether the system uses the graph.
    """

    name: str
    seeds: tuple[float, ...]
    mean: float
    low: float
    high: float
    defaults: float
    published: float
    uses_graph: bool


def comparison_figure(systems: Sequence[Dots], *, measure: str, title: str) -> Figure:
    """Draw systems sorted by their mean, the best at the top.

    Args:
        systems: Scores of the systems. Each has a mean.
        measure: Name of the metric, as figures show it.
        title: Data set and K pair, as figures show them.
    """
    rows = sorted(systems, key=lambda x: -x.mean)
    floor = _floor(rows)
    with style():
        figure = Figure(figsize=(COLUMN_WIDTH, 1.35 + _ROW * len(rows)), layout="constrained")
        ax = figure.subplots()
        for graph in (True, False):
            places = [i for i, x in enumerate(rows) if x.uses_graph is graph and x.mean >= floor]
            if not places:
                continue
            of = [rows[i] for i in places]
            y = np.array(places, dtype=float)
            own, marker = colour(0 if graph else 1), MARKERS[0 if graph else 1]
            for i, x in zip(places, of, strict=True):
                ax.plot(
                    x.seeds, np.full(len(x.seeds), i + 0.22), ".", color=own, alpha=0.45, markersize=3.5,
                    markeredgewidth=0, zorder=2,
                )  # fmt: skip
            mean, low, high = (np.array([getattr(x, name) for x in of]) for name in ("mean", "low", "high"))
            whiskers = np.array([mean - low, high - mean]) if np.isfinite(low).any() else None
            ax.errorbar(
                mean, y - 0.1, xerr=whiskers, fmt=marker, color=own, markersize=3.5, linewidth=1.0, capsize=1.8,
                zorder=3, label=f"mean, {'with' if graph else 'without'} a graph",
            )  # fmt: skip
            ax.plot(
                [x.defaults for x in of], y - 0.1, marker, color=own, fillstyle="none", markersize=4.5,
                markeredgewidth=0.8, zorder=2.5,
            )  # fmt: skip
        shown = [x for x in rows if x.mean >= floor]
        printed = [(x.published, i) for i, x in enumerate(rows) if np.isfinite(x.published) and x.published >= floor]
        if printed:
            ax.plot(*zip(*printed, strict=True), "|", color=shade(1), markersize=8, markeredgewidth=1.3, zorder=4)
        ax.margins(x=0.04)
        keep_within([ax], 0, 100, "x")
        ax.set_ylim(len(rows) - 0.4, -0.6)
        left = ax.get_xlim()[0]
        for i, x in enumerate(rows):
            if x.mean < floor:
                ax.text(left, i, f" ← {x.mean:.1f}", ha="left", va="center", fontsize=6, color=shade(0.7))
        ax.set_xlim(left=left)
        ax.set_yticks(range(len(rows)), [plain(cut(x.name, 26)) for x in rows], fontsize=6.5)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.3)
        ax.grid(axis="y", linewidth=0.15)
        ax.set_axisbelow(True)
        ax.set_xlabel(f"{measure} on test (%)")
        beyond = len(shown) < len(rows)
        legend_below(
            figure, [*ax.get_legend_handles_labels()[0], *_marks(shown, published=bool(printed), beyond=beyond)], size=6
        )
        figure.suptitle(f"{title}: test split", fontsize=7.5, wrap=True)
    return figure


def _marks(shown: Sequence[Dots], *, published: bool, beyond: bool) -> list[Line2D]:
    """Return the entries of the legend beside the means."""
    made = [mark("a seed", ".", color=shade(0.5))]
    if any(np.isfinite(x.low) for x in shown):
        made.insert(0, mark("95% interval (another seed)", color=shade(0.5), linestyle="-", linewidth=1))
    if any(np.isfinite(x.defaults) for x in shown):
        made.append(mark("mean of default settings", "o", color=shade(0.7), fillstyle="none"))
    if published:
        made.append(mark("published (own protocol)", "|", color=shade(1), markersize=7, markeredgewidth=1.3))
    if beyond:
        made.append(mark("← mean left of the axis"))
    return made


def _floor(rows: Sequence[Dots]) -> float:
    """Return the mean below which a system is drawn at the edge, so that the others have room."""
    means = np.array([x.mean for x in rows])
    median = float(np.median(means))
    return median - max(_FAR * (float(means.max()) - median), 5.0) if len(means) > 2 else -np.inf

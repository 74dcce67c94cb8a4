"""Systems, the best above: a dot a seed, the mean with its interval, default settings, and what papers report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from study.findings.wording import cut
from study.output.figures.style import COLOURS, COLUMN_WIDTH, MARKERS, keep_within, plain, style

_ROW = 0.19
"""Inches of a system."""

_FAR = 3.0
"""A system that is so many times the upper half's width below the median is named at the edge, with its figure."""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """What is drawn of a system, in percent.

    Attributes:
        name: as readers know it.
        seeds: a figure each.
        mean: of them.
        low: of its interval; NaN: there is none.
        high: likewise.
        defaults: the mean with default settings; NaN: not known, or not tuned.
        published: what a paper reports; NaN: nothing.
        uses_graph: whether it does.
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
    """Draw systems from above to below by their mean.

    Args:
        systems: with a mean each.
        measure: what is drawn, as figures show it.
        title: the data set and the pair, as figures show them.
    """
    rows = sorted(systems, key=lambda x: -x.mean)
    floor = _floor(rows)
    with style():
        figure = Figure(figsize=(COLUMN_WIDTH, 1.1 + _ROW * len(rows)), layout="constrained")
        ax = figure.subplots()
        for graph in (True, False):
            places = [i for i, x in enumerate(rows) if x.uses_graph is graph and x.mean >= floor]
            if not places:
                continue
            of = [rows[i] for i in places]
            y = np.array(places, dtype=float)
            colour, marker = COLOURS[0 if graph else 1], MARKERS[0 if graph else 1]
            for i, x in zip(places, of, strict=True):
                ax.plot(
                    x.seeds, np.full(len(x.seeds), i + 0.22), ".", color=colour, alpha=0.45, markersize=3.5,
                    markeredgewidth=0, zorder=2,
                )  # fmt: skip
            mean, low, high = (np.array([getattr(x, name) for x in of]) for name in ("mean", "low", "high"))
            whiskers = np.array([mean - low, high - mean]) if np.isfinite(low).any() else None
            ax.errorbar(
                mean, y - 0.1, xerr=whiskers, fmt=marker, color=colour, markersize=3.5, linewidth=1.0, capsize=1.8,
                zorder=3, label="with a graph" if graph else "without a graph",
            )  # fmt: skip
            ax.plot(
                [x.defaults for x in of], y - 0.1, marker, color=colour, fillstyle="none", markersize=4.5,
                markeredgewidth=0.8, zorder=2.5,
            )  # fmt: skip
        shown = [x for x in rows if x.mean >= floor]
        printed = [(x.published, i) for i, x in enumerate(rows) if np.isfinite(x.published) and x.published >= floor]
        if printed:
            ax.plot(*zip(*printed, strict=True), "|", color="black", markersize=8, markeredgewidth=1.3, zorder=4)
        ax.margins(x=0.04)
        keep_within([ax], 0, 100, "x")
        ax.set_ylim(len(rows) - 0.4, -0.6)
        left = ax.get_xlim()[0]
        for i, x in enumerate(rows):
            if x.mean < floor:
                ax.text(left, i, f" ← {x.mean:.1f}", ha="left", va="center", fontsize=6, color="0.3")
        ax.set_xlim(left=left)
        ax.set_yticks(range(len(rows)), [plain(cut(x.name, 26)) for x in rows], fontsize=6.5)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.3)
        ax.grid(axis="y", linewidth=0.15)
        ax.set_axisbelow(True)
        known = any(np.isfinite(x.low) for x in shown)
        ax.set_xlabel(f"{measure} on test (%)")
        figure.legend(
            handles=[*ax.get_legend_handles_labels()[0], *_marks(shown, published=bool(printed))],
            loc="outside lower center", ncols=3, frameon=False, fontsize=6, columnspacing=1.0, handletextpad=0.4,
        )  # fmt: skip
        figure.suptitle(f"{title}: mean{' and 95% interval (another seed)' if known else ''}", fontsize=7.5)
    return figure


def _marks(shown: Sequence[Dots], *, published: bool) -> list[Line2D]:
    """Return what the legend has beside the means."""
    made = [Line2D([], [], marker=".", linestyle="none", color="0.5", markersize=4, label="a seed")]
    if any(np.isfinite(x.defaults) for x in shown):
        made.append(
            Line2D(
                [], [], marker="o", linestyle="none", color="0.3", fillstyle="none", markersize=4.5,
                label="default settings",
            )
        )  # fmt: skip
    if published:
        made.append(
            Line2D(
                [], [], marker="|", linestyle="none", color="black", markersize=7, markeredgewidth=1.3,
                label="published (own protocol)",
            )
        )  # fmt: skip
    return made


def _floor(rows: Sequence[Dots]) -> float:
    """Return the mean below which a system stands at the edge, so that the others are not pressed together."""
    means = np.array([x.mean for x in rows])
    median = float(np.median(means))
    return median - max(_FAR * (float(means.max()) - median), 5.0) if len(means) > 2 else -np.inf

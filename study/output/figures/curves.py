"""Learning curves: validation WA over the epochs of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from study.findings.statistics import SEEDS_FOR_INTERVAL, SHARES, Array, interval_ends
from study.output.figures.style import COLOURS, MARKERS, TEXT_WIDTH, colour, keep_within, legend_below, shade, style

_SIDE_BY_SIDE = 3
"""Panels in a row."""

_FOLDED = 40
"""Characters of a line of a legend's label."""


def curves_figure(
    panels: Mapping[str, Mapping[str, pd.DataFrame]], heads: Mapping[str, str] | None = None, *, title: str
) -> Figure:
    """Draw validation WA by epoch, mean and 95% interval over seeds, a panel for each question.

    A panel with a single line shows its seeds too. A panel shows as many lines as there are colours, and its title says
    if some are left out.

    Args:
        panels: Lines by label, for each panel title. A line is a frame of fractions with a row per seed and a column
            per epoch.
        heads: Name of the factor whose values are the labels, by panel title. Missing or empty if the labels need no
            name.
        title: Data set and K pair, as figures show them.
    """
    rows = math.ceil(len(panels) / _SIDE_BY_SIDE)
    tallest = max(_legend_height(lines, (heads or {}).get(name)) for name, lines in panels.items())
    height = 3.4 if rows == 1 and tallest < 0.7 else rows * (2.2 + tallest) + 0.4
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, min(len(panels), _SIDE_BY_SIDE), sharey=True, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax, (name, lines) in zip(axes, panels.items(), strict=False):
            for place, ((label, frame), marker) in enumerate(zip(lines.items(), MARKERS, strict=False)):
                epochs = frame.columns.to_numpy(float)
                values = 100 * frame.to_numpy(float)
                mean, n = values.mean(axis=0), len(values)
                if len(lines) == 1:
                    ax.plot(epochs, values.T, color=shade(0.25), linewidth=0.6, zorder=1)
                text = _labelled(label, frame)
                ax.plot(epochs, mean, marker=marker, color=colour(place), markersize=3, linewidth=1, label=text)
                if n >= SEEDS_FOR_INTERVAL:
                    low, high = (100 * end for end in curve_interval(frame))
                    ax.fill_between(epochs, low, high, color=colour(place), alpha=0.15, linewidth=0)
            left_out = f" (the first {len(COLOURS)} of {len(lines)})" if len(lines) > len(COLOURS) else ""
            ax.set(title=f"{name}{left_out}", xlabel="epoch")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.grid(linewidth=0.3)
            below = ScaledTranslation(0, -28 / 72, figure.dpi_scale_trans)  # below the axis, where no curve is
            ax.legend(
                frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=ax.transAxes + below,
                title=(heads or {}).get(name),
            )  # fmt: skip
        keep_within(list(axes[: len(panels)]), 0, 100)
        for ax in axes[: len(panels) : _SIDE_BY_SIDE]:
            ax.set_ylabel("validation WA (%)")
        legend_below(figure, _marks(panels))
        figure.suptitle(f"{title}: learning curves", fontsize=8)
    return figure


def _marks(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> list[Artist]:
    """Return the entries of the legend below all panels."""
    seeds = [len(frame) for lines in panels.values() for frame in lines.values()]
    lone = [len(frame) for lines in panels.values() if len(lines) == 1 for frame in lines.values()]
    grey = shade(0.5)
    marks: list[Artist] = [Line2D([], [], color=grey, marker="o", markersize=3, linewidth=1, label="mean over n seeds")]
    if max(seeds) >= SEEDS_FOR_INTERVAL:
        marks.append(Patch(color=grey, alpha=0.3, linewidth=0, label="95% interval (another seed)"))
    if max(lone, default=1) > 1:
        marks.append(Line2D([], [], color=shade(0.25), linewidth=0.8, label="a seed"))
    return marks


def _labelled(label: str, frame: pd.DataFrame) -> str:
    return fill(f"{label} (n={len(frame)})", _FOLDED)


def _legend_height(lines: Mapping[str, pd.DataFrame], head: str | None) -> float:
    """Return a legend's height in inches."""
    drawn = list(lines.items())[: len(COLOURS)]
    return 0.155 * (sum(_labelled(*item).count("\n") + 1 for item in drawn) + bool(head))


def curve_interval(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Return both ends of a curve's 95% interval at every epoch. They are NaN with fewer than three seeds.

    Args:
        frame: Fractions, with a row per seed and a column per epoch.
    """
    values = frame.to_numpy(float)
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return interval_ends(values.mean(axis=0), std, len(values), SHARES)


def curve_words(seeds: int) -> str:
    """Describe a learning curve, given the largest number of seeds of a line."""
    return "mean over n seeds" + (", 95% interval (another seed)" if seeds >= SEEDS_FOR_INTERVAL else "")

"""The marginal effect of each K: its mean over the other K."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.findings.analysis import MEASURES
from study.findings.results import GridScores
from study.findings.statistics import marginal
from study.findings.wording import seeds_in_words
from study.ledger.outcomes import Metric
from study.output.figures.style import (
    TEXT_WIDTH,
    centre_on_zero,
    colour,
    keep_within,
    legend_below,
    shade,
    style,
)

_FEW = 12
"""Most labels side by side."""


def marginal_figure(scores: GridScores, *, metric: Metric, title: str) -> Figure:
    """Draw each K's mean over the other K minus the grid's mean of the same seed, with its 95% interval over seeds.

    Args:
        scores: Scores of the grid without missing cells.
        metric: Metric on the test split.
        title: Data set, as figures show it.
    """
    axes_names: tuple[Literal["k_audio", "k_text"], ...] = ("k_audio", "k_text")
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 2.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, axis in zip(axes, axes_names, strict=True):
            _panel(ax, scores, axis, metric)
            ax.set_xlabel("$K_{audio}$" if axis == "k_audio" else "$K_{text}$")
        centre_on_zero(axes)
        keep_within(axes, -100, 100)
        legend_below(figure, axes[0].get_legend_handles_labels()[0])
        axes[0].set_ylabel(f"{MEASURES[metric]}, points from the grid's mean")
        left = f"; without {scores.left_out}" if scores.left_out else ""
        over = seeds_in_words(len(scores.seeds))
        figure.suptitle(f"{title}: each K over the other, test split, {over}{left}", fontsize=8, wrap=True)
    return figure


def _panel(ax: Axes, scores: GridScores, axis: Literal["k_audio", "k_text"], metric: Metric) -> None:
    values = scores.values[f"test_{metric}"]
    levels = scores.k_audio if axis == "k_audio" else scores.k_text
    places = np.arange(len(levels))
    made = marginal(values, axis)
    ax.axhline(0, color=shade(0.4), linewidth=0.8, label="mean of the grid")
    over = 2 if axis == "k_audio" else 1
    seeds = 100 * (values.mean(axis=over) - values.mean(axis=(1, 2))[:, None])
    for i, row in enumerate(seeds if len(seeds) > 1 else ()):
        ax.plot(places, row, ".", color=shade(0.35), markersize=3, zorder=1, label="a seed" if i == 0 else None)
    means = np.array([100 * interval.mean for interval in made])
    ends = np.array([(interval.mean - interval.low, interval.high - interval.mean) for interval in made])
    whiskers = 100 * ends.T if np.isfinite(ends).all() else None
    label = "mean" if len(seeds) > 1 else "the only seed"
    ax.errorbar(
        places, means, yerr=whiskers, fmt="o-", color=colour(0), markersize=3.5, linewidth=1, capsize=2,
        label=f"{label}{', 95% interval (another seed)' if whiskers is not None else ''}",
    )  # fmt: skip
    ax.set_xlim(-0.5, len(levels) - 0.5)
    if len(levels) <= _FEW:
        ax.set_xticks(places, [str(level) for level in levels])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(_FEW, integer=True))
        ax.xaxis.set_major_formatter(lambda x, _: str(levels[int(x)]) if 0 <= x < len(levels) else "")
    ax.grid(axis="y", linewidth=0.3)

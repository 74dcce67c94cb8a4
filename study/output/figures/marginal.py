"""The marginal effect of each K: what one value of it brings, whatever the other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.findings.analysis import MEASURES
from study.findings.results import GridScores
from study.findings.statistics import SEEDS_FOR_INTERVAL, marginal
from study.ledger.outcomes import Metric
from study.output.figures.style import COLOURS, TEXT_WIDTH, keep_within, style

_FEW = 12  # labels side by side at most


def marginal_figure(scores: GridScores, *, metric: Metric, title: str) -> Figure:
    """Each K's mean over the other K, less the grid's mean of the same seed, with its 95% interval over seeds.

    Args:
        scores: the grid without holes.
        metric: of the test split.
        title: the data set, as figures show it.
    """
    axes_names: tuple[Literal["k_audio", "k_text"], ...] = ("k_audio", "k_text")
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 2.3), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, axis in zip(axes, axes_names, strict=True):
            _panel(ax, scores, axis, metric)
            ax.set_xlabel("$K_{audio}$" if axis == "k_audio" else "$K_{text}$")
        keep_within(axes, -100, 100)
        axes[0].set_ylabel(f"{MEASURES[metric]}, points from the grid's mean")
        n = len(scores.seeds)
        if n >= SEEDS_FOR_INTERVAL:
            what = f"mean over {n} seeds and 95% interval (another seed)"
        else:
            what = f"mean over {n} seeds, no interval" if n > 1 else "one seed, no interval"
        left = f"; without {scores.left_out}" if scores.left_out else ""
        figure.suptitle(f"{title}: each K whatever the other, test split, {what}{left}", fontsize=8, wrap=True)
    return figure


def _panel(ax: Axes, scores: GridScores, axis: Literal["k_audio", "k_text"], metric: Metric) -> None:
    values = scores.values[f"test_{metric}"]
    levels = scores.k_audio if axis == "k_audio" else scores.k_text
    places = np.arange(len(levels))
    made = marginal(values, axis)
    ax.axhline(0, color="0.6", linewidth=0.8)
    over = 2 if axis == "k_audio" else 1
    seeds = 100 * (values.mean(axis=over) - values.mean(axis=(1, 2))[:, None])
    for row in seeds:
        ax.plot(places, row, ".", color="0.7", markersize=3, zorder=1)
    means = np.array([100 * interval.mean for interval in made])
    ends = np.array([(interval.mean - interval.low, interval.high - interval.mean) for interval in made])
    whiskers = 100 * ends.T if np.isfinite(ends).all() else None
    ax.errorbar(places, means, yerr=whiskers, fmt="o-", color=COLOURS[0], markersize=3.5, linewidth=1, capsize=2)
    ax.set_xlim(-0.5, len(levels) - 0.5)
    if len(levels) <= _FEW:
        ax.set_xticks(places, [str(level) for level in levels])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(_FEW, integer=True))
        ax.xaxis.set_major_formatter(lambda x, _: str(levels[int(x)]) if 0 <= x < len(levels) else "")
    ax.grid(axis="y", linewidth=0.3)

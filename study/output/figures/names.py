"""Configurations by name or over one ordered factor: single seeds, means, intervals and published figures."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from study.design.block import shown
from study.findings.analysis import MEASURES
from study.output.figures.style import (
    TEXT_WIDTH,
    colour,
    keep_within,
    legend_below,
    panels,
    panels_across,
    shade,
    style,
)

_LOGARITHMIC = 8.0
"""Smallest ratio of the last to the first value for which an axis is logarithmic."""

_WIDEST = 14
"""Most characters of a label below its place. Longer labels, or many, are at the side."""

_FOLDED = 34
"""Characters of a line of a label at the side."""

_TALLEST = 9.0
"""Height of a page, in inches."""


def names_figure(
    by_seed: dict[str, pd.DataFrame],
    summary: pd.DataFrame,
    labels: Sequence[str],
    *,
    head: str = "",
    published: pd.DataFrame | None = None,
    title: str,
    seeds: int,
) -> Figure:
    """Draw every metric of the test split for each configuration: a grey line per seed, the mean with its interval.

    Intervals are at 95%. Fewer than three seeds have none. All panels have the same scale.

    Args:
        by_seed: Frames of fractions by metric, with a row per seed and a column per configuration.
        summary: Row per configuration with ``n_seeds`` and the figures as fractions. NaN where there is none.
        labels: Names of the configurations, from left to right, or from the top if they are long.
        head: Name of the factor whose values are the labels, as figures show it. Empty if the labels need no name.
        published: Scores of each configuration in the paper, in percent. ``None`` if there are none.
        title: Data set and K pair, as figures show them.
        seeds: Number of requested seeds. Labels of configurations with fewer seeds show their number.
    """
    places = np.arange(len(labels), dtype=float)
    measures = len(by_seed)
    upright = sum(map(len, labels)) > 2 * _WIDEST + (20 if panels_across(measures) == 2 else 4)
    names = _with_counts([fill(label, _FOLDED) if upright else label for label in labels], summary, seeds)
    lines = sum(name.count("\n") + 1 for name in names)
    with style():
        tall = min(max(1.1 + 0.11 * len(labels) + 0.12 * lines, 2.2), _TALLEST)
        figure = Figure(figsize=(TEXT_WIDTH, tall if upright else _height(measures)), layout="constrained")
        axes = (
            list(figure.subplots(1, measures, sharex=True, sharey=True, squeeze=False)[0])
            if upright
            else panels(figure, measures, sharey=True)
        )
        for ax, measure in zip(axes, by_seed, strict=True):
            _panel(ax, places, by_seed[measure], summary, measure, upright=upright)
            if published is not None and measure in published:
                theirs = published[measure].to_numpy(float)
                ax.plot(
                    *_turned(places + 0.22, theirs, upright), "D", color=colour(1), fillstyle="none", markersize=4,
                    linestyle="none", label="published",
                )  # fmt: skip
            ax.set_title(f"{MEASURES[measure]} (%)")
            if upright:
                ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
                ax.set_yticks(places, names, fontsize=min(7.0, 0.85 * 72 * (tall - 1) / lines))
                ax.set_ylim(len(labels) - 0.4, -0.6)
            else:
                ax.set_xticks(places, names)
                ax.set_xlim(-0.5, len(labels) - 0.4)
                ax.set_xlabel(head)
        if upright:
            axes[0].set_ylabel(head)
        _finish(figure, list(axes), title, upright=upright)
    return figure


def line_figure(
    by_seed: dict[str, pd.DataFrame],
    summary: pd.DataFrame,
    values: Sequence[float],
    *,
    factor: str,
    title: str,
    seeds: int,
) -> Figure:
    """Draw every metric of the test split over one ordered factor: a grey line per seed, the mean with its interval.

    Args:
        by_seed: Frames of fractions by metric, with a row per seed and a column per value.
        summary: Row per value with ``n_seeds`` and the figures as fractions. NaN where there is none.
        values: Values of the factor.
        factor: Name of the factor, as figures show it.
        title: Data set and K pair, as figures show them.
        seeds: Number of requested seeds. Labels of values with fewer seeds show their number.
    """
    order = np.argsort(values)
    places, ordered = np.asarray(values, dtype=float)[order], summary.iloc[order]
    logarithmic = bool(places[0] > 0 and places[-1] / places[0] >= _LOGARITHMIC)
    labels = _with_counts([shown(float(value)) for value in places], ordered, seeds)
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, _height(len(by_seed))), layout="constrained")
        axes = panels(figure, len(by_seed), sharey=True)
        for ax, measure in zip(axes, by_seed, strict=True):
            if logarithmic:
                ax.set_xscale("log")
                ax.xaxis.set_minor_locator(NullLocator())
            _panel(ax, places, by_seed[measure].iloc[:, order], ordered, measure, joined=True)
            width = 125.0 if panels_across(len(by_seed)) == 3 else 200.0
            there = _apart(np.log(places) if logarithmic else places, labels, width)
            ax.set_xticks(places, [text if kept else "" for text, kept in zip(labels, there, strict=True)])
            ax.set(title=f"{MEASURES[measure]} (%)", xlabel=factor)
        _finish(figure, list(axes), title)
    return figure


def _height(measures: int) -> float:
    """Return a figure's height in inches, for its rows of panels and the legend."""
    return -(-measures // panels_across(measures)) * 2.2 + 0.4


def _with_counts(labels: Sequence[str], summary: pd.DataFrame, seeds: int) -> list[str]:
    """Return the labels, with the number of done seeds if some are missing."""
    counts = summary["n_seeds"].fillna(0).astype(int)
    return [text if n == seeds else f"{text}\n{n} of {seeds}" for text, n in zip(labels, counts, strict=True)]


def _apart(places: np.ndarray, labels: Sequence[str], panel: float) -> list[bool]:
    """Return which labels fit side by side. If two would touch, the left one is kept.

    Args:
        places: Places on the axis, in order.
        labels: Labels of the places.
        panel: Length of the axis in points, from the first to the last place.
    """
    span = float(places[-1] - places[0]) or 1.0
    kept, end = [], -np.inf
    for place, label in zip(panel * (places - places[0]) / span, labels, strict=True):
        half = 2.2 * max(map(len, label.splitlines())) + 1.5
        kept.append(bool(place - half >= end))
        end = place + half if kept[-1] else end
    return kept


def _turned(places: np.ndarray, values: np.ndarray, upright: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, with the places on the vertical axis if ``upright``."""
    return (values, places) if upright else (places, values)


def _finish(figure: Figure, axes: list[Axes], title: str, *, upright: bool = False) -> None:
    for ax in axes:
        ax.grid(axis="x" if upright else "y", linewidth=0.3)
    keep_within(axes, 0, 100, "x" if upright else "y")
    legend_below(figure, axes[0].get_legend_handles_labels()[0])
    figure.suptitle(f"{title}: test split", fontsize=8)


def _panel(
    ax: Axes,
    places: np.ndarray,
    seeds: pd.DataFrame,
    summary: pd.DataFrame,
    measure: str,
    *,
    joined: bool = False,
    upright: bool = False,
) -> None:
    for i, row in enumerate(100 * seeds.to_numpy(float)):
        ax.plot(
            *_turned(places, row, upright), ".-", color=shade(0.25), markersize=4, linewidth=0.6, zorder=1,
            label="a seed" if i == 0 else None,
        )  # fmt: skip
    mean, low, high = (100 * summary[f"test_{measure}_{figure}"].to_numpy(float) for figure in ("mean", "low", "high"))
    known = bool(np.isfinite(low).any())
    whiskers = np.array([mean - low, high - mean]) if known else None
    x, y = _turned(places, mean, upright)
    ax.errorbar(
        x, y, xerr=whiskers if upright else None, yerr=None if upright else whiskers, fmt="o-" if joined else "o",
        color=colour(0), markersize=4, linewidth=1.2, capsize=3, zorder=2,
        label="mean, 95% interval (another seed)" if known else "mean",
    )  # fmt: skip

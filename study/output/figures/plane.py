"""The heatmap over two ordered factors: Fig. 2, over K_audio and K_text, is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from study.design.block import shown
from study.findings.analysis import MEASURES
from study.output.figures.heat import COLOUR_MAP, FRAME, annotated, colour_span, ground, ink
from study.output.figures.style import TEXT_WIDTH, math_text, panels, panels_across, style

_SMALLEST_TYPE = 3.0  # points


def plane_figure(
    frame: pd.DataFrame,
    columns: tuple[str, str],
    chosen: tuple[float, float] | None = None,
    *,
    title: str,
    seeds: int,
    xs: Sequence[float],
    ys: Sequence[float],
    how: str = "chosen on validation",
    figure_of: Literal["mean", "std"] = "mean",
) -> Figure:
    """Draw every metric of the test split over two factors, one panel and one colour bar each.

    The chosen cell has a frame; the highest of each panel a star. Cells without a trial stay white, and those with
    fewer seeds than asked for are in italics. Where cells are too small to read a number in, there is none.

    Args:
        frame: aggregated by both factors, fractions.
        columns: the names of the factors, across and upwards.
        chosen: the cell to frame, by the values of both.
        title: the data set, as figures show it.
        seeds: how many each cell should have.
        xs: values of the first factor.
        ys: values of the second, from below.
        how: how the cell was chosen, for the legend.
        figure_of: the mean over seeds, or the standard deviation.
    """
    rows, (x, y) = sorted(ys, reverse=True), columns
    measures = {name: label for name, label in MEASURES.items() if frame[f"test_{name}_mean"].notna().any()}

    def on_the_grid(column: str) -> pd.DataFrame:
        shaped = frame.pivot(index=y, columns=x, values=column).reindex(index=rows, columns=sorted(xs))
        return shaped.astype(float)

    with style():
        short = on_the_grid("n_seeds") < seeds
        across = panels_across(len(measures))
        width = 0.9 * TEXT_WIDTH / across
        height = (TEXT_WIDTH / across - 0.4) * min(max(len(rows) / len(xs), 0.35), 1.6) / (1.25 if across == 2 else 1)
        down = -(-len(measures) // across)
        figure = Figure(figsize=(TEXT_WIDTH, down * (height + 0.9) + 0.5), layout="constrained")
        axes = panels(figure, len(measures))
        # points, so that four figures stand in a cell's width and two lines in its height
        size = min(7.0, 0.36 * 72 * width / len(xs), 0.42 * 72 * height / len(rows))
        for ax, (measure, label) in zip(axes, measures.items(), strict=True):
            values = 100 * on_the_grid(f"test_{measure}_{figure_of}")
            bar = f"{label} (%)" if figure_of == "mean" else f"standard deviation of {label} (points)"
            _panel(ax, values, short, chosen=chosen, label=label, bar=bar, size=size, starred=figure_of == "mean")
            ax.set_xlabel(math_text(x))
        for ax in axes[::across]:
            ax.set_ylabel(math_text(y))
        over = f"{seeds} seed{'s' if seeds > 1 else ''}"
        what = f"percent, mean over {over}" if figure_of == "mean" else f"standard deviation over {over}, points"
        figure.suptitle(f"{title}: test split, {what}", fontsize=8)
        marks = []
        if chosen:
            label = f"{how} ({math_text(x)}={shown(chosen[0])}, {math_text(y)}={shown(chosen[1])})"
            marks.append(_mark("s", label, markerfacecolor="none", markeredgecolor=FRAME, markeredgewidth=1.4))
        if size >= _SMALLEST_TYPE:
            if figure_of == "mean":
                marks.append(_mark("*", "highest in the panel", color="black"))
            if short.any(axis=None):
                marks.append(_mark("", "italics: fewer seeds"))
        if marks:
            figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return figure


def _mark(marker: str, label: str, **look: Any) -> Line2D:
    """An entry of the legend."""
    return Line2D([], [], linestyle="none", marker=marker, label=label, markersize=6, **look)


def _panel(
    ax: Axes,
    percent: pd.DataFrame,
    short: pd.DataFrame,
    *,
    chosen: tuple[float, float] | None,
    label: str,
    bar: str,
    size: float,
    starred: bool,
) -> None:
    values = percent.to_numpy(float)
    span = colour_span(values)
    best = np.nanmax(values) if starred else np.nan
    sns.heatmap(
        percent,
        ax=ax,
        cmap=COLOUR_MAP,
        vmin=span[0],
        vmax=span[1],
        annot=size >= _SMALLEST_TYPE,
        fmt=".1f",
        annot_kws={"size": size},
        linewidths=0.3,
        cbar_kws={"orientation": "horizontal", "label": bar, "aspect": 30, "pad": 0.02},
    )
    for (row, column), text in annotated(ax, values):
        text.set_in_layout(False)  # it stays in its cell
        text.set_color(ink(ground(values[row, column], span)))
        if np.isclose(values[row, column], best, rtol=0, atol=1e-9):
            text.set_text(f"{text.get_text()}\n★")
            text.set_linespacing(0.8)
        if short.iat[row, column]:
            text.set_fontstyle("italic")
    across: list[Any] = list(percent.columns)
    upwards: list[Any] = list(percent.index)
    ax.set_xticks([i + 0.5 for i in range(len(across))], [shown(value) for value in across])
    ax.set_yticks([i + 0.5 for i in range(len(upwards))], [shown(value) for value in upwards])
    if chosen and chosen[0] in across and chosen[1] in upwards:
        corner = (across.index(chosen[0]), upwards.index(chosen[1]))
        for colour, width in (("white", 2.4), (FRAME, 1.4)):
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3)
            ax.add_patch(frame)
    ax.set(title=label, ylabel="")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)

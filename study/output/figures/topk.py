"""Fig. 2: the heatmap over K_audio and K_text."""

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

from study.design import Pair
from study.findings.analysis import MEASURES
from study.output.figures.heat import COLOUR_MAP, FRAME, annotated, colour_span, ground, ink
from study.output.figures.style import TEXT_WIDTH, style

_SMALLEST_TYPE = 3.0  # points


def topk_heatmap(
    grid: pd.DataFrame,
    chosen: Pair | None,
    *,
    title: str,
    seeds: int,
    k_audio: Sequence[int],
    k_text: Sequence[int],
    how: str = "chosen on validation",
    figure_of: Literal["mean", "std"] = "mean",
) -> Figure:
    """The test split's WA, UA and w-F1 over the K grid, one panel and one colour bar each.

    The chosen cell has a frame; the highest of each panel a star. Cells without a trial stay white, and those with
    fewer seeds than asked for are in italics. Where cells are too small to read a number in, there is none.

    Args:
        grid: aggregated by pair, fractions.
        chosen: the pair to frame.
        title: the data set, as figures show it.
        seeds: how many each cell should have.
        k_audio: the columns.
        k_text: the rows, from below.
        how: how the pair was chosen, for the legend.
        figure_of: the mean over seeds, or the standard deviation.
    """
    rows = sorted(k_text, reverse=True)

    def on_the_grid(column: str) -> pd.DataFrame:
        return grid.pivot(index="k_text", columns="k_audio", values=column).reindex(index=rows, columns=sorted(k_audio))

    with style():
        short = on_the_grid("n_seeds") < seeds
        width, height = 0.3 * TEXT_WIDTH, (TEXT_WIDTH / 3 - 0.4) * min(max(len(rows) / len(k_audio), 0.35), 1.6)
        figure = Figure(figsize=(TEXT_WIDTH, height + 1.4), layout="constrained")
        axes = figure.subplots(1, len(MEASURES), sharey=True)
        # points, so that four figures stand in a cell's width and two lines in its height
        size = min(7.0, 0.36 * 72 * width / len(k_audio), 0.42 * 72 * height / len(rows))
        for ax, (measure, label) in zip(axes, MEASURES.items(), strict=True):
            values = 100 * on_the_grid(f"test_{measure}_{figure_of}")
            bar = f"{label} (%)" if figure_of == "mean" else f"standard deviation of {label} (points)"
            _panel(ax, values, short, chosen=chosen, label=label, bar=bar, size=size, starred=figure_of == "mean")
        axes[0].set_ylabel("$K_{text}$")
        over = f"{seeds} seed{'s' if seeds > 1 else ''}"
        what = f"percent, mean over {over}" if figure_of == "mean" else f"standard deviation over {over}, points"
        figure.suptitle(f"{title}: test split, {what}", fontsize=8)
        marks = []
        if chosen:
            label = f"{how} ($K_{{audio}}$={chosen.k_audio}, $K_{{text}}$={chosen.k_text})"
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
    chosen: Pair | None,
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
    k_audios, k_texts = (list(map(int, axis)) for axis in (percent.columns, percent.index))
    if chosen and chosen.k_text in k_texts and chosen.k_audio in k_audios:
        corner = (k_audios.index(chosen.k_audio), k_texts.index(chosen.k_text))
        for colour, width in (("white", 2.4), (FRAME, 1.4)):
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3)
            ax.add_patch(frame)
    ax.set(title=label, xlabel="$K_{audio}$", ylabel="")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)

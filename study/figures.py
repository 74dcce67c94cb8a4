"""Fig. 2, the heatmap over K_audio and K_text, and what each gap between text and code costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cemobam_core.files import written_atomically
from study.design import GAPS, Pair
from study.tables import MEASURES

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 7,
    "axes.titlesize": 8,
    "pdf.fonttype": 42,  # fonts embedded as such: journals ask for it
    "savefig.dpi": 300,
}
FORMS = ("png", "pdf")
"""For the screen, and for print."""

_SMALLEST_TYPE = 3.0  # points
_TEXT_WIDTH = 7.16  # inches, across both columns of an IEEE page


def topk_heatmap(
    grid: pd.DataFrame,
    chosen: Pair | None,
    *,
    title: str,
    seeds: int,
    k_audio: Sequence[int],
    k_text: Sequence[int],
    how: str = "chosen on validation",
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
    """
    rows = sorted(k_text, reverse=True)

    def on_the_grid(column: str) -> pd.DataFrame:
        return grid.pivot(index="k_text", columns="k_audio", values=column).reindex(index=rows, columns=sorted(k_audio))

    with mpl.rc_context(_STYLE):
        short = on_the_grid("n_seeds") < seeds
        width, height = 0.3 * _TEXT_WIDTH, (_TEXT_WIDTH / 3 - 0.4) * min(max(len(rows) / len(k_audio), 0.35), 1.6)
        figure = Figure(figsize=(_TEXT_WIDTH, height + 1.4), layout="constrained")
        axes = figure.subplots(1, len(MEASURES), sharey=True)
        # points, so that four figures stand in a cell's width and two lines in its height
        size = min(7.0, 0.36 * 72 * width / len(k_audio), 0.42 * 72 * height / len(rows))
        for ax, (measure, label) in zip(axes, MEASURES.items(), strict=True):
            _panel(ax, 100 * on_the_grid(f"test_{measure}_mean"), short, chosen=chosen, label=label, size=size)
        axes[0].set_ylabel("$K_{text}$")
        figure.suptitle(f"{title}: test split, percent, mean over {seeds} seed{'s' if seeds > 1 else ''}", fontsize=8)
        legend = []
        if chosen:
            legend.append(f"□ {how} ($K_{{audio}}$={chosen.k_audio}, $K_{{text}}$={chosen.k_text})")
        if size >= _SMALLEST_TYPE:
            legend.append("★ highest in the panel")
            if short.any(axis=None):
                legend.append("italics: fewer seeds")
        figure.supxlabel("    ".join(legend), fontsize=7)
    return figure


def _panel(
    ax: Axes, percent: pd.DataFrame, short: pd.DataFrame, *, chosen: Pair | None, label: str, size: float
) -> None:
    values = percent.to_numpy(float)
    best = np.nanmax(values)
    sns.heatmap(
        percent,
        ax=ax,
        cmap="cividis",  # even in lightness: reads in grey and for the colour-blind
        annot=size >= _SMALLEST_TYPE,
        fmt=".1f",
        annot_kws={"size": size},
        linewidths=0.3,
        cbar_kws={"orientation": "horizontal", "label": f"{label} (%)", "aspect": 30, "pad": 0.02},
    )
    # seaborn writes a text for each cell with a number, row by row
    for (row, column), text in zip(np.argwhere(~np.isnan(values)), ax.texts, strict=False):
        if np.isclose(values[row, column], best, rtol=0, atol=1e-9):
            text.set_text(f"{text.get_text()}\n★")
            text.set_linespacing(0.8)
        if short.iat[row, column]:
            text.set_fontstyle("italic")
    k_audios, k_texts = (list(map(int, axis)) for axis in (percent.columns, percent.index))
    if chosen and chosen.k_text in k_texts and chosen.k_audio in k_audios:
        corner = (k_audios.index(chosen.k_audio), k_texts.index(chosen.k_text))
        for colour, width in (("white", 2.4), ("#d7191c", 1.4)):  # red on a white edge stands out on every cell
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3)
            ax.add_patch(frame)
    ax.set(title=label, xlabel="$K_{audio}$", ylabel="")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)


def gaps_figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Each gap's difference in test WA and UA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`study.tables.gaps_table` makes it, in percent.
        title: the data set, as figures show it.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_TEXT_WIDTH, 0.9 + 0.24 * len(GAPS)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True, sharex=True)
        sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
        for ax, (start, label) in zip(axes, sides.items(), strict=True):
            rows = table[(table["start"] == start) & (table["switched"] != "")]
            rows = rows.set_index("switched").reindex(list(reversed(GAPS)))
            ax.axvline(0, color="0.6", linewidth=0.8)
            for offset, (measure, colour, marker) in zip(
                (0.14, -0.14), (("wa", "#0072b2", "o"), ("ua", "#d55e00", "s")), strict=True
            ):  # two of Okabe and Ito's colours, and two shapes
                centre = rows[f"{measure}_difference"].to_numpy(float)
                whiskers = np.abs(rows[[f"{measure}_low", f"{measure}_high"]].to_numpy(float).T - centre)
                ax.errorbar(
                    centre,
                    np.arange(len(rows)) + offset,
                    xerr=np.nan_to_num(whiskers),
                    fmt=marker,
                    color=colour,
                    markersize=3,
                    linewidth=1,
                    label=MEASURES[measure],
                )
            ax.set_yticks(range(len(rows)), list(rows.index))
            ax.set(title=label, xlabel="difference on the test split (percentage points)")
            ax.grid(axis="x", linewidth=0.3)
        axes[1].legend(frameon=False, loc="best")
        figure.suptitle(f"{title}: one choice switched, mean over seeds and 95% interval", fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` in every one of :data:`FORMS`."""
    written = []
    with mpl.rc_context(_STYLE):
        for form in FORMS:
            written.append(path.with_suffix(f".{form}"))
            with written_atomically(written[-1]) as temporary:
                figure.savefig(temporary)
    return written

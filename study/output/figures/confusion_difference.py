"""Differences of two configurations' confusion matrices, a small panel for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from study.findings.confusions import ConfusionDifference
from study.findings.wording import cut, seeds_in_words
from study.output.figures.heat import ground, ink
from study.output.figures.style import TEXT_WIDTH, legend_below, mark, style

_MAP = "RdBu"
"""White means no difference. Colour-blind readers can distinguish blue and red."""

_ACROSS = {5: (3, 4), 12: (2, 3)}
"""Panels per row and rows, by the largest number of classes. With more classes, a row has one panel."""

_TALLEST = 9.0
"""Height of a page, in inches."""

_SMALLEST_TYPE = 3.5  # points

_LONGEST = 14
"""Most characters of a class's name."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of the figure.

    Attributes:
        title: Names of the two configurations.
        difference: Difference of their confusion matrices.
    """

    title: str
    difference: ConfusionDifference


def confusion_difference_figure(panels: Sequence[Panel], class_names: Sequence[str], *, title: str) -> Figure:
    """Draw differences of confusion matrices in percentage points of each class's test utterances.

    Cells that differ by more than another seed's luck are bold. Cells that are too small for a number have none. Panels
    beyond the room of a page are left out, and the title says so.

    Args:
        panels: At least one panel. All panels have C classes.
        class_names: C names.
        title: Data set and K pair, as figures show them.
    """
    c, names = len(class_names), [cut(name, _LONGEST) for name in class_names]
    most_across, most_down = next((_ACROSS[most] for most in _ACROSS if c <= most), (1, 2))
    across = min(len(panels), most_across)
    shown = panels[: across * most_down]
    down = -(-len(shown) // across)
    longest = 0.052 * max(map(len, names))  # inches of a name
    folded = 26 if across == 3 else 40
    titles = [fill(panel.title, folded, max_lines=3, placeholder=" …") for panel in shown]
    around = 0.13 * max(text.count("\n") + 1 for text in titles) + 0.75 * longest + 0.25
    side = min((TEXT_WIDTH - 0.9 - longest) / across - 0.1, (_TALLEST - 0.85) / down - around, 0.6 * c + 0.4)
    most = max(1.0, *(100 * float(np.nanmax(np.abs(panel.difference.points), initial=0)) for panel in shown))
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, down * (side + around) + 0.85), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        for ax in axes.ravel()[len(shown) :]:
            ax.remove()
        kept = list(axes.ravel()[: len(shown)])
        size = min(7.0, 0.3 * 72 * side / c)
        for place, (ax, panel, text) in enumerate(zip(kept, shown, titles, strict=True)):
            mesh = _draw(ax, panel.difference, most, size if size >= _SMALLEST_TYPE else 0)
            ax.set_title(text, fontsize=7)
            ax.set_xticks(np.arange(c) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor")
            ax.set_yticks(np.arange(c) + 0.5, names if place % across == 0 else [""] * c)
            ax.set_ylabel("label" if place % across == 0 else "")
            ax.set_xlabel("predicted" if place + across >= len(shown) else "")
            ax.tick_params(length=0, labelsize=min(7.0, 0.6 * 72 * side / c))
        figure.colorbar(mesh, ax=kept, shrink=min(1.0, 2 / down), aspect=25, label="points of the label's utterances")
        left_out = f" (the first {len(shown)} of {len(panels)})" if len(panels) > len(shown) else ""
        seeds = {panel.difference.seeds for panel in shown}
        over = seeds_in_words(max(seeds)) if len(seeds) == 1 else "n seeds"
        marks = (
            [mark("bold: more than another seed's luck (paired t, 95%, Holm in the panel)")] if max(seeds) > 1 else []
        )
        if any(np.isnan(panel.difference.points).any() for panel in shown):
            marks.append(mark("empty: no utterance has the label"))
        legend_below(figure, marks)
        figure.suptitle(
            f"{title}: differences of confusion matrices{left_out}\ntest split, mean over {over}", fontsize=8
        )
    return figure


def _draw(ax: Axes, difference: ConfusionDifference, most: float, size: float) -> QuadMesh:
    points = 100 * difference.points
    digits = 1 if len(points) <= min(_ACROSS) else 0
    mesh = ax.pcolormesh(points, cmap=_MAP, vmin=-most, vmax=most, edgecolors="0.85", linewidth=0.3)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(points)) if size else ():
        value = float(points[row, column])
        ax.text(
            column + 0.5, row + 0.5, _signed(value, digits), ha="center", va="center", in_layout=False, fontsize=size,
            fontweight="bold" if difference.beyond_noise[row, column] else "normal",
            color=ink(ground(value, (-most, most), colours=_MAP)),
        )  # fmt: skip
    return mesh


def _signed(points: float, digits: int) -> str:
    rounded = round(points, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else "0"

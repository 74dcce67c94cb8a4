"""One configuration's confusion matrix less another's, a small panel for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.findings.confusions import ConfusionDifference
from study.findings.wording import cut, seeds_in_words
from study.output.figures.heat import annotated, ground, ink
from study.output.figures.style import TEXT_WIDTH, style

_MAP = "RdBu"
"""White where there is no difference; blue and red are told apart by the colour-blind."""

MOST_PANELS = 12
"""Of a page."""

_FEW_CLASSES, _MANY_CLASSES = 5, 12
"""Up to so many classes three panels stand side by side, up to so many two."""

_SMALLEST_TYPE = 3.5  # points

_LONGEST = 14
"""Characters of a class's name."""


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel shows.

    Attributes:
        title: which configuration less which.
        difference: of their confusion matrices.
    """

    title: str
    difference: ConfusionDifference


def confusion_difference_figure(panels: Sequence[Panel], class_names: Sequence[str], *, title: str) -> Figure:
    """Draw differences of confusion matrices: how many points more of a class's test utterances were taken for which.

    Cells that differ by more than another seed's luck are bold. Where cells are too small to read a number in, there is
    none.

    Args:
        panels: at least one, all of C classes; only the first :data:`MOST_PANELS` are shown, and the title says so.
        class_names: C names.
        title: the data set and the pair, as figures show them.
    """
    shown = panels[:MOST_PANELS]
    c, names = len(class_names), [cut(name, _LONGEST) for name in class_names]
    across = min(len(shown), 3 if c <= _FEW_CLASSES else 2 if c <= _MANY_CLASSES else 1)
    down = -(-len(shown) // across)
    most = max(1.0, *(100 * float(np.nanmax(np.abs(panel.difference.points), initial=0)) for panel in shown))
    longest = max(map(len, names))
    with style():
        side = min(2.1, (TEXT_WIDTH - 0.8 - 0.055 * longest) / across) if across > 1 else 4.5
        size = min(7.0, 0.3 * 72 * side / c)
        folded = max(14, int(side * 15))
        lines = max(len(_title(panel, folded).splitlines()) for panel in shown)
        height = down * (side + 0.13 * lines + 0.1) + 0.045 * longest + 1.0
        figure = Figure(figsize=(TEXT_WIDTH, height), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        for place, ax in enumerate(axes.ravel()):
            if place >= len(shown):
                ax.remove()
                continue
            _draw(ax, shown[place].difference, most, size if size >= _SMALLEST_TYPE else 0)
            ax.set_title(_title(shown[place], folded), fontsize=7)
            ax.set_yticks([i + 0.5 for i in range(c)], names if place % across == 0 else [""] * c, rotation=0)
            lowest = place + across >= len(shown)
            ax.set_xticks([i + 0.5 for i in range(c)], names if lowest else [""] * c)
            ax.set_xticklabels(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
            ax.tick_params(length=0, labelsize=min(7.0, 0.6 * 72 * side / c))
        bar = figure.colorbar(
            axes[0, 0].collections[0], ax=[ax for ax in axes.ravel() if ax.figure], shrink=min(1.0, 1.6 / down),
            aspect=25, label="points of the class's utterances",
        )  # fmt: skip
        bar.outline.set_visible(False)
        figure.supxlabel("predicted", fontsize=7)
        figure.supylabel("label", fontsize=7)
        left_out = f"; the first {MOST_PANELS} of {len(panels)}" if len(panels) > MOST_PANELS else ""
        seeds = {panel.difference.seeds for panel in shown}
        over = seeds_in_words(max(seeds)) if len(seeds) == 1 else "n seeds"
        bold = "bold: more than another seed's luck (paired, 95%, Holm in the panel)" if max(seeds) > 1 else ""
        under = "; ".join(filter(None, [f"test split, mean over {over}", bold]))
        figure.suptitle(f"{title}: differences of confusion matrices{left_out}\n{under}", fontsize=8)
    return figure


def _title(panel: Panel, width: int) -> str:
    return fill(panel.title, width, max_lines=3)


def _draw(ax: Axes, difference: ConfusionDifference, most: float, size: float) -> None:
    points = 100 * difference.points
    span = (-most, most)
    sns.heatmap(
        points, ax=ax, cmap=_MAP, vmin=-most, vmax=most, annot=size > 0, fmt="", square=True, cbar=False,
        annot_kws={"size": size}, linewidths=0.3, linecolor="0.85",
    )  # fmt: skip
    for cell, text in annotated(ax, points):
        text.set_in_layout(False)
        text.set_text(_signed(points[cell], digits=1 if len(points) <= _FEW_CLASSES else 0))
        text.set_color(ink(ground(points[cell], span, colours=_MAP)))
        if difference.beyond_noise[cell]:
            text.set_fontweight("bold")


def _signed(points: float, digits: int) -> str:
    rounded = round(points, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else "0"

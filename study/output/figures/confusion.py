"""The confusion matrix of the chosen configuration."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.figure import Figure

from study.output.figures.heat import COLOUR_MAP, annotated, ground, ink
from study.output.figures.style import COLUMN_WIDTH, style

_SPAN = (0.0, 100.0)


def confusion_figure(counts: npt.NDArray[np.int64], class_names: Sequence[str], *, title: str, trials: int) -> Figure:
    """Draw the percentage of each class's test utterances that was labelled as each class.

    Args:
        counts: Counts (C, C), summed over trials. Rows are labels, columns are predictions.
        class_names: C names.
        title: Data set and K pair, as figures show them.
        trials: Number of trials that the counts are summed over.
    """
    c = len(class_names)
    names = [fill(name if len(name) <= 26 else name[:25] + "…", 16, max_lines=2) for name in class_names]
    support = counts.sum(axis=1, keepdims=True)
    percent = 100 * counts / np.maximum(support, 1)
    with style():
        side = max(COLUMN_WIDTH, 0.5 * c + 1.3)
        figure = Figure(figsize=(side, side - 0.2), layout="constrained")
        ax = figure.subplots()
        sns.heatmap(
            percent,
            ax=ax,
            cmap=COLOUR_MAP,
            vmin=_SPAN[0],
            vmax=_SPAN[1],
            annot=True,
            fmt=".1f",
            annot_kws={"size": 7},
            linewidths=0.3,
            square=True,
            cbar_kws={"label": "percent of the label's utterances", "shrink": 0.8},
        )
        for cell, text in annotated(ax, percent):
            text.set_color(ink(ground(percent[cell], _SPAN)))
        ax.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticklabels(
            [f"{name}\n(n={n // trials})" for name, n in zip(names, support[:, 0], strict=True)], rotation=0
        )
        ax.set(xlabel="predicted", ylabel="label (n: its utterances)")
        ax.tick_params(length=0)
        over = f"{trials} trainings" if trials > 1 else "one training"
        figure.suptitle(f"{title}\ntest split, {over}", fontsize=8)
    return figure

"""Learning curves: validation WA over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.findings.statistics import SEEDS_FOR_INTERVAL, SHARES, Array, interval_ends
from study.output.figures.style import COLOURS, MARKERS, TEXT_WIDTH, keep_within, style


def curves_figure(panels: Mapping[str, Mapping[str, pd.DataFrame]], *, title: str) -> Figure:
    """Validation WA by epoch, mean and 95% interval over seeds, a panel for each question; a lone line with its seeds.

    Args:
        panels: by title, then by the line's label: a frame with a row per seed and a column per epoch, fractions.
        title: the data set and the pair, as figures show them.
    """
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 3.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for ax, (name, lines) in zip(axes, panels.items(), strict=True):
            for (label, frame), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
                epochs = frame.columns.to_numpy(float)
                values = 100 * frame.to_numpy(float)
                mean, n = values.mean(axis=0), len(values)
                if len(lines) == 1:
                    ax.plot(epochs, values.T, color="0.75", linewidth=0.6, zorder=1)
                ax.plot(epochs, mean, marker=marker, color=colour, markersize=3, linewidth=1, label=f"{label} (n={n})")
                if n >= SEEDS_FOR_INTERVAL:
                    low, high = (100 * end for end in curve_interval(frame))
                    ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.set(title=name, xlabel="epoch")
            ax.grid(linewidth=0.3)
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))  # over no curve
        keep_within(list(axes), 0, 100)
        axes[0].set_ylabel("validation WA (%)")
        most = max(len(frame) for lines in panels.values() for frame in lines.values())
        figure.suptitle(f"{title}: learning curves, {curve_words(most)} over n seeds", fontsize=8)
    return figure


def curve_interval(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Return both ends of a curve's 95% interval at every epoch, NaN with fewer than three seeds.

    Args:
        frame: a row per seed, a column per epoch, fractions.
    """
    values = frame.to_numpy(float)
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return interval_ends(values.mean(axis=0), std, len(values), SHARES)


def curve_words(seeds: int) -> str:
    """Return what a learning curve shows, given the most seeds that a line has."""
    return "mean and 95% interval" if seeds >= SEEDS_FOR_INTERVAL else "mean"

"""The reliability diagram: accuracy of the labels by their confidence."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from study.findings.calibration import BINS, Calibration
from study.findings.wording import seeds_in_words
from study.output.figures.style import COLUMN_WIDTH, colour, legend_below, shade, style

_FEW = 10
"""A bin with fewer utterances per seed, on average, has a hollow mark, because its accuracy is mostly luck."""


def calibration_figure(calibration: Calibration, *, title: str) -> Figure:
    """Draw accuracy over confidence, for each seed and for all, and below it the share of utterances in each bin.

    On the diagonal, confidence equals accuracy (reliability diagram: DeGroot and Fienberg, 1983; Guo et al., 2017).

    Args:
        calibration: Calibration of the study's own configuration.
        title: Data set and K pair, as figures show them.
    """
    bins, means = calibration.bins, calibration.seeds.mean()
    seeds = len(calibration.seeds)
    centres = 50 * (bins["low"] + bins["high"]).to_numpy()
    with style():
        figure = Figure(figsize=(COLUMN_WIDTH, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        above.plot([0, 100], [0, 100], color=shade(0.5), linewidth=0.8, linestyle="--", label="confidence is right")
        n = (bins["share"] * calibration.utterances).to_numpy()  # a seed
        enough = n >= _FEW
        if seeds > 1:
            for i, row in enumerate(100 * calibration.by_seed):
                kept = np.isfinite(row) & enough
                above.plot(
                    centres[kept], row[kept], ".-", color=shade(0.25), markersize=4, linewidth=0.6, zorder=1,
                    label="a seed" if i == 0 else None,
                )  # fmt: skip
        for kept, look, label in (
            (enough, {"marker": "o", "linewidth": 1.2}, "all seeds" if seeds > 1 else "one seed"),
            (
                (n > 0) & ~enough,
                {"marker": "o", "linestyle": "none", "fillstyle": "none"},
                f"fewer than {_FEW} utterances a seed",
            ),
        ):
            if kept.any():
                above.plot(
                    100 * bins["confidence"][kept], 100 * bins["accuracy"][kept], **look, color=colour(0),
                    markersize=4, clip_on=False, zorder=3, label=label,
                )  # fmt: skip
        above.set(ylabel="accuracy (%)", ylim=(0, 100), xlim=(0, 100))
        above.grid(linewidth=0.3)
        below.bar(centres, 100 * bins["share"], width=100 / BINS, color=colour(0), edgecolor=shade(0), linewidth=0.5)
        below.axvline(100 * means["confidence"], color=colour(1), linewidth=1, label="mean confidence")
        below.axvline(100 * means["accuracy"], color=shade(1), linewidth=1, linestyle=":", label="mean accuracy")
        below.set(xlabel="confidence (%): probability of the chosen class", ylabel="utterances (%)")
        legend_below(figure, [handle for ax in (above, below) for handle in ax.get_legend_handles_labels()[0]])
        figure.suptitle(
            f"{title}\ntest split, {seeds_in_words(seeds)}\ncalibration error {100 * means['ece']:.1f} points, "
            f"Brier score {means['brier']:.3f}",
            fontsize=8,
            wrap=True,
        )
    return figure

"""Fusion strategies and ablations: single seeds, means and intervals, beside the published figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.findings.analysis import MEASURES
from study.output.figures.style import COLOURS, TEXT_WIDTH, keep_within, style
from study.papers.cemobam.claims import LABELS


def variants_figure(
    per_seed: pd.DataFrame,
    summary: pd.DataFrame,
    key: str,
    variants: Sequence[str],
    *,
    published: pd.DataFrame,
    title: str,
    seeds: int,
) -> Figure:
    """The test split's WA, UA and w-F1 of each variant: a grey line a seed, the mean with its 95% interval.

    Fewer than three seeds have no interval.

    Args:
        per_seed: every seed's figures, fractions.
        summary: aggregated by ``key``, fractions.
        key: ``fusion`` or ``modules``.
        variants: from left to right.
        published: the paper's figures, in percent; empty where it has none.
        title: the data set and the pair, as figures show them.
        seeds: how many were asked for; variants with fewer say how many.
    """
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 2.5), layout="constrained")
        axes = figure.subplots(1, len(MEASURES))
        for ax, (measure, label) in zip(axes, MEASURES.items(), strict=True):
            _panel(ax, per_seed, summary, key=key, variants=variants, measure=measure)
            if len(published):
                theirs = published.set_index(key)[measure].reindex(list(variants)).to_numpy(float)
                ax.plot(
                    np.arange(len(variants)) + 0.22, theirs, "D", color=COLOURS[1], fillstyle="none", markersize=4,
                    linestyle="none", label="published",
                )  # fmt: skip
            ax.set_title(f"{label} (%)")
            counts = summary.set_index(key)["n_seeds"].reindex(list(variants)).fillna(0)
            names = [
                LABELS[variant] if counts[variant] == seeds else f"{LABELS[variant]}\n{counts[variant]:.0f} of {seeds}"
                for variant in variants
            ]
            ax.set_xticks(range(len(variants)), names)
            ax.set_xlim(-0.5, len(variants) - 0.4)
            ax.grid(axis="y", linewidth=0.3)
        keep_within(axes, 0, 100)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(f"{title}: test split", fontsize=8)
    return figure


def _panel(
    ax: Axes, per_seed: pd.DataFrame, summary: pd.DataFrame, *, key: str, variants: Sequence[str], measure: str
) -> None:
    places = np.arange(len(variants))
    figures = per_seed.pivot(index="seed", columns=key, values=f"test_{measure}").reindex(columns=list(variants))
    for i, row in enumerate(100 * figures.to_numpy(float)):
        ax.plot(
            places, row, ".-", color="0.75", markersize=4, linewidth=0.6, zorder=1, label="a seed" if i == 0 else None
        )
    columns = [f"test_{measure}_{figure}" for figure in ("mean", "low", "high")]
    mean, low, high = 100 * summary.set_index(key)[columns].reindex(list(variants)).to_numpy(float).T
    known = bool(np.isfinite(low).any())
    ax.errorbar(
        places, mean, yerr=[mean - low, high - mean] if known else None, fmt="o", color=COLOURS[0], markersize=4,
        linewidth=1.2, capsize=3, zorder=2, label="mean, 95% interval" if known else "mean",
    )  # fmt: skip

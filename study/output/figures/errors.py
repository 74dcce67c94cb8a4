"""Recall by group: class, speaker, session and length, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from study.findings.errors import By, Recall
from study.findings.wording import cut, seeds_in_words
from study.output.figures.style import TEXT_WIDTH, colour, legend_below, mark, plain, shade, style

_ROW, _HEAD = 0.155, 0.32
"""Height of a group's row, and of a panel's title and edges, in inches."""

_TALLEST = 9.0
"""Height of a page, in inches."""


def errors_figure(
    kinds: Mapping[By, Sequence[Recall]], *, overall: float, over: str, notes: Sequence[str] = (), title: str
) -> Figure:
    """Draw the recall of every group as a dot with its 95% interval, a panel for each kind of group.

    Args:
        kinds: Groups by kind (such as class or speaker), from the top.
        overall: Share of all utterances that are labelled correctly, drawn as a dashed line.
        over: Repetition of the experiment that the intervals describe.
        notes: Remarks below the axis.
        title: Data set and K pair, as figures show them.
    """
    rows = [len(groups) for groups in kinds.values()]
    every = [one for groups in kinds.values() for one in groups]
    known = any(np.isfinite(one.low) for one in every)
    with style():
        beside = len(rows) * _HEAD + 0.85 + 0.13 * len(notes)
        row = min(_ROW, (_TALLEST - beside) / sum(rows))
        figure = Figure(figsize=(TEXT_WIDTH, sum(rows) * row + beside), layout="constrained")
        axes = figure.subplots(
            len(rows), 1, sharex=True, squeeze=False,
            gridspec_kw={"height_ratios": [n + _HEAD / row / 2 for n in rows]},
        )[:, 0]  # fmt: skip
        for ax, (by, groups) in zip(axes, kinds.items(), strict=True):
            places = np.arange(len(groups))
            mean, low, high = (100 * np.array([getattr(one, x) for one in groups]) for x in ("mean", "low", "high"))
            ax.axvline(100 * overall, color=shade(0.5), linewidth=0.8, linestyle="--", zorder=1, label="all utterances")
            ax.errorbar(
                mean, places, xerr=np.array([mean - low, high - mean]) if known else None, fmt="o",
                color=colour(0), markersize=4, linewidth=1.2, capsize=2.5, zorder=2, clip_on=False,
                label=f"mean, 95% interval ({over})" if known else "mean",
            )  # fmt: skip
            ax.set_yticks(places, [f"{plain(cut(one.group))} (n={one.utterances})" for one in groups])
            ax.tick_params(axis="y", length=0, labelsize=min(7.0, 0.75 * 72 * row))
            ax.set_ylim(len(groups) - 0.5, -0.5)
            ax.set_title(f"by {by}", loc="left")
            ax.grid(axis="x", linewidth=0.3)
        ends = np.array([x for one in every for x in (one.mean, one.low, one.high) if np.isfinite(x)])
        axes[-1].set_xlim(max(0.0, 100 * ends.min() - 3), min(100.0, 100 * ends.max() + 3))
        axes[-1].set_xlabel("\n".join(["percent of the group's utterances that are labelled right", *notes]))
        legend_below(figure, [*axes[0].get_legend_handles_labels()[0], mark("n: utterances of the group")])
        figure.suptitle(f"{title}: test split, {seeds_in_words(every[0].seeds)}", fontsize=8)
    return figure

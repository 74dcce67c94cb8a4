"""Mean ranks of systems on one axis, with bars over those that do not differ significantly (Demšar, 2006, Figure 1)."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.findings.ranks import Ranks
from study.findings.wording import cut, p_value
from study.output.figures.style import TEXT_WIDTH, colour, plain, shade, style

_STEP = 0.17
"""Distance between two labels, in inches."""


def critical_figure(ranks: Ranks, *, title: str, of: str) -> Figure:
    """Draw mean ranks, the critical difference, and bars over systems that do not differ significantly.

    Args:
        ranks: Ranks of the systems.
        title: Description of what was ranked.
        of: ``folds`` or ``corpora``, over which the systems were ranked.
    """
    k = len(ranks.names)
    left = -(-k // 2)  # number of labels on the left; the others are on the right
    bars = len(ranks.groups)
    with style():
        height = 1.0 + 0.1 * bars + _STEP * (left + 0.5)
        figure = Figure(figsize=(TEXT_WIDTH, height))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set_axis_off()
        ax.set_xlim(0, TEXT_WIDTH)
        ax.set_ylim(height, 0)
        margin, axis = 1.75, 0.62
        span = TEXT_WIDTH - 2 * margin

        def x(rank: float) -> float:
            return margin + span * (rank - 1) / (k - 1)

        figure.suptitle(f"{title}: mean ranks over {ranks.n} {of}", y=1 - 0.12 / height, va="center", fontsize=8)
        ax.text(
            TEXT_WIDTH - 0.05, 0.3, f"Friedman (Iman, Davenport): p {p_value(ranks.p)}", ha="right", va="center",
            fontsize=6,
        )  # fmt: skip
        ax.plot([x(1), x(k)], [axis, axis], color=shade(1), linewidth=0.8)
        step = 1 if k <= 15 else 2
        for rank in range(1, k + 1, step):
            ax.plot([x(rank)] * 2, [axis - 0.05, axis], color=shade(1), linewidth=0.6)
            ax.text(x(rank), axis - 0.08, f"{rank}", ha="center", va="bottom", fontsize=6)
        wide = min(ranks.critical, k - 1)
        ax.plot([x(1), x(1 + wide)], [0.36, 0.36], color=colour(1), linewidth=1.2)
        more = ", more than the axis" if ranks.critical > k - 1 else ""
        ax.text(
            x(1) - 0.06, 0.36, f"CD {ranks.critical:.2f}{more}", ha="right", va="center", fontsize=6, color=colour(1)
        )
        for level, (first, last) in enumerate(ranks.groups):
            y = axis + 0.09 + 0.1 * level
            ends = (x(ranks.means[first]) - 0.03, x(ranks.means[last]) + 0.03)
            ax.plot(ends, [y, y], color=colour(0), linewidth=2.2, solid_capstyle="butt")
        top = axis + 0.12 + 0.1 * bars + 0.1
        for place, (name, mean) in enumerate(zip(ranks.names, ranks.means, strict=True)):
            on_left = place < left
            y = top + _STEP * (place if on_left else k - 1 - place)
            edge = margin - 0.15 if on_left else TEXT_WIDTH - margin + 0.15
            ax.plot([x(mean), x(mean), edge], [axis, y, y], color=shade(0.65), linewidth=0.5)
            text = plain(cut(name, 26))
            ax.text(
                edge + (-0.04 if on_left else 0.04), y, f"{text}  {mean:.2f}" if on_left else f"{mean:.2f}  {text}",
                ha="right" if on_left else "left", va="center", fontsize=6.5,
            )  # fmt: skip
        handles = [Line2D([], [], color=colour(1), linewidth=1.2, label="CD: critical difference (Nemenyi, 5%)")]
        if bars:
            joined = "mean ranks that differ by less than CD"
            handles.append(Line2D([], [], color=colour(0), linewidth=2.2, label=joined))
        handles.append(
            Line2D([], [], color=shade(0.65), linewidth=0.5, label="mean rank of a system, 1 being the best")
        )
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=6)
    return figure

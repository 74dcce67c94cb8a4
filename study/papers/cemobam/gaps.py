"""What each gap between the paper's text and the released code costs: its table and its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from study.findings.analysis import MEASURES
from study.findings.statistics import SEEDS_FOR_INTERVAL, paired
from study.findings.wording import measured_in
from study.ledger.outcomes import Metric
from study.output.figures import interactive
from study.output.figures.style import COLOURS, TEXT_WIDTH, keep_within, plain, style
from study.output.tables import Table, where, with_deviation, with_interval
from study.papers.cemobam.paper import GAPS

if TYPE_CHECKING:
    from study.findings.evidence import Evidence

NAME = "gaps"


def table(evidence: Evidence) -> Table:
    """Return the block's table."""
    about, block = evidence.about, evidence.about.block(NAME)
    assert block
    seeds = len(about.seeds)
    over = f"over {seeds} seed{'s' if seeds > 1 else ''}"
    caption = f"{block.title} ({where(about, block)}): test split, percent, mean {over}"
    made = gaps_table(evidence.results.trials_of(NAME), caption=caption, seeds=seeds, folds=about.folds)
    return replace(made, notes=(*made.notes, *measured_in(about.settings)))


def figure(evidence: Evidence) -> Figure:
    """Return the block's figure on paper."""
    return gaps_figure(table(evidence).frame, title=plain(evidence.about.title))


def page(evidence: Evidence, title: str) -> go.Figure:
    """Return the block's figure for a browser."""
    return gaps_page(table(evidence).frame, title=title)


def gaps_table(trials: pd.DataFrame, *, caption: str, seeds: int, folds: int) -> Table:
    """Return what each gap between the paper's text and the released code costs or brings, from either side.

    A difference is the mean over seeds of (with the other's choice) - (without), on the test split, each seed against
    itself, with its 95% interval by Student's t for paired samples (Student, 1908). The intervals are each by itself:
    of twenty, one is expected to miss zero by chance.

    Args:
        trials: the block's rows of ``trials.csv``.
        caption: what it shows, in one sentence.
        seeds: how many were asked for; where fewer are shared by both sides, it is noted.
        folds: how many folds a complete seed has.
    """
    done = trials[trials["status"] == "done"]
    means = done.groupby(["profile", "seed"])[[f"test_{m}" for m in MEASURES]].agg("mean")
    means = means[done.groupby(["profile", "seed"]).size() == folds]
    starts = ("paper", "released")
    rows = {
        (start, gap): _mean_and_difference(means, f"{start}+{gap}" if gap else start, start)
        for start in starts
        for gap in ("", *GAPS)
    }
    frame = pd.DataFrame([{"start": start, "switched": gap, **row} for (start, gap), row in rows.items()])
    cells: list[tuple[str, ...]] = []
    for gap in ("", *GAPS):
        sides = [(rows[start, gap], m) for start in starts for m in ("wa", "ua")]
        if gap:
            printed = [with_interval(*(row[f"{m}_{x}"] for x in ("difference", "low", "high"))) for row, m in sides]
        else:
            printed = [with_deviation(row[f"{m}_mean"], row[f"{m}_std"]) for row, m in sides]
        cells.append((gap or "as it is", *printed))
    interval = ", with its 95% interval" if (frame["n_seeds"] >= SEEDS_FOR_INTERVAL).any() else ""
    notes = [f"First row: mean ± standard deviation; the others: the difference to it{interval}."]
    if (frame["n_seeds"] < seeds).any():
        notes.append(f"Some rows rest on fewer than {seeds} seeds; the csv says which.")
    return Table(
        name="gaps",
        caption=caption,
        notes=tuple(notes),
        frame=frame,
        head="Switched to the other's",
        groups=(("From paper", ("WA", "UA")), ("From released", ("WA", "UA"))),
        cells=tuple(cells),
        wide=True,
    )


def _mean_and_difference(means: pd.DataFrame, label: str, start: str) -> dict[str, float]:
    """Return one configuration against another, seed by seed, in percent; NaN where there are not enough of them."""
    empty = means.iloc[:0].droplevel(0)
    mine = means.loc[label] if label in means.index.get_level_values(0) else empty
    base = means.loc[start] if start in means.index.get_level_values(0) else empty
    shared = mine.index.intersection(base.index)
    row: dict[str, float] = {"n_seeds": len(shared)}
    for m in MEASURES:
        x, y = mine.loc[shared, f"test_{m}"].to_numpy(), base.loc[shared, f"test_{m}"].to_numpy()
        row[f"{m}_mean"] = 100 * x.mean() if len(x) else np.nan
        row[f"{m}_std"] = 100 * x.std(ddof=1) if len(x) > 1 else np.nan
        if label == start:
            continue
        difference = paired(x, y)
        row[f"{m}_difference"] = 100 * difference.mean
        row[f"{m}_low"], row[f"{m}_high"] = 100 * difference.low, 100 * difference.high
    return row


_SHOWN: tuple[tuple[Metric, float], ...] = (("wa", 0.14), ("ua", -0.14))


def gaps_figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Draw each gap's difference in test WA and UA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`gaps_table` makes it, in percent.
        title: the data set, as figures show it.
    """
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 0.9 + 0.24 * len(GAPS)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True, sharex=True)
        sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
        for ax, (start, label) in zip(axes, sides.items(), strict=True):
            rows = table[(table["start"] == start) & (table["switched"] != "")]
            rows = rows.set_index("switched").reindex(list(reversed(GAPS)))
            ax.axvline(0, color="0.6", linewidth=0.8)
            for (measure, offset), colour, marker in zip(_SHOWN, COLOURS, "os", strict=False):
                centre = rows[f"{measure}_difference"].to_numpy(float)
                whiskers = np.abs(rows[[f"{measure}_low", f"{measure}_high"]].to_numpy(float).T - centre)
                ax.errorbar(
                    centre,
                    np.arange(len(rows)) + offset,
                    xerr=whiskers,
                    fmt=marker,
                    color=colour,
                    markersize=3,
                    linewidth=1,
                    label=MEASURES[measure],
                )
            ax.set_yticks(range(len(rows)), list(rows.index))
            ax.set(title=label, xlabel="difference on the test split (percentage points)")
            ax.grid(axis="x", linewidth=0.3)
        keep_within(axes, -100, 100, "x")
        axes[1].legend(frameon=False, loc="best")
        interval = " and 95% interval" if table["wa_low"].notna().any() else ""
        figure.suptitle(f"{title}: one choice switched, mean over seeds{interval}", fontsize=8)
    return figure


def gaps_page(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw each gap's difference in test WA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`gaps_table` makes it, in percent.
        title: the data set and the pair.
    """
    figure = go.Figure()
    sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
    for (start, label), colour, symbol, offset in zip(
        sides.items(), COLOURS, interactive.SYMBOLS, (0.12, -0.12), strict=False
    ):
        rows = table[(table["start"] == start) & (table["switched"] != "")].set_index("switched").reindex(list(GAPS))
        centre, low, high = (rows[f"wa_{x}"].to_numpy(float) for x in ("difference", "low", "high"))
        parts = [
            part
            for part in interactive.with_and_without(centre, low, high, width=4)
            if any(x is not None for x in part[0])
        ]
        for i, (x, error, _) in enumerate(parts):
            figure.add_scatter(
                x=x, y=[len(GAPS) - 1 - i + offset for i in range(len(GAPS))], error_x=error, name=label,
                mode="markers", marker={"color": colour, "symbol": symbol, "size": 8}, showlegend=i == 0,
                hovertemplate="%{x:+.2f} points<extra>%{fullData.name}</extra>",
            )  # fmt: skip
    interval = " and 95% interval" if table["wa_low"].notna().any() else ""
    figure.update_layout(
        **{**interactive.LAYOUT, "margin": {**interactive.LAYOUT["margin"], "l": 150}},
        title=interactive.titled(f"{title}: one choice switched", f"test WA, mean over seeds{interval}"),
        xaxis={"title": {"text": "difference (percentage points)"}, **interactive.between(-100, 100)},
        yaxis={"tickvals": list(range(len(GAPS))), "ticktext": list(reversed(GAPS)), "zeroline": False},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    )
    return figure

"""The table and the figures of the differences between the paper's text and the released code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.findings.analysis import MEASURES, Analysis
from study.findings.results import AboutBlock
from study.findings.wording import WHOSE, evaluation_graph_notes, seeds_in_words
from study.ledger.outcomes import Metric
from study.output.figures.style import (
    COLOURS,
    TEXT_WIDTH,
    centre_on_zero,
    colour,
    keep_within,
    legend_below,
    plain,
    shade,
    style,
)
from study.output.tables import Table, captioned, where, with_deviation, with_interval
from study.papers.cemobam.paper import GAPS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from study.findings.evidence import Evidence

NAME = "gaps"


def table(evidence: Evidence) -> Table:
    """Return the block's table."""
    about, block = evidence.about, evidence.about.block(NAME)
    assert block
    caption = captioned(
        block.title, f"percent on the test split of {where(about, block)}; mean over {seeds_in_words(len(block.seeds))}"
    )
    made = gaps_table(evidence.analysis, caption=caption)
    return replace(made, notes=(*made.notes, *evaluation_graph_notes(about.settings)))


def figure(evidence: Evidence) -> Figure:
    """Return the block's figure on paper."""
    return gaps_figure(table(evidence).frame, title=plain(evidence.about.title))


def page(evidence: Evidence, title: str) -> go.Figure:
    """Return the block's figure for a browser."""
    return gaps_page(table(evidence).frame, title=title)


def gaps_table(analysis: Analysis, *, caption: str) -> Table:
    """Return the effect of each gap between the paper's text and the released code, from either side.

    A difference is the mean over seeds of (with the other's choice) − (without), on the test split, paired by seed. Its
    95% interval holds for another seed and other utterances, or for another seed alone if predictions are not kept.
    The intervals are not corrected for multiple comparisons. Of twenty, one is expected to miss zero by chance.

    Args:
        analysis: The analysis of a study that has the block.
        caption: The caption.
    """
    block = analysis.results.about.block(NAME)
    assert block
    starts = ("paper", "released")
    means = analysis.results.block(NAME).set_index("profile")
    rows = {
        (start, gap): _mean_and_difference(analysis, block, means, start, gap)
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
        cells.append((gap or "unchanged", *printed))
    known = frame["wa_low"].notna().any()
    whose = WHOSE["seed" if analysis.results.kept is None else "utterances"]
    notes = [
        "First row: mean ± standard deviation over seeds. Other rows: the difference to the first row"
        f"{f', with its 95% interval for {whose}' if known else ''}."
    ]
    if (frame["n_seeds"] < len(block.seeds)).any():
        notes.append(f"Some rows have fewer than {len(block.seeds)} seeds; the csv says which.")
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


def _mean_and_difference(
    analysis: Analysis, block: AboutBlock, means: pd.DataFrame, start: str, gap: str
) -> dict[str, float]:
    """Return a configuration's scores, and its difference to its start, in percent. NaN without enough seeds."""
    name = f"{start}+{gap}" if gap else start
    row: dict[str, float] = {"n_seeds": means["n_seeds"].get(name, 0)}
    for metric in MEASURES:
        for figure in ("mean", "std"):
            row[f"{metric}_{figure}"] = 100 * means[f"test_{metric}_{figure}"].get(name, np.nan)
        if not gap:
            continue
        made = analysis.between(block, name, start, metric=metric)
        row["n_seeds"] = made.difference.n if made else 0
        for label, figure in (("difference", "mean"), ("low", "low"), ("high", "high")):
            row[f"{metric}_{label}"] = 100 * getattr(made.difference, figure) if made else np.nan
    return row


_SHOWN: tuple[tuple[Metric, float], ...] = (("wa", 0.14), ("ua", -0.14))


def gaps_figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Draw each gap's difference in test WA and UA with its interval, from the paper's side and from the code's.

    Args:
        table: Table from :func:`gaps_table`, in percent.
        title: Data set, as figures show it.
    """
    with style():
        figure = Figure(figsize=(TEXT_WIDTH, 1.1 + 0.24 * len(GAPS)), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True, sharex=True)
        interval = " and 95% interval" if table["wa_low"].notna().any() else ""
        sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
        for ax, (start, label) in zip(axes, sides.items(), strict=True):
            rows = table[(table["start"] == start) & (table["switched"] != "")]
            rows = rows.set_index("switched").reindex(list(reversed(GAPS)))
            ax.axvline(0, color=shade(0.4), linewidth=0.8, label="no difference")
            for place, ((measure, offset), marker) in enumerate(zip(_SHOWN, "os", strict=True)):
                centre = rows[f"{measure}_difference"].to_numpy(float)
                whiskers = np.abs(rows[[f"{measure}_low", f"{measure}_high"]].to_numpy(float).T - centre)
                ax.errorbar(
                    centre,
                    np.arange(len(rows)) + offset,
                    xerr=whiskers,
                    fmt=marker,
                    color=colour(place),
                    markersize=3,
                    linewidth=1,
                    label=f"{MEASURES[measure]}: mean{interval}",
                )
            ax.set_yticks(range(len(rows)), list(rows.index))
            ax.set(title=label, xlabel="difference on the test split (percentage points)")
            ax.grid(axis="x", linewidth=0.3)
        centre_on_zero(axes, "x")
        keep_within(axes, -100, 100, "x")
        legend_below(figure, axes[0].get_legend_handles_labels()[0])
        figure.suptitle(f"{title}: one choice switched, mean over seeds", fontsize=8)
    return figure


def gaps_page(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Draw each gap's difference in test WA with its interval, from the paper's side and from the code's.

    Args:
        table: Table from :func:`gaps_table`, in percent.
        title: Data set and K pair.
    """
    import plotly.graph_objects as go  # noqa: PLC0415  (the extra `dashboard`)

    from study.output.figures import interactive  # noqa: PLC0415

    figure = go.Figure()
    sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
    for (start, label), own, symbol, offset in zip(
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
                mode="markers", marker={"color": own, "symbol": symbol, "size": 8}, showlegend=i == 0,
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

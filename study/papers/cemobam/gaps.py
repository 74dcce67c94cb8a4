"""What each gap between the paper's text and the released code costs: its table and its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.findings.analysis import MEASURES, Analysis
from study.findings.results import AboutBlock
from study.findings.wording import WHOSE, measured_in, seeds_in_words
from study.ledger.outcomes import Metric
from study.output.figures.style import COLOURS, TEXT_WIDTH, keep_within, plain, style
from study.output.tables import Table, where, with_deviation, with_interval
from study.papers.cemobam.paper import GAPS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from study.findings.evidence import Evidence

NAME = "gaps"


def table(evidence: Evidence) -> Table:
    """Return the block's table."""
    about, block = evidence.about, evidence.about.block(NAME)
    assert block
    caption = (
        f"{block.title} ({where(about, block)}): test split, percent, mean over {seeds_in_words(len(block.seeds))}"
    )
    made = gaps_table(evidence.analysis, caption=caption)
    return replace(made, notes=(*made.notes, *measured_in(about.settings)))


def figure(evidence: Evidence) -> Figure:
    """Return the block's figure on paper."""
    return gaps_figure(table(evidence).frame, title=plain(evidence.about.title))


def page(evidence: Evidence, title: str) -> go.Figure:
    """Return the block's figure for a browser."""
    return gaps_page(table(evidence).frame, title=title)


def gaps_table(analysis: Analysis, *, caption: str) -> Table:
    """Return what each gap between the paper's text and the released code costs or brings, from either side.

    A difference is the mean over seeds of (with the other's choice) - (without), on the test split, each seed against
    itself, with its 95% interval over another seed and other utterances; over another seed alone where predictions are
    not kept. The intervals are each by itself: of twenty, one is expected to miss zero by chance.

    Args:
        analysis: of a study that has the block.
        caption: what the table shows, in one sentence.
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
        cells.append((gap or "as it is", *printed))
    known = frame["wa_low"].notna().any()
    whose = WHOSE["seed" if analysis.results.kept is None else "utterances"]
    notes = [
        "First row: mean ± standard deviation over seeds; the others: the difference to it"
        f"{f', with its 95% interval ({whose})' if known else ''}."
    ]
    if (frame["n_seeds"] < len(block.seeds)).any():
        notes.append(f"Some rows rest on fewer than {len(block.seeds)} seeds; the csv says which.")
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
    """Return one configuration against another, seed by seed, in percent; NaN where there are not enough of them."""
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
    import plotly.graph_objects as go  # noqa: PLC0415  (the extra `dashboard`)

    from study.output.figures import interactive  # noqa: PLC0415

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

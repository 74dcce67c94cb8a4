"""The same figures for a browser, as plotly's: what the Optuna dashboard shows of a study.

Numbers and wording are those of the figures on paper; here a cell says more when it is pointed at. The dashboard gives
each figure half of a window, so measures that stand side by side on paper are chosen by a button.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import rgb2hex

from cemobam_core.config import Metric
from study.design import GAPS, Pair
from study.findings.analysis import MEASURES
from study.findings.statistics import SEEDS_FOR_INTERVAL, Array
from study.output.figures.curves import curve_interval, curve_words
from study.output.figures.heat import FRAME, colour_span, ground, ink
from study.output.figures.style import COLOURS
from study.papers.cemobam.claims import LABELS

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
_SEEDS_SHOWN = 20  # a browser is not to draw hundreds of lines, nor a ledger to hold them
_MANY, _MANY_ROWS = 12, 20  # cells in a row and in a column in which a number can still be read
# plotly's own cividis is not matplotlib's; between these stops either interpolates alike
_COLOUR_SCALE = [[i / 32, rgb2hex(ground(i / 32, (0, 1)))] for i in range(33)]
_LAYOUT: dict[str, Any] = {
    # plotly's own template is longer than the figures are
    "template": "none",
    "font": {"size": 12},
    "margin": {"l": 60, "r": 20, "t": 95, "b": 90},
    "paper_bgcolor": "white",
    "hovermode": "closest",
}


def heatmap(
    grid: pd.DataFrame,
    chosen: Pair | None,
    *,
    title: str,
    seeds: int,
    k_audio: Sequence[int],
    k_text: Sequence[int],
    how: str,
    first: Metric,
) -> go.Figure:
    """Fig. 2, a button for each measure: the mean over seeds on the test split; the chosen cell framed.

    Args:
        grid: aggregated by pair, fractions.
        chosen: the pair to frame.
        title: the data set.
        seeds: how many each cell should have.
        k_audio: the columns.
        k_text: the rows, from below.
        how: how the pair was chosen.
        first: the measure that is shown first.
    """
    columns, rows = sorted(k_audio), sorted(k_text)

    def on_the_grid(column: pd.Series) -> list[list[Any]]:
        """By rows from below; None where no trial is done."""
        shaped = grid.assign(shown=column).pivot(index="k_text", columns="k_audio", values="shown")
        shaped = shaped.reindex(index=rows, columns=columns).astype(object)
        return shaped.where(shaped.notna(), None).to_numpy().tolist()

    figure = go.Figure()
    for measure, label in MEASURES.items():
        mean, std = (100 * grid[f"test_{measure}_{x}"] for x in ("mean", "std"))
        best = np.isclose(mean, mean.max(), rtol=0, atol=1e-9)
        low, high = colour_span(mean.round(2))
        said = [
            f"{m:.2f}{f' ± {s:.2f}' if pd.notna(s) else ''}, {_seeds(n)}"
            for m, s, n in zip(mean, std, grid["n_seeds"], strict=True)
        ]
        figure.add_heatmap(
            # not as numbers of the axis: the grid may leave some K out
            x=[str(k) for k in columns],
            y=[str(k) for k in rows],
            z=on_the_grid(mean.round(2)),
            customdata=on_the_grid(pd.Series(said, index=grid.index)),
            hovertemplate=f"K %{{x}},%{{y}}<br>{label} %{{customdata}}<extra></extra>",
            hoverongaps=False,
            colorscale=_COLOUR_SCALE,
            zmin=low,
            zmax=high,
            colorbar={"title": {"text": f"{label} (%)", "side": "right"}, "thickness": 14},
            xgap=1,
            ygap=1,
            visible=measure == first,
        )
        # in a trace of their own, where each number can have its own ink; a heatmap has one for all
        readable = len(columns) <= _MANY and len(rows) <= _MANY_ROWS
        figure.add_scatter(
            x=[str(k) for k in grid["k_audio"]],
            y=[str(k) for k in grid["k_text"]],
            text=[f"{m:.1f}{'★' if b else ''}" if readable else "" for m, b in zip(mean, best, strict=True)],
            mode="text",
            textfont={"color": [ink(ground(m, (low, high))) for m in mean.round(2)], "size": 11},
            hoverinfo="skip",
            showlegend=False,
            visible=measure == first,
        )
    done, asked = grid["n_seeds"].sum(), len(columns) * len(rows) * seeds
    legend = [f"{done} of {asked} so far"] if done < asked else []
    if chosen and chosen.k_audio in columns and chosen.k_text in rows:
        x, y = columns.index(chosen.k_audio), rows.index(chosen.k_text)
        for colour, width in (("white", 5), (FRAME, 3)):
            figure.add_shape(x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": colour, "width": width})
        legend.append(f'<span style="color:{FRAME}">□</span> {how}: {chosen}')
    legend.append("★ highest")
    figure.update_layout(
        **_LAYOUT,
        title=_title(f"{title}: the K grid (Fig. 2)", "test split, mean over seeds", legend),
        xaxis={"title": {"text": "K<sub>audio</sub>"}, "type": "category", "showgrid": False, "zeroline": False},
        yaxis={"title": {"text": "K<sub>text</sub>"}, "type": "category", "showgrid": False, "zeroline": False},
        updatemenus=[_buttons(first, traces=2)],
    )
    return figure


def curves(lines: Mapping[str, pd.DataFrame], *, title: str) -> go.Figure:
    """Validation WA by epoch, mean and 95% interval over seeds; a lone line with its seeds.

    Args:
        lines: by label, a frame with a row per seed and a column per epoch, fractions.
        title: the data set and the pair.
    """
    figure = go.Figure()
    for (label, frame), colour, symbol in zip(lines.items(), COLOURS, _SYMBOLS, strict=False):
        epochs = [int(epoch) for epoch in frame.columns]
        values = 100 * frame.to_numpy(float)
        mean, n = values.mean(axis=0), len(values)
        if len(lines) == 1:
            for seed, row in list(zip(frame.index, values, strict=True))[:_SEEDS_SHOWN]:
                figure.add_scatter(
                    x=epochs, y=_list(row), mode="lines", line={"color": "#bbbbbb", "width": 1}, showlegend=False,
                    hovertemplate=f"seed {seed}, epoch %{{x}}: %{{y:.1f}}<extra></extra>",
                )  # fmt: skip
        if n >= SEEDS_FOR_INTERVAL:
            low, high = (100 * end for end in curve_interval(frame))
            figure.add_scatter(
                x=epochs + epochs[::-1], y=_list(high) + _list(low)[::-1], fill="toself", mode="lines",
                line={"width": 0, "color": colour}, fillcolor=_pale(colour), hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        figure.add_scatter(
            x=epochs, y=_list(mean), mode="lines+markers", name=f"{label} ({_seeds(n)})",
            line={"color": colour, "width": 2}, marker={"symbol": symbol, "size": 6},
            hovertemplate="epoch %{x}: %{y:.1f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        **_LAYOUT,
        title=_title(f"{title}: learning curves", f"{curve_words(max(map(len, lines.values())))} over seeds"),
        xaxis={"title": {"text": "epoch"}},
        yaxis={"title": {"text": "validation WA (%)"}, **_between(0, 100)},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    )
    return figure


def variants(
    per_seed: pd.DataFrame,
    summary: pd.DataFrame,
    key: str,
    names: Sequence[str],
    *,
    published: pd.DataFrame,
    title: str,
    first: Metric,
) -> go.Figure:
    """Fusion strategies or ablations on the test split: seeds, mean with 95% interval, published; a button a measure.

    Args:
        per_seed: every seed's figures, fractions.
        summary: aggregated by ``key``, fractions.
        key: ``fusion`` or ``modules``.
        names: the variants from left to right.
        published: the paper's figures, in percent; empty where it has none.
        title: the data set and the pair.
        first: the measure that is shown first.
    """
    figure = go.Figure()
    rows = summary.set_index(key).reindex(list(names))
    places = list(range(len(names)))
    for measure in MEASURES:
        shown = measure == first
        some = per_seed[per_seed["seed"].isin(sorted(per_seed["seed"].unique())[:_SEEDS_SHOWN])]
        figure.add_scatter(
            x=[list(names).index(name) - 0.12 for name in some[key]],
            y=_list(100 * some[f"test_{measure}"].to_numpy(float)),
            customdata=some["seed"].tolist(),
            mode="markers", marker={"color": "#999999", "size": 5}, name="a seed", visible=shown, cliponaxis=False,
            hovertemplate="seed %{customdata}: %{y:.2f}<extra></extra>",
        )  # fmt: skip
        mean, low, high = (100 * rows[f"test_{measure}_{x}"].to_numpy(float) for x in ("mean", "low", "high"))
        for y, error, name in _with_and_without(mean, low, high, width=6):
            figure.add_scatter(
                x=places, y=y, error_y=error, name=name, mode="markers", marker={"color": COLOURS[0], "size": 9},
                visible=shown, showlegend=any(value is not None for value in y), cliponaxis=False,
                hovertemplate="%{y:.2f}<extra></extra>",
            )  # fmt: skip
        theirs = published.set_index(key)[measure].reindex(list(names)).to_numpy(float) if len(published) else None
        figure.add_scatter(
            x=[place + 0.12 for place in places], y=[None] * len(names) if theirs is None else _list(theirs),
            mode="markers", marker={"color": COLOURS[1], "size": 9, "symbol": "diamond-open", "line": {"width": 2}},
            name="published", showlegend=theirs is not None, visible=shown,
            hovertemplate="published: %{y:.2f}<extra></extra>",
        )  # fmt: skip
    counts = rows["n_seeds"].fillna(0)
    figure.update_layout(
        **_LAYOUT,
        title=_title(f"{title}: {'fusion strategies' if key == 'fusion' else 'ablation'}", "test split"),
        xaxis={
            "tickvals": places,
            "ticktext": [f"{LABELS[name]}<br>{_seeds(counts[name])}" for name in names],
            "range": [-0.5, len(names) - 0.5],
            "zeroline": False,
        },
        yaxis={"title": {"text": "percent"}, **_between(0, 100)},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        updatemenus=[_buttons(first, traces=4)],
    )
    return figure


def gaps(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Each gap's difference in test WA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`study.output.tables.gaps_table` makes it, in percent.
        title: the data set and the pair.
    """
    figure = go.Figure()
    sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
    for (start, label), colour, symbol, offset in zip(sides.items(), COLOURS, _SYMBOLS, (0.12, -0.12), strict=False):
        rows = table[(table["start"] == start) & (table["switched"] != "")].set_index("switched").reindex(list(GAPS))
        centre, low, high = (rows[f"wa_{x}"].to_numpy(float) for x in ("difference", "low", "high"))
        parts = [part for part in _with_and_without(centre, low, high, width=4) if any(x is not None for x in part[0])]
        for i, (x, error, _) in enumerate(parts):
            figure.add_scatter(
                x=x, y=[len(GAPS) - 1 - i + offset for i in range(len(GAPS))], error_x=error, name=label,
                mode="markers", marker={"color": colour, "symbol": symbol, "size": 8}, showlegend=i == 0,
                hovertemplate="%{x:+.2f} points<extra>%{fullData.name}</extra>",
            )  # fmt: skip
    interval = " and 95% interval" if table["wa_low"].notna().any() else ""
    figure.update_layout(
        **{**_LAYOUT, "margin": {**_LAYOUT["margin"], "l": 150}},
        title=_title(f"{title}: one choice switched", f"test WA, mean over seeds{interval}"),
        xaxis={"title": {"text": "difference (percentage points)"}, **_between(-100, 100)},
        yaxis={"tickvals": list(range(len(GAPS))), "ticktext": list(reversed(GAPS)), "zeroline": False},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    )
    return figure


def nothing_yet(what: str, why: str) -> go.Figure:
    """In the place of a figure that cannot be drawn yet, and over one that an earlier command drew.

    Args:
        what: the figure shows.
        why: it cannot be drawn.
    """
    figure = go.Figure()
    figure.update_layout(**_LAYOUT, title=_title(what, why), xaxis={"visible": False}, yaxis={"visible": False})
    return figure


def _between(low: float, high: float) -> dict[str, Any]:
    """An axis that shows nothing beyond the range in which its figures can lie."""
    return {"autorangeoptions": {"clipmin": low, "clipmax": high}}


def _with_and_without(
    centre: Array, low: Array, high: Array, *, width: int
) -> list[tuple[list[float | None], dict[str, Any], str]]:
    """The points that have an interval with it, then the others: plotly caps a missing bar as one of no length."""
    known = np.isfinite(low)
    whiskers = {
        **{"type": "data", "symmetric": False, "width": width},
        **{"array": _list(high - centre), "arrayminus": _list(centre - low)},
    }
    return [
        (_list(np.where(known, centre, np.nan)), whiskers, "mean, 95% interval"),
        (_list(np.where(known, np.nan, centre)), {"visible": False}, "mean"),
    ]


def _title(title: str, subtitle: str, legend: Sequence[str] = ()) -> dict[str, Any]:
    """The title, and under it in small a subtitle and the entries of a legend, which are plotly's HTML already."""
    under = "; ".join([_text(subtitle), *legend])
    said = {"text": _text(title), "subtitle": {"text": under, "font": {"size": 11}}}
    return {**said, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 14}}


def _text(text: str) -> str:
    """A text from outside, which plotly would read as HTML."""
    return text.replace("<", "&lt;")


def _buttons(first: Metric, traces: int) -> dict[str, Any]:
    """One for each measure; ``traces`` of the figure belong to each."""
    buttons = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [measure == shown for shown in MEASURES for _ in range(traces)]}],
        }
        for measure, label in MEASURES.items()
    ]
    place = {"x": 1, "xanchor": "right", "y": -0.19, "yanchor": "top"}  # below, where no title is
    return {
        "type": "buttons", "direction": "right", "active": list(MEASURES).index(first), "buttons": buttons, **place,
        "font": {"size": 11},
    }  # fmt: skip


def _list(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float | None]:
    """Plain numbers with the digits that can be seen; None for what is not known: JSON has no NaN."""
    return [round(float(value), 2) if np.isfinite(value) else None for value in values]


def _seeds(n: float) -> str:
    return f"{n:.0f} seed{'' if n == 1 else 's'}"


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"

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

from cemobam_core.config import Metric
from study.analysis import MEASURES
from study.claims import LABELS
from study.design import GAPS, Pair
from study.figures.style import COLOURS
from study.statistics import half_width

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
_SEEDS_SHOWN = 20  # a browser is not to draw hundreds of lines, nor a ledger to hold them
_MANY = 12  # cells in a row in which a number can still be read
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
        cells = [f"{m:.1f}{'★' if b else ''}" for m, b in zip(mean, best, strict=True)]
        said = [
            f"{m:.2f}{f' ± {s:.2f}' if pd.notna(s) else ''}, {_seeds(n)}"
            for m, s, n in zip(mean, std, grid["n_seeds"], strict=True)
        ]
        figure.add_heatmap(
            # not as numbers of the axis: the grid may leave some K out
            x=[str(k) for k in columns],
            y=[str(k) for k in rows],
            z=on_the_grid(mean.round(2)),
            text=on_the_grid(pd.Series(cells, index=grid.index)),
            texttemplate="%{text}" if len(columns) <= _MANY else "",
            customdata=on_the_grid(pd.Series(said, index=grid.index)),
            hovertemplate=f"K %{{x}},%{{y}}<br>{label} %{{customdata}}<extra></extra>",
            hoverongaps=False,
            colorscale="Cividis",
            colorbar={"title": {"text": f"{label} (%)", "side": "right"}, "thickness": 14},
            xgap=1,
            ygap=1,
            visible=measure == first,
        )
    done, asked = grid["n_seeds"].sum(), len(columns) * len(rows) * seeds
    legend = [f"{done} of {asked} so far"] if done < asked else []
    if chosen and chosen.k_audio in columns and chosen.k_text in rows:
        x, y = columns.index(chosen.k_audio), rows.index(chosen.k_text)
        for colour, width in (("white", 5), ("#d7191c", 3)):  # red on a white edge stands out on every cell
            figure.add_shape(x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": colour, "width": width})
        legend.append(f"□ {how}: {chosen}")
    legend.append("★ highest")
    figure.update_layout(
        **_LAYOUT,
        title=_title(f"{title}: the K grid (Fig. 2)", f"test split, mean over seeds; {'; '.join(legend)}"),
        xaxis={"title": {"text": "K<sub>audio</sub>"}, "type": "category", "showgrid": False, "zeroline": False},
        yaxis={"title": {"text": "K<sub>text</sub>"}, "type": "category", "showgrid": False, "zeroline": False},
        updatemenus=[_buttons(first)],
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
        half = np.nan_to_num(half_width(values.std(axis=0, ddof=1) if n > 1 else np.zeros_like(mean), n))
        low, high = np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100)
        if len(lines) == 1:
            for seed, row in list(zip(frame.index, values, strict=True))[:_SEEDS_SHOWN]:
                figure.add_scatter(
                    x=epochs, y=_list(row), mode="lines", line={"color": "#bbbbbb", "width": 1}, showlegend=False,
                    hovertemplate=f"seed {seed}, epoch %{{x}}: %{{y:.1f}}<extra></extra>",
                )  # fmt: skip
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
        title=_title(f"{title}: learning curves", "mean and 95% interval over seeds"),
        xaxis={"title": {"text": "epoch"}},
        yaxis={"title": {"text": "validation WA (%)"}},
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
            mode="markers", marker={"color": "#999999", "size": 5}, name="a seed", visible=shown,
            hovertemplate="seed %{customdata}: %{y:.2f}<extra></extra>",
        )  # fmt: skip
        mean, high = (100 * rows[f"test_{measure}_{x}"].to_numpy(float) for x in ("mean", "high"))
        figure.add_scatter(
            x=places, y=_list(mean), error_y={"array": _list(np.nan_to_num(high - mean)), "width": 6},
            mode="markers", marker={"color": COLOURS[0], "size": 9}, name="mean, 95% interval", visible=shown,
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
        yaxis={"title": {"text": "percent"}},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        updatemenus=[_buttons(first, traces=3)],
    )
    return figure


def gaps(table: pd.DataFrame, *, title: str) -> go.Figure:
    """Each gap's difference in test WA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`study.tables.gaps_table` makes it, in percent.
        title: the data set and the pair.
    """
    figure = go.Figure()
    sides = {"paper": "paper, with the code's choice", "released": "released, with the paper's choice"}
    for (start, label), colour, symbol, offset in zip(sides.items(), COLOURS, _SYMBOLS, (0.12, -0.12), strict=False):
        rows = table[(table["start"] == start) & (table["switched"] != "")].set_index("switched").reindex(list(GAPS))
        centre, high = rows["wa_difference"].to_numpy(float), rows["wa_high"].to_numpy(float)
        figure.add_scatter(
            x=_list(centre), y=[len(GAPS) - 1 - i + offset for i in range(len(GAPS))],
            error_x={"array": _list(np.nan_to_num(high - centre)), "width": 4},
            mode="markers", marker={"color": colour, "symbol": symbol, "size": 8}, name=label,
            hovertemplate="%{x:+.2f} points<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        **{**_LAYOUT, "margin": {**_LAYOUT["margin"], "l": 150}},
        title=_title(f"{title}: one choice switched", "test WA, mean over seeds and 95% interval"),
        xaxis={"title": {"text": "difference (percentage points)"}},
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


def _title(title: str, subtitle: str) -> dict[str, Any]:
    said = {"text": _text(title), "subtitle": {"text": _text(subtitle), "font": {"size": 11}}}
    return {**said, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 14}}


def _text(text: str) -> str:
    """A text from outside, which plotly would read as HTML."""
    return text.replace("<", "&lt;")


def _buttons(first: Metric, traces: int = 1) -> dict[str, Any]:
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

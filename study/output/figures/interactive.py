"""The same figures for a browser, as plotly's: what the Optuna dashboard shows of a study.

Numbers and wording are those of the figures on paper; here a cell says more when it is pointed at. The dashboard gives
each figure half of a window, so measures that stand side by side on paper are chosen by a button.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import rgb2hex

from cemobam_core.extras import require
from study.design.block import shown
from study.design.factors import displayed
from study.findings.analysis import MEASURES
from study.findings.statistics import SEEDS_FOR_INTERVAL, Array
from study.ledger.outcomes import Metric
from study.output.figures.curves import curve_interval, curve_words
from study.output.figures.heat import FRAME, colour_span, ground, ink
from study.output.figures.style import COLOURS

try:
    import plotly.graph_objects as go
except ModuleNotFoundError:
    require("dashboard", "study.output.figures.interactive")
    raise

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
_SEEDS_SHOWN = 20  # a browser is not to draw hundreds of lines, nor a ledger to hold them
_MANY, _MANY_ROWS = 12, 20  # cells in a row and in a column in which a number can still be read
_ROOM, _LONGEST = 45, 40  # characters of all labels below their places, and of one at the side
# plotly's own cividis is not matplotlib's; between these stops either interpolates alike
_COLOUR_SCALE = [[i / 32, rgb2hex(ground(i / 32, (0, 1)))] for i in range(33)]
LAYOUT: dict[str, Any] = {
    # plotly's own template is longer than the figures are
    "template": "none",
    "font": {"size": 12},
    "margin": {"l": 60, "r": 20, "t": 95, "b": 90},
    "paper_bgcolor": "white",
    "hovermode": "closest",
}


def heatmap(
    frame: pd.DataFrame,
    columns: tuple[str, str],
    chosen: tuple[float, float] | None,
    *,
    title: str,
    seeds: int,
    xs: Sequence[float],
    ys: Sequence[float],
    how: str,
    first: Metric,
) -> go.Figure:
    """Draw a plane, a button for each measure: the mean over seeds on the test split; the chosen cell framed.

    Args:
        frame: aggregated by both factors, fractions.
        columns: the names of the factors, across and upwards.
        chosen: the cell to frame, by the values of both.
        title: what it shows.
        seeds: how many each cell should have.
        xs: values of the first factor.
        ys: values of the second, from below.
        how: how the cell was chosen.
        first: the measure that is shown first.
    """
    (x_name, y_name), across, upwards = columns, sorted(xs), sorted(ys)

    def on_the_grid(column: pd.Series) -> list[list[Any]]:
        """By rows from below; None where no trial is done."""
        shaped = frame.assign(shown=column).pivot(index=y_name, columns=x_name, values="shown")
        shaped = shaped.reindex(index=upwards, columns=across).astype(object)
        return shaped.where(shaped.notna(), None).to_numpy().tolist()

    measures = {name: label for name, label in MEASURES.items() if frame[f"test_{name}_mean"].notna().any()}
    figure = go.Figure()
    for measure, label in measures.items():
        mean, std = (100 * frame[f"test_{measure}_{x}"] for x in ("mean", "std"))
        best = np.isclose(mean, mean.max(), rtol=0, atol=1e-9)
        low, high = colour_span(mean.round(2))
        said = [
            f"{m:.2f}{f' ± {s:.2f}' if pd.notna(s) else ''}, {_seeds(n)}"
            for m, s, n in zip(mean, std, frame["n_seeds"], strict=True)
        ]
        figure.add_heatmap(
            # not as numbers of the axis: the grid may leave some K out
            x=[shown(value) for value in across],
            y=[shown(value) for value in upwards],
            z=on_the_grid(mean.round(2)),
            customdata=on_the_grid(pd.Series(said, index=frame.index)),
            hovertemplate=f"{_subscripted(x_name)} %{{x}}, {_subscripted(y_name)} %{{y}}<br>{label} "
            "%{customdata}<extra></extra>",
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
        readable = len(across) <= _MANY and len(upwards) <= _MANY_ROWS
        figure.add_scatter(
            x=[shown(value) for value in frame[x_name]],
            y=[shown(value) for value in frame[y_name]],
            text=[f"{m:.1f}{'★' if b else ''}" if readable else "" for m, b in zip(mean, best, strict=True)],
            mode="text",
            textfont={"color": [ink(ground(m, (low, high))) for m in mean.round(2)], "size": 11},
            hoverinfo="skip",
            showlegend=False,
            visible=measure == first,
        )
    done, asked = frame["n_seeds"].sum(), len(across) * len(upwards) * seeds
    legend = [f"{done} of {asked} so far"] if done < asked else []
    if chosen and chosen[0] in across and chosen[1] in upwards:
        x, y = across.index(chosen[0]), upwards.index(chosen[1])
        for colour, width in (("white", 5), (FRAME, 3)):
            figure.add_shape(x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": colour, "width": width})
        legend.append(f'<span style="color:{FRAME}">□</span> {how}: {shown(chosen[0])},{shown(chosen[1])}')
    legend.append("★ highest")
    figure.update_layout(
        **LAYOUT,
        title=titled(title, "test split, mean over seeds", legend),
        xaxis={"title": {"text": _subscripted(x_name)}, "type": "category", "showgrid": False, "zeroline": False},
        yaxis={
            **{"type": "category", "showgrid": False, "zeroline": False},
            **{"title": {"text": _subscripted(y_name), "standoff": 12}, "automargin": True},
        },
        updatemenus=[_buttons(list(measures), first, traces=2)],
    )
    return figure


def tuning(scores: Array, *, label: str, title: str) -> go.Figure:
    """Draw what a system tried and the best so far.

    Args:
        scores: validation of each configuration in the order in which it was tried, fractions, the defaults first.
        label: of the metric.
        title: what it shows.
    """
    places = list(range(len(scores)))
    figure = go.Figure()
    figure.add_scatter(
        x=places, y=(100 * scores).round(2), mode="markers", name="a configuration", marker={"color": COLOURS[8]},
        hovertemplate=f"configuration %{{x}}: {label} %{{y:.2f}}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=places, y=(100 * np.fmax.accumulate(scores)).round(2), mode="lines", name="the best so far",
        line={"color": COLOURS[0], "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_layout(
        **LAYOUT,
        title=titled(title, "validation, one seed", ["0: the defaults"]),
        xaxis={"title": {"text": "configuration"}, "zeroline": False},
        yaxis={"title": {"text": f"validation {label} (%)"}, "zeroline": False},
        legend={"orientation": "h", "y": 1.08},
    )
    return figure


def curves(lines: Mapping[str, pd.DataFrame], *, title: str, head: str = "") -> go.Figure:
    """Validation WA by epoch, mean and 95% interval over seeds; a lone line with its seeds.

    Args:
        lines: by label, a frame with a row per seed and a column per epoch, fractions.
        title: the data set and the pair.
        head: what the labels are values of; empty: they say so themselves.
    """
    figure = go.Figure()
    for (label, frame), colour, symbol in zip(lines.items(), COLOURS, SYMBOLS, strict=False):
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
    room = sum(len(label) + 14 for label in lines) < _ROOM * 1.5
    figure.update_layout(
        **LAYOUT,
        title=titled(f"{title}: learning curves", curve_words(max(map(len, lines.values())))),
        xaxis={"title": {"text": "epoch"}},
        yaxis={"title": {"text": "validation WA (%)"}, **between(0, 100)},
        legend={
            **{"orientation": "h", "x": 0, "title": {"text": _text(head)}},
            # below, where there is room, if they are more than stand in a row
            **({"y": 1, "yanchor": "bottom"} if room else {"y": -0.3, "yanchor": "top"}),
        },
    )
    return figure


def configurations(
    by_seed: Mapping[str, pd.DataFrame],
    summary: pd.DataFrame,
    labels: Sequence[str],
    *,
    published: pd.DataFrame | None,
    title: str,
    first: Metric,
    head: str = "",
    joined: bool = False,
) -> go.Figure:
    """Draw a block's configurations on the test split: seeds, mean with 95% interval, published; a button a measure.

    Args:
        by_seed: by measure, a frame with a row per seed and a column per configuration, fractions.
        summary: a row per configuration with ``n_seeds`` and the figures, fractions; NaN where there is none.
        labels: of the configurations, from left to right.
        published: the paper's figures of each, in percent; None: there are none.
        title: what it shows.
        first: the measure that is shown first.
        head: what the labels are values of; empty: they say so themselves.
        joined: whether a line joins the means, as over an ordered factor.
    """
    figure = go.Figure()
    places = list(range(len(labels)))
    upright = not joined and sum(map(len, labels)) > _ROOM
    error_bar, value_of = ("error_x", "%{x:.2f}") if upright else ("error_y", "%{y:.2f}")

    def at(shift: float, of: Sequence[int], values: Sequence[float | None]) -> dict[str, Sequence[float | None]]:
        """Points beside their places: from left to right, or from above, where the axis is reversed."""
        moved = [place + shift for place in of]
        return {"x": values, "y": moved} if upright else {"x": moved, "y": values}

    for measure in by_seed:
        shown = measure == first
        some = (100 * by_seed[measure]).sort_index().iloc[:_SEEDS_SHOWN]
        points = [
            (place, seed, row[place])
            for seed, row in zip(some.index, some.to_numpy(float), strict=True)
            for place in places
            if np.isfinite(row[place])
        ]
        figure.add_scatter(
            **at(-0.12, [place for place, _, _ in points], _list([value for _, _, value in points])),
            customdata=[int(seed) for _, seed, _ in points],
            mode="markers", marker={"color": "#999999", "size": 5}, name="a seed", visible=shown, cliponaxis=False,
            hovertemplate=f"seed %{{customdata}}: {value_of}<extra></extra>",
        )  # fmt: skip
        mean, low, high = (100 * summary[f"test_{measure}_{x}"].to_numpy(float) for x in ("mean", "low", "high"))
        for centre, error, name in with_and_without(mean, low, high, width=6):
            figure.add_scatter(
                **at(0, places, centre), **{error_bar: error}, name=name,
                mode="lines+markers" if joined else "markers", marker={"color": COLOURS[0], "size": 9}, visible=shown,
                showlegend=any(value is not None for value in centre), cliponaxis=False,
                hovertemplate=f"{value_of}<extra></extra>",
            )  # fmt: skip
        theirs = None if published is None or measure not in published else published[measure].to_numpy(float)
        figure.add_scatter(
            **at(0.12, places, [None] * len(labels) if theirs is None else _list(theirs)),
            mode="markers", marker={"color": COLOURS[1], "size": 9, "symbol": "diamond-open", "line": {"width": 2}},
            name="published", showlegend=theirs is not None, visible=shown,
            hovertemplate=f"published: {value_of}<extra></extra>",
        )  # fmt: skip
    counts, apart = summary["n_seeds"].fillna(0), ", " if upright else "<br>"
    named = {
        "tickvals": places,
        "ticktext": [f"{_text(_cut(name))}{apart}{_seeds(n)}" for name, n in zip(labels, counts, strict=True)],
        "range": [len(labels) - 0.5, -0.5] if upright else [-0.5, len(labels) - 0.5],
        "zeroline": False,
        "title": {"text": _text(head), "standoff": 12},
        "automargin": True,
    }
    percent = {"title": {"text": "percent"}, **between(0, 100)}
    figure.update_layout(
        **LAYOUT,
        title={**titled(title, "test split"), **({"x": 0.02, "xref": "container"} if upright else {})},
        xaxis=percent if upright else named,
        yaxis=named if upright else percent,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        updatemenus=[_buttons(list(by_seed), first, traces=4)],
    )
    return figure


def nothing_yet(what: str, why: str) -> go.Figure:
    """In the place of a figure that cannot be drawn yet, and over one that an earlier command drew.

    Args:
        what: the figure shows.
        why: it cannot be drawn.
    """
    figure = go.Figure()
    figure.update_layout(**LAYOUT, title=titled(what, why), xaxis={"visible": False}, yaxis={"visible": False})
    return figure


def between(low: float, high: float) -> dict[str, Any]:
    """An axis that shows nothing beyond the range in which its figures can lie."""
    return {"autorangeoptions": {"clipmin": low, "clipmax": high}}


def with_and_without(
    centre: Array, low: Array, high: Array, *, width: int
) -> list[tuple[list[float | None], dict[str, Any], str]]:
    """The points that have an interval with it, then the others: plotly caps a missing bar as one of no length."""
    known = np.isfinite(low)
    whiskers = {
        **{"type": "data", "symmetric": False, "width": width},
        **{"array": _list(high - centre), "arrayminus": _list(centre - low)},
    }
    return [
        (_list(np.where(known, centre, np.nan)), whiskers, "mean, 95% interval (another seed)"),
        (_list(np.where(known, np.nan, centre)), {"visible": False}, "mean"),
    ]


def titled(title: str, subtitle: str, legend: Sequence[str] = ()) -> dict[str, Any]:
    """The title, and under it in small a subtitle and the entries of a legend, which are plotly's HTML already."""
    under = "; ".join([_text(subtitle), *legend])
    said = {"text": _text(title), "subtitle": {"text": under, "font": {"size": 11}}}
    return {**said, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 14}}


def _subscripted(name: str) -> str:
    """Return a setting's name, K_audio as it is read."""
    return re.sub(r"^K_(\w+)$", r"K<sub>\1</sub>", displayed(name))


def _cut(name: str) -> str:
    """A name that leaves the figure room beside it."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _text(text: str) -> str:
    """A text from outside, which plotly would read as HTML."""
    return text.replace("<", "&lt;")


def _buttons(measures: Sequence[Metric], first: Metric, traces: int) -> dict[str, Any]:
    """One for each measure; ``traces`` of the figure belong to each."""
    buttons = [
        {
            "label": MEASURES[measure],
            "method": "restyle",
            "args": [{"visible": [measure == shown for shown in measures for _ in range(traces)]}],
        }
        for measure in measures
    ]
    place = {"x": 1, "xanchor": "right", "y": -0.19, "yanchor": "top"}  # below, where no title is
    return {
        "type": "buttons", "direction": "right", "active": measures.index(first), "buttons": buttons, **place,
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

"""The same figures for a browser, drawn by plotly. The Optuna dashboard shows them beside a study.

Numbers, captions and marks are those of the figures on paper. Point at a cell to see more. The dashboard
gives each figure half of a window, so a button chooses one of the metrics that stand side by side on paper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import wrap
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
from study.output.figures.plane import Plane
from study.output.figures.style import COLOURS

try:
    import plotly.graph_objects as go
except ModuleNotFoundError:
    require("dashboard", "study.output.figures.interactive")
    raise

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
_SEEDS_SHOWN = 20
"""Seeds that are drawn: hundreds of lines would be slow in a browser and large in a ledger."""

_MANY, _MANY_ROWS = 12, 20
"""Largest numbers of cells in a row and in a column whose numbers can be read."""

_ROOM, _LONGEST = 45, 40
"""Most characters of all labels below their places, and of one label at the side."""

_CAPTION_LINE = 80
"""Characters of a line of a caption."""

_CAPTION_HEIGHT = 13
"""Pixels of a line of a caption."""

# plotly's own cividis differs from matplotlib's; between these stops both interpolate alike
_COLOUR_SCALE = [[i / 32, rgb2hex(ground(i / 32, (0, 1)))] for i in range(33)]
LAYOUT: dict[str, Any] = {
    # plotly's own template is longer than the figures are
    "template": "none",
    "font": {"size": 12},
    "margin": {"l": 60, "r": 20, "t": 95, "b": 105},
    "paper_bgcolor": "white",
    "hovermode": "closest",
}


def heatmap(plane: Plane, *, title: str, first: Metric) -> go.Figure:
    """Draw a plane, with a button for each metric: the mean over seeds on the test split, on one colour scale.

    Frames mark the chosen cell and the paper's best one, a star the highest cell.

    Args:
        plane: Plane of the study.
        title: Title of the figure.
        first: Metric that is shown first.
    """
    frame, (x_name, y_name), seeds = plane.frame, plane.columns, plane.seeds
    across, upwards = sorted(plane.xs), sorted(plane.ys)

    def on_the_grid(column: pd.Series) -> list[list[Any]]:
        """Return a column by rows from below. Cells without a done trial are `None`."""
        shaped = frame.assign(shown=column).pivot(index=y_name, columns=x_name, values="shown")
        shaped = shaped.reindex(index=upwards, columns=across).astype(object)
        return shaped.where(shaped.notna(), None).to_numpy().tolist()

    measures = plane.measures
    low, high = colour_span(100 * frame[[f"test_{name}_mean" for name in measures]].round(4))
    figure = go.Figure()
    for measure, label in measures.items():
        mean, std = (100 * frame[f"test_{measure}_{x}"] for x in ("mean", "std"))
        best = np.isclose(mean, mean.max(), rtol=0, atol=1e-9)
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
            colorbar={"title": {"text": "score on test (%)", "side": "right"}, "thickness": 14},
            xgap=1,
            ygap=1,
            visible=measure == first,
        )
        # in a separate trace, where each number can have its own ink; a heatmap has one ink for all
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
    for cell, inset, line, how in (
        (plane.chosen, 0.0, {"color": FRAME, "width": 3}, plane.how),
        (plane.paper, 0.1, {"color": "black", "width": 2, "dash": "dash"}, "best in the paper"),
    ):
        if cell is None or not plane.has(cell):
            continue
        x, y, half = across.index(cell[0]), upwards.index(cell[1]), 0.5 - inset
        for look in ({"color": "white", "width": 5 if not inset else 4}, line):
            figure.add_shape(x0=x - half, x1=x + half, y0=y - half, y1=y + half, line=look)
        sign = "⬚" if inset else "□"
        legend.append(f'<span style="color:{line["color"]}">{sign}</span> {how}: {shown(cell[0])},{shown(cell[1])}')
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
    """Draw the score of each configuration that a system tried, and the best so far.

    Args:
        scores: Validation score of each configuration as a fraction, in the order in which they were tried. The
            defaults come first.
        label: Name of the metric.
        title: Title of the figure.
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
    """Draw validation WA by epoch, mean and 95% interval over seeds. A single line shows its seeds too.

    Args:
        lines: Frames of fractions by label, with a row per seed and a column per epoch.
        title: Data set and K pair.
        head: Name of the factor whose values are the labels. Empty if the labels need no name.
    """
    figure, banded = go.Figure(), False
    for (label, frame), colour, symbol in zip(lines.items(), COLOURS, SYMBOLS, strict=False):
        epochs = [int(epoch) for epoch in frame.columns]
        values = 100 * frame.to_numpy(float)
        mean, n = values.mean(axis=0), len(values)
        if len(lines) == 1:
            for seed, row in list(zip(frame.index, values, strict=True))[:_SEEDS_SHOWN]:
                figure.add_scatter(
                    x=epochs, y=_list(row), mode="lines", line={"color": "#bbbbbb", "width": 1}, name="a seed",
                    legendgroup="seed", showlegend=bool(seed == frame.index[0]),
                    hovertemplate=f"seed {seed}, epoch %{{x}}: %{{y:.1f}}<extra></extra>",
                )  # fmt: skip
        if n >= SEEDS_FOR_INTERVAL:
            low, high = (100 * end for end in curve_interval(frame))
            figure.add_scatter(
                x=epochs + epochs[::-1], y=_list(high) + _list(low)[::-1], fill="toself", mode="lines",
                line={"width": 0, "color": colour}, fillcolor=_pale(colour), hoverinfo="skip",
                name="95% interval (another seed)", legendgroup="interval", showlegend=not banded,
            )  # fmt: skip
            banded = True
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
    """Draw a block's configurations on the test split: seeds, mean with 95% interval, and published scores.

    A button chooses the metric.

    Args:
        by_seed: Frames of fractions by metric, with a row per seed and a column per configuration.
        summary: Row per configuration with ``n_seeds`` and the figures as fractions. NaN where there is none.
        labels: Names of the configurations, from left to right.
        published: Scores of each configuration in the paper, in percent. ``None`` if there are none.
        title: Title of the figure.
        first: Metric that is shown first.
        head: Name of the factor whose values are the labels. Empty if the labels need no name.
        joined: Whether a line joins the means, as for an ordered factor.
    """
    figure = go.Figure()
    places = list(range(len(labels)))
    upright = not joined and sum(map(len, labels)) > _ROOM
    error_bar, value_of = ("error_x", "%{x:.2f}") if upright else ("error_y", "%{y:.2f}")

    def at(shift: float, of: Sequence[int], values: Sequence[float | None]) -> dict[str, Sequence[float | None]]:
        """Return points beside their places: from left to right, or from the top, where the axis is reversed."""
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
    percent = {"title": {"text": "score on test (%)"}, "range": _range(by_seed, summary, published)}
    figure.update_layout(
        **LAYOUT,
        title={**titled(title, "test split"), **({"x": 0.02, "xref": "container"} if upright else {})},
        xaxis=percent if upright else named,
        yaxis=named if upright else percent,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        updatemenus=[_buttons(list(by_seed), first, traces=4)],
    )
    return figure


def captioned(figure: go.Figure, caption: str) -> go.Figure:
    """Add a caption below the title of a figure, and return the figure.

    Args:
        figure: Figure with a title from :func:`titled`.
        caption: Caption of any length. It is wrapped.
    """
    lines = wrap(caption, _CAPTION_LINE, break_on_hyphens=False)
    if lines:
        subtitle = figure.layout.title.subtitle
        subtitle.text = "<br>".join([*map(_text, lines), subtitle.text])
        figure.layout.margin.t += _CAPTION_HEIGHT * len(lines)
    return figure


def _range(
    by_seed: Mapping[str, pd.DataFrame], summary: pd.DataFrame, published: pd.DataFrame | None
) -> list[float] | None:
    """Return one range in percent for all metrics, so that a button keeps the scale. `None` without any score."""
    ends = [f"test_{measure}_{x}" for measure in by_seed for x in ("mean", "low", "high")]
    parts: list[Any] = [100 * summary[ends].to_numpy(float)]
    parts += [100 * frame.to_numpy(float) for frame in by_seed.values()]
    parts += [published[m].to_numpy(float) for m in by_seed if published is not None and m in published]
    every = np.concatenate([part.ravel() for part in parts])
    if not np.isfinite(every).any():
        return None
    low, high = np.nanmin(every), np.nanmax(every)
    room = max(0.05 * (high - low), 0.5)
    return [round(max(0.0, float(low - room)), 2), round(min(100.0, float(high + room)), 2)]


def nothing_yet(what: str, why: str) -> go.Figure:
    """Return an empty figure in the place of one that cannot be drawn yet.

    Args:
        what: Title of the missing figure.
        why: Reason why it cannot be drawn.
    """
    figure = go.Figure()
    figure.update_layout(**LAYOUT, title=titled(what, why), xaxis={"visible": False}, yaxis={"visible": False})
    return figure


def between(low: float, high: float) -> dict[str, Any]:
    """Return the setting of an axis that is limited to the possible range of its quantity."""
    return {"autorangeoptions": {"clipmin": low, "clipmax": high}}


def with_and_without(
    centre: Array, low: Array, high: Array, *, width: int
) -> list[tuple[list[float | None], dict[str, Any], str]]:
    """Return the points with an interval, then those without, because plotly would draw empty bars for them."""
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
    """Return the title, with a subtitle and the entries of a legend, in plotly's HTML, in small letters below it."""
    under = "; ".join([_text(subtitle), *legend])
    said = {"text": _text(title), "subtitle": {"text": under, "font": {"size": 11}}}
    return {**said, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 14}}


def _subscripted(name: str) -> str:
    """Return a setting's name for display, such as K_audio with a subscript."""
    return re.sub(r"^K_(\w+)$", r"K<sub>\1</sub>", displayed(name))


def _cut(name: str) -> str:
    """Return a name that leaves room for the figure beside it."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _text(text: str) -> str:
    """Return a text from outside with its HTML escaped, because plotly reads HTML."""
    return text.replace("<", "&lt;")


def _buttons(measures: Sequence[Metric], first: Metric, traces: int) -> dict[str, Any]:
    """Return a button for each metric. Each has ``traces`` traces of the figure."""
    buttons = [
        {
            "label": MEASURES[measure],
            "method": "restyle",
            "args": [{"visible": [measure == shown for shown in measures for _ in range(traces)]}],
        }
        for measure in measures
    ]
    place = {"x": 1, "xanchor": "right", "y": -0.3, "yanchor": "top"}  # below, where no title is
    return {
        "type": "buttons", "direction": "right", "active": measures.index(first), "buttons": buttons, **place,
        "font": {"size": 11},
    }  # fmt: skip


def _list(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float | None]:
    """Return plain numbers with the digits that can be seen, and `None` for NaN, which JSON does not have."""
    return [round(float(value), 2) if np.isfinite(value) else None for value in values]


def _seeds(n: float) -> str:
    return f"{n:.0f} seed{'' if n == 1 else 's'}"


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"

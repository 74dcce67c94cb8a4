"""The heatmap over two ordered factors, such as Fig. 2 of the paper over K_audio and K_text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from study.design.block import shown
from study.design.factors import PAIR
from study.findings.analysis import MEASURES
from study.findings.results import AboutBlock, Results
from study.findings.wording import seeds_in_words
from study.output.figures.heat import COLOUR_MAP, FRAME, annotated, colour_span, ground, ink
from study.output.figures.style import (
    TEXT_WIDTH,
    legend_below,
    mark,
    math_text,
    panels,
    panels_across,
    plain,
    shade,
    style,
)
from study.papers.cemobam.published import paper_pair

Cell = tuple[float, float]
"""The values of both factors."""

FigureOf = Literal["mean", "std"]

_SMALLEST_TYPE = 3.0
"""Points of the smallest number in a cell."""

_TALLEST = 9.0
"""Height of a page, in inches."""

_DASHES = (0, (2.2, 1.4))
_INSET = 0.1
"""Distance of the paper's frame from the edge of its cell, so that the frame of the chosen cell stays visible."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Plane:
    """The scores of a study over two factors.

    Attributes:
        frame: Scores as fractions, aggregated by both factors.
        columns: Names of the horizontal and the vertical factor.
        xs: Values of the first factor.
        ys: Values of the second factor, from below.
        seeds: Number of seeds that each cell should have.
        chosen: Cell of the chosen pair. ``None`` if no pair is chosen here.
        how: How the pair was chosen.
        paper: Cell that the paper reports as best, which may be outside the plane. ``None`` if it reports none.
    """

    frame: pd.DataFrame
    columns: tuple[str, str]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    seeds: int
    chosen: Cell | None = None
    how: str = "chosen on validation"
    paper: Cell | None = None

    @property
    def measures(self) -> dict[str, str]:
        """Labels of the measured metrics, by name."""
        return {name: label for name, label in MEASURES.items() if self.frame[f"test_{name}_mean"].notna().any()}

    def has(self, cell: Cell | None) -> bool:
        """Return whether a cell is in the plane."""
        return cell is not None and cell[0] in self.xs and cell[1] in self.ys

    def on_the_grid(self, column: str) -> pd.DataFrame:
        """Return a column of the frame by rows from above. Cells without a done trial are NaN."""
        x, y = self.columns
        shaped = self.frame.pivot(index=y, columns=x, values=column)
        return shaped.reindex(index=sorted(self.ys, reverse=True), columns=sorted(self.xs)).astype(float)

    def told(self, cell: Cell) -> str:
        """Return the name of a cell in figures."""
        return ", ".join(f"{math_text(name)}={shown(value)}" for name, value in zip(self.columns, cell, strict=True))


def plane_of(results: Results, block: AboutBlock) -> Plane:
    """Return the plane of a block that varies two ordered factors.

    If the block chooses the K pair, the plane has the chosen cell and, for CemoBAM, the paper's best cell.

    Args:
        results: Results of the study.
        block: Block of the study.
    """
    about, keys = results.about, results.keys(block)
    x, y = block.columns
    theirs = paper_pair(about.in_papers) if block.chooses and about.system == "cemobam" else None

    def cell(pair: Sequence[float] | None) -> Cell | None:
        values = dict(zip(PAIR, pair, strict=True)) if pair else {}
        return (values[x], values[y]) if values else None

    return Plane(
        frame=results.block(block.name),
        columns=(x, y),
        xs=tuple(dict.fromkeys(key[0] for key in keys)),
        ys=tuple(dict.fromkeys(key[1] for key in keys)),
        seeds=len(block.seeds),
        chosen=cell(about.pair) if block.chooses else None,
        how=about.how,
        paper=cell((theirs.k_audio, theirs.k_text) if theirs else None),
    )


def plane_figure(plane: Plane, *, title: str, figure_of: FigureOf = "mean") -> Figure:
    """Draw every metric of the test split over two factors, one panel per metric, all on one colour scale.

    Frames mark the chosen cell and the paper's best one. A star marks the highest cell of each panel. Cells without a
    trial are empty. Cells with fewer seeds than asked for are in italics. Cells that are too small for a
    number have none.

    Args:
        plane: Plane of the study.
        title: Data set, as figures show it.
        figure_of: ``mean`` over seeds, or ``std`` for the standard deviation.
    """
    with style():
        n = len(plane.measures)
        across = panels_across(n)
        down = -(-n // across)
        width = 0.9 * TEXT_WIDTH / across
        shape = min(max(len(plane.ys) / len(plane.xs), 0.35), 1.6)
        height = (TEXT_WIDTH / across - 0.4) * shape / (1.25 if across == 2 else 1)
        figure = Figure(figsize=(TEXT_WIDTH, down * (height + 0.5) + 1.1), layout="constrained")
        made = [
            _Panel(ax, plane, measure, label)
            for ax, (measure, label) in zip(panels(figure, n), plane.measures.items(), strict=True)
        ]
        _draw(figure, made, (width, height), across=across, figure_of=figure_of)
        split = "test split, " + ("mean" if figure_of == "mean" else "standard deviation")
        figure.suptitle(f"{title}: {split} over {seeds_in_words(plane.seeds)}", fontsize=8)
    return figure


def joint_figure(planes: Mapping[str, Plane], measures: Mapping[str, str]) -> Figure:
    """Draw several studies beside each other: a column for each study, a row for each metric, on one colour scale.

    Data sets differ more in level than K changes their scores. Colours therefore show the distance of a cell from the
    mean of its panel. Numbers are the scores themselves.

    Args:
        planes: Planes of the studies by label. All have the same values.
        measures: Labels of the metrics by name. All studies have these metrics.
    """
    with style():
        first, across, down = next(iter(planes.values())), len(planes), len(measures)
        width = 0.9 * TEXT_WIDTH / across
        shape = min(max(len(first.ys) / len(first.xs), 0.35), 1.6)
        height = min((TEXT_WIDTH / across - 0.4) * shape / 1.25, (_TALLEST - 1.4) / down - 0.4)
        figure = Figure(figsize=(TEXT_WIDTH, down * (height + 0.4) + 1.2), layout="constrained")
        axes = list(figure.subplots(down, across, squeeze=False).ravel())
        of = [(measure, label, study) for measure, label in measures.items() for study in planes]
        made = [
            _Panel(ax, planes[study], measure, f"{plain(study)}: {label} (%)")
            for ax, (measure, label, study) in zip(axes, of, strict=True)
        ]
        _draw(figure, made, (width, height), across=across, centred=True, names=[plain(study) for study in planes])
        figure.suptitle(f"Test split, {_over(list(planes.values()))}", fontsize=8)
    return figure


@dataclass(frozen=True, eq=False)
class _Panel:
    """One heatmap: its axes, its scores and its title."""

    ax: Axes
    plane: Plane
    measure: str
    title: str


def _over(planes: Sequence[Plane]) -> str:
    seeds = {plane.seeds for plane in planes}
    return f"mean over {seeds_in_words(seeds.pop()) if len(seeds) == 1 else 'seeds'}"


def _draw(
    figure: Figure,
    made: Sequence[_Panel],
    extent: tuple[float, float],
    *,
    across: int,
    figure_of: FigureOf = "mean",
    centred: bool = False,
    names: Sequence[str] = (),
) -> None:
    """Draw panels with one colour bar and one legend.

    Args:
        figure: Figure of the panels.
        made: Panels, row by row.
        extent: Width and height of a panel in inches.
        across: Number of panels in a row.
        figure_of: ``mean`` over seeds, or ``std`` for the standard deviation.
        centred: Whether colours show the distance from the mean of the panel.
        names: Names of the studies, if there are several.
    """
    planes = list(dict.fromkeys(panel.plane for panel in made))
    first = planes[0]
    values = [100 * panel.plane.on_the_grid(f"test_{panel.measure}_{figure_of}") for panel in made]
    zeros = [float(np.nanmean(one.to_numpy(float))) if centred else 0.0 for one in values]
    every = np.concatenate([one.to_numpy(float).ravel() - zero for one, zero in zip(values, zeros, strict=True)])
    most = max(1.0, float(np.nanmax(np.abs(every), initial=0.0)))
    span = (-most, most) if centred else colour_span(every)
    # points, so that four figures stand in a cell's width and two lines in its height
    size = min(7.0, 0.36 * 72 * extent[0] / len(first.xs), 0.42 * 72 * extent[1] / len(first.ys))
    written = size if size >= _SMALLEST_TYPE else 0.0
    for place, (panel, percent, zero) in enumerate(zip(made, values, zeros, strict=True)):
        ends = (span[0] + zero, span[1] + zero)
        _draw_panel(panel, percent, ends, size=written, starred=figure_of == "mean")
        _name_values(panel, extent)
        if place % across == 0:
            panel.ax.set_ylabel(math_text(first.columns[1]))
        if place + across >= len(made):
            panel.ax.set_xlabel(math_text(first.columns[0]))
    what = "score on test (%), mean" if figure_of == "mean" else "standard deviation of the score on test (points)"
    seeds = {plane.seeds for plane in planes}
    over = f" over {seeds_in_words(seeds.pop())}" if len(seeds) == 1 else " over seeds"
    figure.colorbar(
        ScalarMappable(Normalize(*span), COLOUR_MAP), ax=[panel.ax for panel in made], orientation="horizontal",
        label="distance from the mean of the panel (points)" if centred else f"{what}{over}",
        aspect=50, shrink=0.7, pad=0.02,
    )  # fmt: skip
    legend_below(figure, _marks(planes, names, written=bool(written), starred=figure_of == "mean"))


def _marks(planes: Sequence[Plane], names: Sequence[str], *, written: bool, starred: bool) -> list[Artist]:
    """Return the entries of the legend."""

    def cells(of: Mapping[int, Cell | None]) -> str:
        told = [
            (names[i] if names else "", planes[i].told(cell))
            for i, cell in of.items()
            if cell is not None and planes[i].has(cell)
        ]
        return "; ".join(f"{name}: {cell}" if name else cell for name, cell in told if cell)

    marks: list[Artist] = []
    if chosen := cells({i: plane.chosen for i, plane in enumerate(planes)}):
        how = dict.fromkeys(plane.how for plane in planes if plane.has(plane.chosen))
        marks.append(Patch(facecolor="white", edgecolor=FRAME, linewidth=1.4, label=f"{' or '.join(how)} ({chosen})"))
    if theirs := cells({i: plane.paper for i, plane in enumerate(planes)}):
        label = f"best in the paper ({theirs})"
        marks.append(Patch(facecolor="white", edgecolor="black", linewidth=1.2, linestyle=_DASHES, label=label))
    if starred:
        marks.append(mark("highest in the panel", "*", color=shade(1)))
    if written and any((plane.on_the_grid("n_seeds") < plane.seeds).any(axis=None) for plane in planes):
        marks.append(mark("italics: fewer seeds"))
    if any(plane.on_the_grid("n_seeds").isna().any(axis=None) for plane in planes):
        empty = Patch(facecolor="none", edgecolor=shade(0.5), linewidth=0.5, label="empty: no trial is done")
        marks.append(empty)
    return marks


def _draw_panel(panel: _Panel, percent: pd.DataFrame, span: tuple[float, float], *, size: float, starred: bool) -> None:
    ax, plane, values = panel.ax, panel.plane, percent.to_numpy(float)
    short = plane.on_the_grid("n_seeds") < plane.seeds
    best = np.nanmax(values) if starred else np.nan
    sns.heatmap(
        percent, ax=ax, cmap=COLOUR_MAP, vmin=span[0], vmax=span[1], annot=size > 0, fmt=".1f",
        annot_kws={"size": size}, linewidths=0.3, cbar=False,
    )  # fmt: skip
    for (row, column), text in annotated(ax, values):
        text.set_in_layout(False)  # it always fits in its cell
        text.set_color(ink(ground(values[row, column], span)))
        if np.isclose(values[row, column], best, rtol=0, atol=1e-9):
            text.set_text(f"{text.get_text()}\n★")
            text.set_linespacing(0.8)
        if short.iat[row, column]:
            text.set_fontstyle("italic")
    if starred and not size:
        for row, column in np.argwhere(np.isclose(values, best, rtol=0, atol=1e-9)):
            ax.plot(column + 0.5, row + 0.5, "*", color=ink(ground(best, span)), markersize=5)
    across: list[Any] = list(percent.columns)
    upwards: list[Any] = list(percent.index)
    for cell, colour, dashes, inset in ((plane.chosen, FRAME, "-", 0.0), (plane.paper, "black", _DASHES, _INSET)):
        if cell is None or not plane.has(cell):
            continue
        corner, side = (across.index(cell[0]) + inset, upwards.index(cell[1]) + inset), 1 - 2 * inset
        for edge, width, line in (("white", 2.4, "-"), (colour, 1.4, dashes)):
            look: dict[str, Any] = {"edgecolor": edge, "linewidth": width, "linestyle": line}
            ax.add_patch(Rectangle(corner, side, side, fill=False, clip_on=False, zorder=3, **look))
    ax.set(title=panel.title, xlabel="", ylabel="")


def _name_values(panel: _Panel, extent: tuple[float, float]) -> None:
    """Write the values of both factors beside the cells, and leave some out if not all have room.

    Args:
        panel: Panel with its cells.
        extent: Width and height of the panel in inches.
    """
    ax, plane = panel.ax, panel.plane
    across, upwards = list(map(shown, sorted(plane.xs))), list(map(shown, sorted(plane.ys, reverse=True)))
    widest = 4.6 * max(map(len, across)) + 3  # points
    step_x = math.ceil(widest * len(across) / (72 * extent[0]))
    step_y = math.ceil(8.5 * len(upwards) / (72 * extent[1]))
    ax.set_xticks(np.arange(len(across))[::step_x] + 0.5, across[::step_x])
    first = (len(upwards) - 1) % step_y  # label the lowest value, like the leftmost one
    ax.set_yticks(np.arange(len(upwards))[first::step_y] + 0.5, upwards[first::step_y])
    ax.tick_params(length=0, rotation=0)

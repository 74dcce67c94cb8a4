"""The look of every figure: sizes of an IEEE page, colours for colour-blind readers, embedded fonts."""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.design.factors import displayed

TEXT_WIDTH = 7.16
"""Width of both columns of an IEEE page, in inches."""
COLUMN_WIDTH = 3.5
"""Width of one column, in inches."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442", "#7f7f7f")
"""The colours of Okabe and Ito (2008) for colour-blind readers, and a grey. Use each colour with a marker."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")

FORMS = ("png", "pdf")
"""Formats that a report writes: one for the screen, one for print."""
KNOWN_FORMS = (*FORMS, "svg")
"""Formats that can be written."""
DPI = 300
"""Resolution of a PNG, in dots per inch."""

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "pdf.fonttype": 42,  # embed TrueType fonts, which journals ask for
}

_LAYOUT = re.compile(
    r"size|pad|margin|layout|subplot|dpi|bbox|titley|points|autolimit_mode|usetex|fonttype"
    r"|^axes\.grid$|^[xy]tick\.(top|bottom|left|right|label(top|bottom|left|right))"
)
"""Settings of matplotlib that a user's style does not change: the layout of every figure depends on them."""

_user_style: ContextVar[Mapping[str, Any] | None] = ContextVar("user_style", default=None)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Settings for drawing and saving figures.

    Attributes:
        forms: Formats to write, by file ending: png, pdf, svg.
        dpi: Resolution of a PNG in dots per inch.
        title: Whether figures have a title.
        style: Settings of matplotlib that override those of this module.
    """

    forms: tuple[str, ...] = FORMS
    dpi: int = DPI
    title: bool = True
    style: Mapping[str, Any] = field(default_factory=dict)

    @property
    def usual(self) -> bool:
        """Whether figures look as in a report. The format does not matter."""
        return self.dpi == DPI and self.title and not self.style

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the look's style to every figure that is drawn or saved in this context."""
        token = _user_style.set(self.style)
        try:
            yield
        finally:
            _user_style.reset(token)


@contextmanager
def style() -> Iterator[None]:
    """Apply this module's style, and the user's over it, to what is drawn or saved in this context."""
    users = {name: value for name, value in (_user_style.get() or {}).items() if not _LAYOUT.search(name)}
    settings: Any = {**_STYLE, **users}
    with mpl.rc_context(settings):
        yield


def read_style(name: str) -> dict[str, Any]:
    """Return the settings of a matplotlib style.

    Args:
        name: Name of a matplotlib style, or path of a ``.mplstyle`` file.

    Raises:
        InputError: The style or file does not exist, or a line of the file is not a setting.
    """
    if name in mpl.style.available:
        return {str(key): value for key, value in mpl.style.library[name].items()}
    path = Path(name).expanduser()
    if path.suffix != ".mplstyle":
        by_lower = {known.lower(): known for known in mpl.style.available}
        close = [by_lower[x] for x in difflib.get_close_matches(name.lower(), by_lower, 3, cutoff=0.5)]
        like = f"; the nearest are {', '.join(close)}" if close else f"; one is {mpl.style.available[0]}"
        raise InputError(f"--style {name}: neither a style of matplotlib nor a .mplstyle file{like}")
    if not path.is_file():
        raise InputError(f"--style {name}: there is no such file")
    complaints: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("matplotlib")
    propagates, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        read = mpl.rc_params_from_file(path, use_default_template=False)
        settings: dict[str, Any] = {str(key): value for key, value in read.items()}
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"--style {name}: it cannot be read: {error}") from None
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
    if complaints:
        raise InputError(f"--style {name}: {' '.join(complaints[0].strip().splitlines()[0].split())}")
    if not settings:
        raise InputError(f"--style {name}: it has no setting")
    return settings


def colour(place: int) -> str:
    """Return a colour of the style, by its place in the cycle of colours."""
    cycle = mpl.rcParams["axes.prop_cycle"].by_key().get("color", COLOURS)
    chosen: str = cycle[place % len(cycle)]
    return chosen


def shade(strength: float) -> str:
    """Return a grey between the style's background (0) and its text (1)."""
    ground, text = (
        np.array(rgba[:3]) if (rgba := to_rgba(mpl.rcParams[name]))[3] else np.ones(3)
        for name in ("axes.facecolor", "text.color")
    )
    mixed: Any = ground + strength * (text - ground)
    return to_hex(mixed)


def math_text(name: str) -> str:
    """Return a setting's name as figures show it, with K_audio as a formula."""
    return re.sub(r"^K_(\w+)$", r"$K_{\1}$", displayed(name))


def plain(text: str) -> str:
    """Return a user's name for a figure, without formulas and unprintable characters."""
    return "".join(character for character in text if character.isprintable()).replace("$", r"\$")


def panels_across(n: int) -> int:
    """Return how many of ``n`` panels are side by side: two of four, otherwise at most three."""
    return 2 if n == 4 else min(3, n)


def panels(figure: Figure, n: int, *, sharey: bool = False) -> list[Axes]:
    """Add ``n`` panels to a figure, row by row, and return them.

    Args:
        figure: Figure to which the panels are added.
        n: Number of panels.
        sharey: Whether all panels have the same vertical scale.
    """
    across = panels_across(n)
    grid = figure.subplots(-(-n // across), across, squeeze=False, sharey=sharey)
    axes: list[Axes] = list(grid.ravel())
    for empty in axes[n:]:
        empty.remove()
    return axes[:n]


def keep_within(panels: Sequence[Axes], low: float, high: float, axis: Literal["x", "y"] = "y") -> None:
    """Limit an axis to the range of its quantity. Markers at the ends are not cut.

    Args:
        panels: Panels with all their content. Some may share the axis.
        low: Least possible value.
        high: Greatest possible value.
        axis: Axis to limit.
    """
    for ax in panels:
        ends = ax.get_ylim() if axis == "y" else ax.get_xlim()
        shown = (max(low, ends[0]), min(high, ends[1]))
        if shown != tuple(ends):
            _set_limits(ax, axis, shown)
    for line in (line for ax in panels for line in ax.lines):
        line.set_clip_on(False)


def centre_on_zero(panels: Sequence[Axes], axis: Literal["x", "y"] = "y") -> None:
    """Give an axis of differences the same length on both sides of 0, the same in all panels.

    Args:
        panels: Panels with all their content.
        axis: Axis to centre.
    """
    ends = [abs(x) for ax in panels for x in (ax.get_ylim() if axis == "y" else ax.get_xlim())]
    for ax in panels:
        _set_limits(ax, axis, (-max(ends), max(ends)))


def _set_limits(ax: Axes, axis: Literal["x", "y"], limits: tuple[float, float]) -> None:
    if axis == "y":
        ax.set_ylim(limits)
    else:
        ax.set_xlim(limits)


def mark(label: str, marker: str = "", **look: Any) -> Line2D:
    """Return an entry of a legend: a marker with its meaning, or a remark without a marker."""
    return Line2D([], [], **{"linestyle": "none", "marker": marker, "label": label, "markersize": 5, **look})


def legend_below(figure: Figure, handles: Sequence[Artist], *, size: float = 7.0) -> None:
    """Add a legend below all panels, in as many columns as the figure's width has room for.

    Args:
        figure: Figure with a constrained layout.
        handles: Entries of the legend, each with its label.
        size: Size of the text in points.
    """
    widths = [(0.58 * len(re.sub(r"[$_{}\\]", "", str(handle.get_label()))) + 5) * size for handle in handles]
    for columns in range(len(handles), 0, -1):
        rows = -(-len(handles) // columns)
        needed = sum(max(widths[i : i + rows]) for i in range(0, len(widths), rows))
        if needed <= 72 * figure.get_figwidth() or columns == 1:
            break
    if handles:
        figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, fontsize=size)


def save(figure: Figure, path: Path, look: Look | None = None) -> list[Path]:
    """Write a figure in each format of a look and return the files.

    Args:
        figure: Figure to write.
        path: Path of the files without the ending.
        look: Formats, resolution and title. ``None`` for those of a report.
    """
    look, written = look or Look(), []
    if not look.title:
        figure.suptitle("").set_in_layout(False)
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        for form in look.forms:
            written.append(path.with_name(f"{path.name}.{form}"))
            with written_atomically(written[-1]) as temporary:
                figure.savefig(temporary, dpi=look.dpi)
            figure.set_layout_engine(None)  # the layout is done, and its proportions hold for every format
    return written

"""One style for every figure: sizes of an IEEE page, colours that the colour-blind tell apart, fonts embedded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cemobam_core.files import written_atomically
from study.design.factors import displayed

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # fonts embedded as such: journals ask for it
    "savefig.dpi": 300,
}

TEXT_WIDTH = 7.16
"""Inches, across both columns of an IEEE page."""
COLUMN_WIDTH = 3.5
"""Inches, of one."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442", "#7f7f7f")
"""Okabe and Ito's (2008), told apart by the colour-blind, and a grey; never alone: a marker goes with each."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")

FORMS = ("png", "pdf")
"""For the screen, and for print."""


def style() -> AbstractContextManager[None]:
    """Return a context in which what is drawn and saved looks as it should."""
    return mpl.rc_context(_STYLE)


def math_text(name: str) -> str:
    """Return a setting's name as figures show it: K_audio as a formula."""
    return re.sub(r"^K_(\w+)$", r"$K_{\1}$", displayed(name))


def plain(text: str) -> str:
    """Return a name from outside, as a figure may show it: no formula, nothing that cannot be printed."""
    return "".join(character for character in text if character.isprintable()).replace("$", r"\$")


def panels_across(n: int) -> int:
    """Return how many of ``n`` panels stand side by side: two where there are four, else three."""
    return 2 if n == 4 else min(3, n)


def panels(figure: Figure, n: int) -> list[Axes]:
    """Add ``n`` panels to a figure, row by row, and return them."""
    across = panels_across(n)
    grid = figure.subplots(-(-n // across), across, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for empty in axes[n:]:
        empty.remove()
    return axes[:n]


def keep_within(panels: Sequence[Axes], low: float, high: float, axis: Literal["x", "y"] = "y") -> None:
    """Let an axis show nothing beyond the range in which its figures can lie; markers at its ends stay whole.

    Args:
        panels: with all that they will show, of which some may share the axis.
        low: the least that can be.
        high: the most.
        axis: which one.
    """
    for ax in panels:
        ends = ax.get_ylim() if axis == "y" else ax.get_xlim()
        shown = (max(low, ends[0]), min(high, ends[1]))
        if shown == tuple(ends):
            continue
        if axis == "y":
            ax.set_ylim(shown)
        else:
            ax.set_xlim(shown)
    for line in (line for ax in panels for line in ax.lines):
        line.set_clip_on(False)


def save(figure: Figure, path: Path, *, forms: Sequence[str] = FORMS) -> list[Path]:
    """Write a figure as ``path`` with the ending of each form, and return what was written."""
    written = []
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font has not
        for form in forms:
            written.append(path.with_suffix(f".{form}"))
            with written_atomically(written[-1]) as temporary:
                figure.savefig(temporary)
            figure.set_layout_engine(None)  # it is laid out now, in proportions that hold for every form
    return written

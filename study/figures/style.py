"""One style for every figure: sizes of an IEEE page, colours that the colour-blind tell apart, fonts embedded."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from cemobam_core.files import written_atomically

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
    """Within it, what is drawn and saved looks as it should."""
    return mpl.rc_context(_STYLE)


def plain(text: str) -> str:
    """A name from outside, as a figure may show it: no formula, nothing that cannot be printed."""
    return "".join(character for character in text if character.isprintable()).replace("$", r"\$")


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` in every one of :data:`FORMS`."""
    written = []
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font has not
        for form in FORMS:
            written.append(path.with_suffix(f".{form}"))
            with written_atomically(written[-1]) as temporary:
                figure.savefig(temporary)
            figure.set_layout_engine(None)  # it is laid out now, in proportions that hold for every form
    return written

"""Colours of every heatmap, on paper and in a browser: their range, and ink that can be read on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Text

COLOUR_MAP = "cividis"
"""A colour map of even lightness, for grey prints and colour-blind readers."""

FRAME = "#d7191c"
"""Colour of the chosen cell's frame. With a white edge it stands out on every cell."""

_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2), 0 for black and 1 for white.

    Args:
        colour: Red, green and blue from 0 to 1. An alpha value after them is ignored.
    """
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), from 1 to 21.

    Args:
        first: One colour, see :func:`luminance`.
        second: The other colour, see :func:`luminance`.
    """
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ink(ground: Sequence[float]) -> str:
    """Return ``black`` or ``white``, the one with more contrast on a ground: at least 4.58 on any ground.

    Args:
        ground: Colour of the ground, see :func:`luminance`.
    """
    return "black" if contrast(_BLACK, ground) >= contrast(_WHITE, ground) else "white"


def ground(value: float, span: tuple[float, float], colours: str = COLOUR_MAP) -> tuple[float, float, float, float]:
    """Return the colour of a cell: red, green, blue and alpha from 0 to 1.

    Args:
        value: Value of the cell.
        span: Values at the two ends of the colour map.
        colours: Name of the colour map.
    """
    red, green, blue, alpha = map(float, mpl.colormaps[colours]((value - span[0]) / (span[1] - span[0])))
    return red, green, blue, alpha


def colour_span(values: npt.ArrayLike, *, most: float = 100.0) -> tuple[float, float]:
    """Return the values of the colour map's two ends: the range of the values, within 0 and ``most``.

    Args:
        values: Values in percent or percentage points. NaN where a cell is empty.
        most: Greatest possible value.
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if not len(known):
        return 0.0, most
    low, high = float(known.min()), float(known.max())
    return (low, high) if high - low > 1e-9 else (max(0.0, low - 1), min(most, high + 1))


def annotated(ax: Axes, values: npt.NDArray[Any]) -> Iterator[tuple[tuple[int, int], Text]]:
    """Yield the place and text of each cell of a seaborn heatmap. A cell that is NaN has no text.

    Args:
        ax: Axes with the heatmap.
        values: Values (rows, columns) of the cells.
    """
    for (row, column), text in zip(np.argwhere(~np.isnan(values)), ax.texts, strict=False):
        yield (int(row), int(column)), text

"""What each gap between the paper's text and the released code costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cemobam_core.config import Metric
from study.design import GAPS
from study.findings.analysis import MEASURES
from study.output.figures.style import COLOURS, TEXT_WIDTH, keep_within, style

_SHOWN: tuple[tuple[Metric, float], ...] = (("wa", 0.14), ("ua", -0.14))


def gaps_figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Each gap's difference in test WA and UA with its interval, from the paper's side and from the code's.

    Args:
        table: as :func:`study.output.tables.gaps_table` makes it, in percent.
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

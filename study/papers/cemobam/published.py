"""The paper's own numbers, as data, with their source.

``table1.csv`` to ``table4.csv`` hold Tables I to IV in percent, ``best_k.csv`` the best pairs of Fig. 2, all as
printed. The authors' released code calls balanced accuracy "WA" and accuracy "UA", so the two columns may be swapped.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd

from study.design.factors import Pair

SWAP_NOTE = (
    "Published figures are as printed. The authors' code computes balanced accuracy as WA and accuracy as UA, so the "
    "two may be swapped in the paper."
)


def published(name: str, dataset: str) -> pd.DataFrame:
    """Return a table of the paper for one data set. It is empty if the paper has no such rows.

    Args:
        name: The table: ``table1`` to ``table4`` or ``best_k``.
        dataset: The data set: ``iemocap`` or ``esd``.
    """
    table = _read(name)
    return table[table["dataset"] == dataset].reset_index(drop=True)


def published_systems(dataset: str) -> tuple[str, pd.DataFrame]:
    """Return the name of the table of systems on one data set, and its published rows.

    ``runs_as`` is the name for ``--system`` of the system that rebuilds a row. ``protocol`` describes split and
    classes, as far as known. ``not_run`` says why no system rebuilds the row.
    """
    for name in ("table3", "table4"):
        if len(rows := published(name, dataset)):
            return name, rows
    return "comparison", _read("table3").iloc[:0]


def paper_pairs() -> dict[str, Pair]:
    """Return the K pairs that the paper reports as best, by data set."""
    rows = _read("best_k").to_dict("records")
    return {row["dataset"]: Pair(row["k_audio"], row["k_text"]) for row in rows}


def paper_pair(dataset: str) -> Pair | None:
    """Return the K pair that the paper reports as best, or `None` if it reports none."""
    return paper_pairs().get(dataset)


def _read(name: str) -> pd.DataFrame:
    with as_file(files("study.papers.cemobam") / f"{name}.csv") as path:
        return pd.read_csv(path)

"""Tables III and IV: the systems that the paper compares with."""

from __future__ import annotations

from typing import Any

import pandas as pd

from study.design.factors import Pair
from study.findings.analysis import Analysis
from study.output.tables import Cell, Table, interval_notes, interval_words, is_best, mean_cell
from study.papers.cemobam.published import SWAP_NOTE, published


def systems_table(analysis: Analysis) -> Table | None:
    """Return Table III or IV: the systems that the paper compares with, and our row; None: the paper has none of it.

    Ours is the study's fusion with both modules at its K pair.
    """
    about, results = analysis.results.about, analysis.results
    names = [name for name in ("table3", "table4") if len(published(name, about.dataset))]
    ours = results.own
    if not names or ours.empty:
        return None
    (name,), row = names, ours.iloc[0]
    theirs = published(name, about.dataset)
    records = [
        {"system": x["system"], "year": str(x["year"]), "modalities": x["modalities"], "wa": x["wa"], "ua": x["ua"]}
        for x in theirs.to_dict("records")
    ]
    name_here = "CemoBAM" if about.system == "cemobam" else about.system
    own: dict[str, Any] = {
        **{"system": f"{name_here}, this study", "year": "", "modalities": "A+T"},
        "n_seeds": row["n_seeds"],
    }
    for measure in ("wa", "ua"):
        own |= {measure: 100 * row[f"test_{measure}_mean"]}
        own |= {f"{measure}_{x}": 100 * row[f"test_{measure}_{x}"] for x in ("std", "low", "high")}
    frame = pd.DataFrame([*records, own])
    noted = {x["system"]: x["note"] for x in theirs.to_dict("records") if isinstance(x["note"], str)}
    letters = {system: "abcdefgh"[i] for i, system in enumerate(noted)}
    cells: list[tuple[str | Cell, ...]] = [
        (
            Cell(x["system"], mark=letters.get(x["system"], "")),
            x["year"],
            x["modalities"],
            *(mean_cell(x[m], x[f"{m}_low"], x[f"{m}_high"], bold=is_best(x[m], frame[m])) for m in ("wa", "ua")),
        )
        for x in frame.to_dict("records")
    ]
    notes = [*interval_notes(frame.tail(1)), *(f"{letters[system]} {note}." for system, note in noted.items())]
    if row["n_seeds"] < len(results.own_seeds):
        notes.append(f"Ours rests on {row['n_seeds']:.0f} of {len(results.own_seeds)} seeds.")
    notes.append(
        "The systems were not measured under one protocol: splits, folds and sometimes classes are each one's own, and "
        "the others' figures are as the paper prints them, so a difference between rows is no test."
    )
    return Table(
        name=name,
        caption=f"Other systems on {about.title}, and this study ({_at(about.at)}): percent, ours a mean over "
        f"{row['n_seeds']:.0f} seeds{interval_words(frame)}",
        notes=(*notes, SWAP_NOTE),
        frame=frame,
        head="System",
        groups=(("", ("Year", "Input", "WA", "UA")),),
        cells=tuple(cells),
    )


def _at(pair: Pair | None) -> str:
    return f"K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else "no pair yet"

"""Several studies side by side: two data sets, two profiles, two split protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.design.factors import displayed
from study.findings.analysis import MEASURES, Analysis
from study.findings.results import Results
from study.output.tables import Cell, Table, interval_notes, interval_words, mean_cell
from study.papers.cemobam import paper
from study.papers.cemobam.claims import claims


def _measures(studies: Mapping[str, Results]) -> dict[str, str]:
    """Return the metrics that all studies have, by name, and how they are shown."""
    return {name: label for name, label in MEASURES.items() if all(name in r.measures for r in studies.values())}


def _figures(measures: Mapping[str, str]) -> list[str]:
    return [f"{measure}_{figure}" for measure in measures for figure in ("mean", "low", "high")]


def compare(studies: Mapping[str, Results]) -> list[Table]:
    """Tables of several studies: their chosen configurations, fusion strategies, ablations, and verdicts on the claims.

    Nothing here is tested between studies: other data, splits or settings are more than another seed.

    Args:
        studies: by the label that columns and rows show; at least one.
    """
    notes = _notes(studies)
    tables = [_chosen(studies, notes)]
    blocks = {block.name: block for results in studies.values() for block in results.about.blocks}
    for name, block in blocks.items():
        # the study's own configuration may be there without the block: it is there when it has more
        there = any(len(results.block(name)) > 1 for results in studies.values())
        if block.compared and len(block.columns) == 1 and there:
            tables.append(_block(studies, name, notes))
    return [*tables, *([table] if (table := _verdicts(studies, notes)) else [])]


def _chosen(studies: Mapping[str, Results], notes: Sequence[str]) -> Table:
    measures = _measures(studies)
    rows: list[dict[str, Any]] = []
    cells: list[tuple[str | Cell, ...]] = []
    for label, results in studies.items():
        about = results.about
        own = results.own
        record = dict(own.iloc[0]) if len(own) else {}
        n = int(record.get("n_seeds", 0))
        pair = str(about.at) if about.at else "–"
        figures = {name: 100 * record.get(f"test_{name}", float("nan")) for name in _figures(measures)}
        rows.append({"study": label, "profile": about.profile, "k": pair, "n_seeds": n, **figures})
        cells.append(
            (
                label,
                about.profile,
                pair,
                f"{n}",
                *(mean_cell(*(figures[f"{m}_{x}"] for x in ("mean", "low", "high"))) for m in measures),
            )
        )
    frame = pd.DataFrame(rows)
    return Table(
        name="compare",
        caption=f"The studies at their K pairs: test split, percent, mean over seeds{interval_words(frame)}",
        notes=(*interval_notes(frame), *notes),
        frame=frame,
        head="Study",
        groups=(("", ("Profile", "K", "n", *measures.values())),),
        cells=tuple(cells),
        wide=True,
    )


def _block(studies: Mapping[str, Results], name: str, notes: Sequence[str]) -> Table:
    """Return a block's configurations side by side, in the order in which the studies name them."""
    measures = _measures(studies)
    abouts = {label: block for label, results in studies.items() if (block := results.about.block(name))}
    shown = {key: block.label(key) for label, block in abouts.items() for key in studies[label].keys(block)}
    (column,), first = next(iter(abouts.values())).columns, next(iter(abouts.values()))
    rows: list[dict[str, Any]] = []
    cells: list[list[str | Cell]] = [[label] for label in shown.values()]
    for label, results in studies.items():
        frame = results.block(name)
        ours = frame.set_index(column if column in frame else "profile").reindex([key[0] for key in shown])
        for key, record, row in zip(shown, ours.to_dict("records"), cells, strict=True):
            figures = {figure: 100 * record[f"test_{figure}"] for figure in _figures(measures)}
            n = 0 if pd.isna(record["n_seeds"]) else int(record["n_seeds"])
            rows.append({"study": label, column: first.name_of(key), "n_seeds": n, **figures})
            for measure in measures:
                best = 100 * ours[f"test_{measure}_mean"].max()
                mean, low, high = (figures[f"{measure}_{x}"] for x in ("mean", "low", "high"))
                row.append(mean_cell(mean, low, high, bold=pd.notna(mean) and mean >= best - 1e-9))
    made = pd.DataFrame(rows)
    labels = {first.name_of(key): label for key, label in shown.items()}
    short = [f"{row['study']} {labels[row[column]]} {row['n_seeds']}" for row in rows]
    different = len({row["n_seeds"] for row in rows}) > 1
    return Table(
        name=f"compare_{name}",
        caption=f"{first.title}: test split, percent, mean over seeds{interval_words(made)}",
        notes=(*interval_notes(made), *([f"Seeds: {', '.join(short)}."] if different else []), *notes),
        frame=made,
        head=displayed(column),
        groups=tuple((label, tuple(measures.values())) for label in studies),
        cells=tuple(map(tuple, cells)),
        wide=True,
    )


def _verdicts(studies: Mapping[str, Results], notes: Sequence[str]) -> Table | None:
    """Return what each study says to the paper's claims; None: no study is the paper's."""
    papers = {block.name for block in (*paper.blocks, *paper.optional)}
    about_it = [
        r for r in studies.values() if r.about.system == "cemobam" and papers & {b.name for b in r.about.blocks}
    ]
    if not about_it:
        return None
    made = {label: claims(Analysis(results)) for label, results in studies.items()}
    rows = [
        {"study": label, "id": claim.id, "claim": claim.claim, "verdict": claim.verdict, "numbers": claim.numbers}
        for label, of_one in made.items()
        for claim in of_one
    ]
    by_claim = zip(*made.values(), strict=True)
    return Table(
        name="compare_claims",
        caption="What each study says to the paper's claims",
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        head="Claim",
        groups=(("", tuple(made)),),
        cells=tuple((one[0].id.replace("_", " "), *(claim.verdict for claim in one)) for one in by_claim),
        wide=len(studies) > 2,
    )


def _notes(studies: Mapping[str, Results]) -> list[str]:
    """What each study is, in a sentence: the settings in which they differ, and no others."""
    settings = {
        label: {**results.about.settings, "folds": results.about.folds, "seeds": len(results.about.seeds)}
        for label, results in studies.items()
    }
    names = list(dict.fromkeys(name for one in settings.values() for name in one))
    differing = [name for name in names if len({str(one.get(name)) for one in settings.values()}) > 1]
    return [
        f"{label}: {results.about.title}, "
        + ", ".join(f"{name} {settings[label].get(name, 'not set')}" for name in dict.fromkeys(["profile", *differing]))
        + "."
        for label, results in studies.items()
    ]

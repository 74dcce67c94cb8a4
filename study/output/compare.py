"""Several studies side by side: two data sets, two profiles, two split protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cemobam_core.config import FUSIONS, MODULES
from study.findings.analysis import MEASURES, Analysis
from study.findings.results import Results
from study.output.tables import Cell, Table, interval_notes, interval_words, mean_cell
from study.papers.cemobam.claims import LABELS, claims

_FIGURES = tuple(f"{measure}_{figure}" for measure in MEASURES for figure in ("mean", "low", "high"))


def compare(studies: Mapping[str, Results]) -> list[Table]:
    """Tables of several studies: their chosen configurations, fusion strategies, ablations, and verdicts on the claims.

    Nothing here is tested between studies: other data, splits or settings are more than another seed.

    Args:
        studies: by the label that columns and rows show; at least one.
    """
    notes = _notes(studies)
    tables = [_chosen(studies, notes)]
    for key, variants, title in (("fusion", FUSIONS, "Fusion strategies"), ("modules", MODULES, "Ablations")):
        frames = {label: results.fusion if key == "fusion" else results.ablation for label, results in studies.items()}
        # the study's own configuration is in either frame: a block is there when it has more
        if any(len(frame) > 1 for frame in frames.values()):
            tables.append(_variants(frames, key, variants, title, notes))
    return [*tables, _verdicts(studies, notes)]


def _chosen(studies: Mapping[str, Results], notes: Sequence[str]) -> Table:
    rows: list[dict[str, Any]] = []
    cells: list[tuple[str | Cell, ...]] = []
    for label, results in studies.items():
        about = results.about
        own = results.fusion[results.fusion["fusion"] == about.fusion]
        record = dict(own.iloc[0]) if len(own) else {}
        n = int(record.get("n_seeds", 0))
        pair = str(about.at) if about.at else "–"
        figures = {name: 100 * record.get(f"test_{name}", float("nan")) for name in _FIGURES}
        rows.append({"study": label, "profile": about.profile, "k": pair, "n_seeds": n, **figures})
        cells.append(
            (
                label,
                about.profile,
                pair,
                f"{n}",
                *(mean_cell(*(figures[f"{m}_{x}"] for x in ("mean", "low", "high"))) for m in MEASURES),
            )
        )
    frame = pd.DataFrame(rows)
    return Table(
        name="compare",
        caption=f"The studies at their K pairs: test split, percent, mean over seeds{interval_words(frame)}",
        notes=(*interval_notes(frame), *notes),
        frame=frame,
        head="Study",
        groups=(("", ("Profile", "K", "n", *MEASURES.values())),),
        cells=tuple(cells),
        wide=True,
    )


def _variants(
    frames: Mapping[str, pd.DataFrame], key: str, variants: Sequence[str], title: str, notes: Sequence[str]
) -> Table:
    rows = []
    cells: list[list[str | Cell]] = [[LABELS[variant]] for variant in variants]
    for label, frame in frames.items():
        ours = frame.set_index(key).reindex(list(variants))
        for variant, record, row in zip(variants, ours.to_dict("records"), cells, strict=True):
            figures = {name: 100 * record[f"test_{name}"] for name in _FIGURES}
            n = 0 if pd.isna(record["n_seeds"]) else int(record["n_seeds"])
            rows.append({"study": label, key: variant, "n_seeds": n, **figures})
            for measure in MEASURES:
                best = 100 * ours[f"test_{measure}_mean"].max()
                mean, low, high = (figures[f"{measure}_{x}"] for x in ("mean", "low", "high"))
                row.append(mean_cell(mean, low, high, bold=pd.notna(mean) and mean >= best - 1e-9))
    short = [f"{row['study']} {LABELS[row[key]]} {row['n_seeds']}" for row in rows]
    different = len({row["n_seeds"] for row in rows}) > 1
    made = pd.DataFrame(rows)
    return Table(
        name=f"compare_{'fusion' if key == 'fusion' else 'ablation'}",
        caption=f"{title}: test split, percent, mean over seeds{interval_words(made)}",
        notes=(*interval_notes(made), *([f"Seeds: {', '.join(short)}."] if different else []), *notes),
        frame=made,
        head="Fusion" if key == "fusion" else "Model",
        groups=tuple((label, tuple(MEASURES.values())) for label in frames),
        cells=tuple(map(tuple, cells)),
        wide=True,
    )


def _verdicts(studies: Mapping[str, Results], notes: Sequence[str]) -> Table:
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

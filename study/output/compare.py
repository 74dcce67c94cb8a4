"""Several studies side by side: two data sets, two profiles, two split protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from study.design.factors import displayed
from study.design.tuning import DEFAULTS, TUNED
from study.findings.analysis import MEASURES, Analysis
from study.findings.ranks import ranked, why_not
from study.findings.results import Results
from study.findings.systems import complete, contenders, mean_of, measured_block, reference_of
from study.findings.wording import listed
from study.output.figures import captions
from study.output.figures.critical import critical_figure
from study.output.figures.plane import Plane, joint_figure, plane_of
from study.output.tables import Cell, Table, interval_notes, interval_words, mean_cell
from study.papers.cemobam import paper
from study.papers.cemobam.claims import claims

_FEW = 2
"""Most studies of which a table of systems shows two metrics. With more studies, it shows one."""

_OF_THE_PAPER = ("wa", "ua", "wf1")
"""Metrics that the paper reports: three fit on a page."""


def _measures(studies: Mapping[str, Results]) -> dict[str, str]:
    """Return the metrics that all studies have, by name, with their labels."""
    return {name: label for name, label in MEASURES.items() if all(name in r.measures for r in studies.values())}


def _figures(measures: Mapping[str, str]) -> list[str]:
    return [f"{measure}_{figure}" for measure in measures for figure in ("mean", "low", "high")]


def compare(studies: Mapping[str, Results]) -> list[Table]:
    """Return tables of several studies: their chosen configurations, blocks, systems, and verdicts on the claims.

    Nothing here is tested between studies, because they differ by more than their seeds: in data, splits or settings.

    Args:
        studies: At least one study, by the label that columns and rows show.
    """
    notes = _notes(studies)
    tables = [_chosen(studies, notes)]
    blocks = {block.name: block for results in studies.values() for block in results.about.blocks}
    for name, block in blocks.items():
        # the study's own configuration may have run for another block: this one has run if it has more
        there = any(len(results.block(name)) > 1 for results in studies.values())
        of_systems = (name, block.columns) in ((TUNED, ("profile",)), (DEFAULTS, ("system",)))
        if block.compared and len(block.columns) == 1 and there and not of_systems:
            tables.append(_block(studies, name, notes))
    made = (_systems(studies, notes), _verdicts(studies, notes))
    return [*tables, *(table for table in made if table)]


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


def _systems(studies: Mapping[str, Results], notes: Sequence[str]) -> Table | None:
    """Return the systems over all studies that compare systems, or `None` if no study does."""
    blocks = {label: block for label, results in studies.items() if (block := measured_block(results))}
    if not blocks:
        return None
    measures = _measures(studies)
    shown = list(measures)[: 2 if len(blocks) <= _FEW else 1]
    of = {label: {x.name: x for x in contenders(studies[label], block)} for label, block in blocks.items()}
    names = list(dict.fromkeys(name for one in of.values() for name in one))
    told = {name: x.told for one in of.values() for name, x in one.items()}
    scores = system_scores(studies)
    ranks = dict(zip((r := ranked(scores)).names, r.means, strict=True)) if scores.size and len(scores) > 1 else {}
    names.sort(key=lambda name: ranks.get(told[name], len(told)))  # in their order where there is no rank
    rows: list[dict[str, Any]] = []
    cells: list[list[str | Cell]] = [[told[name]] for name in names]
    for label, block in blocks.items():
        results = studies[label]
        frame = results.block(block.name)
        records = dict(zip(map(str, frame[block.columns[0]]), frame.to_dict("records"), strict=True))
        keys = {x.name: str(key[0]) for x, key in zip(of[label].values(), results.keys(block), strict=True)}
        reference = reference_of(list(of[label].values()), block)
        others = [x for x in of[label].values() if x is not reference]
        made = Analysis(results).contest(block, [(reference, x) for x in others])
        differs = {x.name for x, c in zip(others, made, strict=True) if c and c.verdict in ("better", "worse")}
        best = {m: 100 * frame[f"test_{m}_mean"].max() for m in measures}
        for name, row in zip(names, cells, strict=True):
            record = records.get(keys.get(name, ""), {})
            figures = {figure: 100 * record.get(f"test_{figure}", float("nan")) for figure in _figures(measures)}
            n = int(record.get("n_seeds", 0))
            rows.append({"study": label, "system": name, "block": block.name, "n_seeds": n, **figures})
            for m in shown:
                mean, low, high = (figures[f"{m}_{x}"] for x in ("mean", "low", "high"))
                mark = "*" if name in differs and m == results.about.select_by else ""
                row.append(mean_cell(mean, low, high, bold=pd.notna(mean) and mean >= best[m] - 1e-9, mark=mark))
    for row in cells if ranks else ():
        row.append(f"{ranks[str(row[0])]:.2f}" if row[0] in ranks else "–")
    made_frame = pd.DataFrame(rows)
    how = {TUNED: "each system tuned over an equal budget", DEFAULTS: "default settings, so not an equal budget"}
    over = f"mean over seeds{interval_words(made_frame)}"
    return Table(
        name="compare_systems",
        caption=f"The systems of {listed(list(blocks))}: test split, percent, {over}",
        notes=(
            *interval_notes(made_frame),
            *(f"{label}: {how[block.name]}." for label, block in blocks.items()),
            "* differs from CemoBAM in its study (p < 0.05 after Holm's correction, by the metric that decides there).",
            *(["Rank: by WA, the mean over the studies, 1 being the best."] if ranks else []),
            *notes,
        ),
        frame=made_frame,
        head="System",
        groups=(
            *((label, tuple(measures[m] for m in shown)) for label in blocks),
            *([("", ("Rank",))] if ranks else []),
        ),
        cells=tuple(map(tuple, cells)),
        wide=True,
    )


def system_scores(studies: Mapping[str, Results]) -> pd.DataFrame:
    """Return the WA of the systems that all studies have measured, with a row per study and a column per system.

    Args:
        studies: Results by label. A study that compares no systems has no row.
    """
    rows = {}
    for label, results in studies.items():
        if block := measured_block(results):
            done = [x for x in contenders(results, block) if complete(results, x.row, block.seeds[: x.n_seeds])]
            rows[label] = {x.told: mean_of(results, x, block, "test_wa") for x in done}
    return pd.DataFrame.from_dict(rows, orient="index").dropna(axis=1)


def ranks_figure(studies: Mapping[str, Results]) -> Figure | str:
    """Return the critical-difference diagram over corpora, or the reason why there is none.

    Args:
        studies: Results by label, each from a different data set.
    """
    scores = system_scores(studies)
    corpora = len({studies[label].about.dataset for label in scores.index})
    if why := why_not(corpora, scores.shape[1], "corpora"):
        return why
    if corpora < len(scores):
        return "two studies are of the same data set, and would count twice"
    return critical_figure(ranked(scores), title="Systems, WA", of="corpora")


def joint_grids(studies: Mapping[str, Results]) -> tuple[dict[str, Plane], list[str]]:
    """Return the K grids of the studies that can be drawn in one figure, and why others are left out.

    Grids can be drawn together if they have the same K_audio and K_text. The most frequent ones are drawn.

    Args:
        studies: Results by label.

    Returns:
        The planes by label, empty if fewer than two can be drawn. A sentence for each study that is left out.
    """
    planes = {}
    for label, results in studies.items():
        block = results.about.choosing
        if block and results.block(block.name)[list(block.columns)].notna().all(axis=None):
            plane = plane_of(results, block)
            if not plane.frame.empty:
                planes[label] = plane
    if not planes:
        return {}, []
    values = {label: _k_values(plane) for label, plane in planes.items()}
    common, n = Counter(values.values()).most_common(1)[0]
    left_out = [f"{label} is left out: it has no K grid." for label in studies if label not in planes]
    if n < 2:
        grids = listed([f"{label} ({told})" for label, told in values.items()])
        return {}, [f"It takes two studies with the same K grid; here are {grids}."]
    left_out += [
        f"{label} is left out: its grid has {told}, that of the others has {common}."
        for label, told in values.items()
        if told != common
    ]
    return {label: plane for label, plane in planes.items() if values[label] == common}, left_out


def _k_values(plane: Plane) -> str:
    """Describe the values of both K of a grid."""
    of = dict(zip(plane.columns, (plane.xs, plane.ys), strict=True))
    return f"K_audio {_span(of['k_audio'])} and K_text {_span(of['k_text'])}"


def _span(values: Sequence[float]) -> str:
    """Return whole numbers as ``1 to 10``, or as a list if some between are missing."""
    ordered = sorted(map(int, values))
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def grids_figure(planes: Mapping[str, Plane], studies: Mapping[str, Results]) -> tuple[Figure, str]:
    """Return the K grids of several studies in one figure, as the paper's Fig. 2, and its caption.

    Args:
        planes: Planes by label, from :func:`joint_grids`.
        studies: Results of all compared studies, by label.
    """
    measures = {name: label for name, label in _measures(studies).items() if name in _OF_THE_PAPER}
    return joint_figure(planes, measures), captions.joint(planes)


def _verdicts(studies: Mapping[str, Results], notes: Sequence[str]) -> Table | None:
    """Return the verdict of each study on the paper's claims, or `None` if no study runs the paper's blocks."""
    papers = {block.name for block in (*paper.blocks, *paper.optional)}
    about_it = [
        r for r in studies.values() if r.about.system == "cemobam" and papers & {b.name for b in r.about.blocks}
    ]
    if not about_it:
        return None
    made = {label: claims(Analysis(results)) for label, results in studies.items()}
    rows = [
        {"study": label, "id": claim.id, "claim": claim.claim, "verdict": claim.verdict, "answer": claim.answer}
        for label, of_one in made.items()
        for claim in of_one
    ]
    by_claim = zip(*made.values(), strict=True)
    return Table(
        name="compare_claims",
        caption="The verdict of each study on the paper's claims",
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        head="Claim",
        groups=(("", tuple(made)),),
        cells=tuple((one[0].id.replace("_", " "), *(claim.verdict for claim in one)) for one in by_claim),
        wide=len(studies) > 2,
    )


def _notes(studies: Mapping[str, Results]) -> list[str]:
    """Return a sentence for each study, with the settings in which the studies differ."""
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

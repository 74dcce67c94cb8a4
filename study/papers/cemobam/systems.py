"""Tables III and IV: every system measured under one protocol, beside the published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.design.tuning import DEFAULTS, TUNED
from study.findings.analysis import MEASURES, Analysis, Comparison, Contender
from study.findings.results import About, AboutBlock, Results
from study.findings.statistics import LEVEL
from study.findings.systems import (
    complete,
    contenders,
    mean_of,
    measured_block,
    reference_of,
    uses_graph,
)
from study.findings.wording import TRANSDUCTIVE, WHOSE, listed, reverse, seeds_in_words
from study.output.tables import (
    MEASURED,
    Cell,
    Table,
    interval_notes,
    interval_words,
    is_best,
    mean_cell,
    number,
    where,
    with_interval,
)
from study.papers.cemobam.published import SWAP_NOTE, published_systems

NAMES = ("table3", "table4", "comparison")
"""The names of the table: the paper's, or ``comparison`` on data that the paper does not use."""

MISSING = {
    "unbuilt": "there is no published code or specification to build them from",
    "encoders": "the system trains its encoders; this tool does not",
}
"""Explanations why a system is not measured, by the reason in the csv."""

_PROTOCOLS = (
    "The published systems used their own splits, folds and sometimes classes, so a difference to their figures, or "
    "between them, is not a test."
)

_SHOWN = ("wa", "ua", "wf1")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A system and its scores in this study.

    Attributes:
        contender: The system.
        figures: The figures of its aggregate, by name. Empty if it is not finished.
        difference: The difference between the reference and it. `None` for the reference, or if it is not finished.
        parameters: The number of trained parameters. NaN if there are none, or the ledger does not know.
        seconds: The mean seconds of one training. NaN if it is not finished.
        defaults: The mean of each metric with default settings, if it was tuned. Empty if it is not finished or not
            tuned.
    """

    contender: Contender
    figures: dict[str, float]
    difference: Comparison | None
    parameters: float
    seconds: float
    defaults: dict[str, float]


def measured(analysis: Analysis) -> tuple[AboutBlock | None, list[Measured]]:
    """Return the block that compares systems and its systems. Without a block, use the study's own configuration.

    Args:
        analysis: The analysis of the study.
    """
    results = analysis.results
    about, block = results.about, measured_block(results)
    if block is None:
        if results.own.empty:
            return None, []
        own = Contender(
            name=about.system,
            row=about.base,
            n_seeds=len(results.own_seeds),
            uses_graph=uses_graph(about, about.base),
        )
        return None, [_measured(results, own, results.own_seeds, record=dict(results.own.iloc[0]))]
    of = contenders(results, block)
    reference = reference_of(of, block)
    others = [x for x in of if x is not reference]
    made = analysis.contest(block, [(reference, x) for x in others])
    differences = dict(zip((x.name for x in others), made, strict=True))
    frame = results.block(block.name)
    aggregated = dict(zip(map(str, frame[block.columns[0]]), frame.to_dict("records"), strict=True))
    keys = results.keys(block)
    plain = _defaults(results) if block.name == TUNED else {}
    return block, [
        _measured(
            results,
            x,
            block.seeds[: x.n_seeds],
            record=aggregated.get(str(key[0]), {}),
            difference=differences.get(x.name),
            defaults=plain.get(x.name, {}),
        )
        for x, key in zip(of, keys, strict=True)
    ]


def _measured(
    results: Results,
    contender: Contender,
    seeds: Sequence[int],
    *,
    record: dict[Any, Any],
    difference: Comparison | None = None,
    defaults: dict[str, float] | None = None,
) -> Measured:
    trials = results.of_row(contender.row)
    done = trials[(trials["status"] == "done") & trials["seed"].isin(seeds)]
    known = done["parameters"].dropna()
    return Measured(
        contender=contender,
        figures={str(name): float(x) for name, x in record.items() if isinstance(x, int | float | np.number)},
        difference=difference,
        parameters=float(known.iloc[0]) if len(known) else np.nan,
        seconds=float(done["seconds"].mean()) if len(done) else np.nan,
        defaults=defaults or {},
    )


def _defaults(results: Results) -> dict[str, dict[str, float]]:
    """Return the means with default settings, by system and metric."""
    block = results.about.block(DEFAULTS)
    if block is None or block.columns != ("system",):
        return {}
    made: dict[str, dict[str, float]] = {}
    for x in contenders(results, block):
        if complete(results, x.row, block.seeds[: x.n_seeds]):
            made[x.name] = {m: mean_of(results, x, block, f"test_{m}") for m in results.measures}
    return made


def systems_table(analysis: Analysis) -> Table | None:
    """Return Table III or IV with its measured half, or `None` without a comparison and a published table.

    Args:
        analysis: The analysis of the study.
    """
    results, about = analysis.results, analysis.results.about
    name, theirs = published_systems(about.in_papers)
    block, ours = measured(analysis)
    if not ours or (block is None and theirs.empty):
        return None
    known = {x["runs_as"]: x for x in theirs.to_dict("records") if isinstance(x["runs_as"], str)}
    here = [_record(x, known.get(x.contender.name, {}), analysis) for x in ours]
    here.sort(key=lambda x: -x["wa"] if pd.notna(x["wa"]) else np.inf)
    there = {x["runs_as"] for x in here}
    rest = [x for x in theirs.to_dict("records") if x["runs_as"] not in there]
    frame = pd.DataFrame([*here, *(_printed(x) for x in rest)])
    letters = {x["system"]: "abcdefgh"[i] for i, x in enumerate(_noted(frame))}
    shown = [m for m in _SHOWN if m in results.measures]
    compared, tuned = block is not None, block is not None and block.name == TUNED
    columns = [results.measures[m] for m in shown]
    columns += ["Defaults"] if tuned else []
    columns += ["Difference"] if compared else []
    groups = [
        (MEASURED, (*columns, "Params", "Sec.")),
        *([("Published", ("WA", "UA", "Year", "Protocol"))] if len(theirs) else []),
    ]
    cells = [
        _cells(x, frame, shown, letters, compared=compared, tuned=tuned, printed=len(theirs) > 0)
        for x in frame.to_dict("records")
    ]
    seeds = int(frame["n_seeds"].max())
    return Table(
        name=name,
        caption=f"Systems: percent on the test split of {about.title}{_at(about, block)}; mean over "
        f"{seeds_in_words(seeds)}{interval_words(frame)}{', beside published figures' if len(theirs) else ''}",
        notes=tuple(_notes(analysis, block, frame, letters, tuned=tuned)),
        frame=frame,
        head="System",
        groups=tuple(groups),
        cells=tuple(cells),
        wide=True,
    )


def _record(x: Measured, theirs: dict[Any, Any], analysis: Analysis) -> dict[str, Any]:
    """Return the csv row of a measured system."""
    made = x.difference
    away = reverse(made.difference) if made else None
    figures = {
        f"{m}{suffix}": 100 * x.figures.get(f"test_{m}_{figure}", np.nan)
        for m in analysis.results.measures
        for suffix, figure in (("", "mean"), ("_std", "std"), ("_low", "low"), ("_high", "high"))
    }
    return {
        **{
            "system": theirs.get("system", x.contender.told),
            "runs_as": x.contender.name,
            "graph": x.contender.uses_graph,
        },
        "n_seeds": int(x.figures.get("n_seeds", 0)),
        **figures,
        **{"wa_defaults": 100 * x.defaults.get("wa", np.nan)},
        "difference": 100 * away.mean if away else np.nan,
        "difference_low": 100 * away.low if away else np.nan,
        "difference_high": 100 * away.high if away else np.nan,
        "p_holm": made.p_holm if made else np.nan,
        **{"parameters": x.parameters, "seconds": x.seconds},
        **_printed(theirs, system=False),
    }


def _printed(theirs: dict[Any, Any], *, system: bool = True) -> dict[str, Any]:
    """Return the csv columns of a published row."""
    named = {"system": theirs["system"], "n_seeds": 0} if system else {}
    return {
        **named,
        **{"wa_published": theirs.get("wa", np.nan), "ua_published": theirs.get("ua", np.nan)},
        **{name: theirs.get(name, np.nan) for name in ("year", "modalities", "protocol", "note", "not_run")},
    }


def _noted(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return [x for x in frame.to_dict("records") if isinstance(x["note"], str)]


def _cells(
    x: dict[Any, Any],
    frame: pd.DataFrame,
    shown: Sequence[str],
    letters: dict[str, str],
    *,
    compared: bool,
    tuned: bool,
    printed: bool,
) -> tuple[str | Cell, ...]:
    ours = bool(x["n_seeds"])
    made: list[str | Cell] = [Cell(x["system"], mark=letters.get(x["system"], ""))]
    for m in shown:
        cell = mean_cell(x[m], x[f"{m}_low"], x[f"{m}_high"], bold=is_best(x[m], frame[m]))
        made.append(cell if ours else "")
    if tuned:
        made.append(number(x["wa_defaults"]) if ours or pd.notna(x["wa_defaults"]) else "")
    if compared:
        told = pd.notna(x["difference"])
        text = with_interval(x["difference"], x["difference_low"], x["difference_high"]) if told else ""
        made.append(Cell(text, mark="*" if x["p_holm"] < LEVEL else ""))
    made += [parameters_cell(x["parameters"]), seconds_cell(x["seconds"])] if ours else ["", ""]
    if printed:
        theirs = pd.notna(x["wa_published"]) or pd.notna(x["ua_published"])
        for m in ("wa", "ua"):
            value = x[f"{m}_published"]
            made.append(Cell(number(value), bold=is_best(value, frame[f"{m}_published"])) if theirs else "")
        protocol = x["protocol"] if isinstance(x["protocol"], str) else "not stated"
        made += [str(int(x["year"])), protocol] if theirs else ["", ""]
    return tuple(made)


def _notes(
    analysis: Analysis, block: AboutBlock | None, frame: pd.DataFrame, letters: dict[str, str], *, tuned: bool
) -> list[str]:
    results, about = analysis.results, analysis.results.about
    here = frame[frame["n_seeds"] > 0]
    notes = interval_notes(here)
    wanted = len(block.seeds) if block else len(results.own_seeds)
    if short := [f"{x['system']} {x['n_seeds']}" for x in _ours(frame) if x["n_seeds"] < wanted and not about.looks]:
        notes.append(f"Finished seeds, where fewer than {wanted}: {', '.join(short)}.")
    if block:
        of = contenders(results, block)
        how = (
            "each with the configuration that validation chose over an equal budget. Defaults: its WA with default "
            "settings"
            if tuned
            else "each with its default settings, so the budgets are not equal"
        )
        notes.append(f"{MEASURED}: all systems on the same utterances, folds and seeds, {how}.")
        repetition = WHOSE[block.decided_by if results.kept is not None else "seed"]
        away = f"Difference: points of {MEASURES[analysis.metric]} minus {reference_of(of, block).told}"
        notes.append(
            f"{away}, with the 95% interval for {repetition}. * p < 0.05 after Holm's correction over {len(of) - 1}."
        )
        if joint := [x.told for x in of if x.transductive]:
            notes.append(f"{listed(joint)}: {TRANSDUCTIVE}.")
    notes.append("Params: number of trained parameters. Sec.: mean seconds of one training.")
    notes += [f"{letters[x['system']]} {x['note']}." for x in _noted(frame)]
    if "wa_published" in frame and frame["year"].notna().any():
        notes.append(_PROTOCOLS)
        for reason, told in MISSING.items():
            if names := [str(x) for x in frame.loc[(frame["not_run"] == reason), "system"]]:
                notes.append(f"Not measured: {listed(names)}: {told}.")
        notes.append(SWAP_NOTE)
    return notes


def _ours(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the records of the systems that run here, finished or not."""
    return [x for x in frame.to_dict("records") if isinstance(x.get("graph"), bool)]


def _at(about: About, block: AboutBlock | None) -> str:
    """Return the pair of the measured systems, if they have one."""
    if block:
        return where(about, block).removeprefix(about.title)
    pair = about.at
    return f", K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else ""


def parameters_cell(n: float) -> str:
    """Return a number of parameters: 812, 45k, 3.1M, or a dash if it is missing."""
    if np.isnan(n):
        return "–"
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}" if n / size < 100 else f"{n / size:.0f}{unit}"
    return f"{n:.0f}"


def seconds_cell(seconds: float) -> str:
    """Return seconds with two significant digits: 0.021, 1.3, 12, 130, or a dash if it is missing."""
    if np.isnan(seconds):
        return "–"
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"

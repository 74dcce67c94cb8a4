"""Tables as csv, Markdown and LaTeX: the paper's Tables I to IV beside its figures, and what is behind the claims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cemobam_core.config import Metric
from cemobam_core.files import written_atomically
from study.design import GAPS
from study.findings.analysis import MEASURES, REFERENCES, Analysis, Comparison
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, holm, paired
from study.papers.cemobam import SWAP_NOTE, published
from study.papers.cemobam.claims import LABELS, points, signed

TABLE_FORMS = ("csv", "md", "tex")

_MANY = 6  # columns that a column of a paper takes in footnotesize

_HEADS = {"fusion": "Fusion", "modules": "Model"}


class Cell(NamedTuple):
    """What stands in a table's cell.

    Attributes:
        text: as it is read.
        bold: whether it is the best of its column.
        mark: to a note: ``*`` or ``†``.
    """

    text: str
    bold: bool = False
    mark: str = ""

    def markdown(self) -> str:
        """For a repository or a terminal."""
        text = self.text.replace("|", "\\|")
        return (f"**{text}**" if self.bold else text) + self.mark.replace("*", "\\*")

    def latex(self) -> str:
        """For a paper."""
        text = _escaped(self.text)
        mark = self.mark.replace("†", r"\dagger")
        return (rf"\textbf{{\boldmath {text}}}" if self.bold else text) + (f"$^{{{mark}}}$" if mark else "")


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """One table in its three forms.

    Attributes:
        name: of the files: ``table1``.
        caption: what it shows, in one sentence.
        notes: what a reader must know to trust it.
        frame: the numbers, in percent as the paper prints them: what the csv holds.
        head: the first column's name.
        groups: the other columns by group: each group's title, and the names of its columns.
        cells: what is printed: a row each, its label first.
        wide: whether LaTeX sets it across both columns of a page.
    """

    name: str
    caption: str
    notes: tuple[str, ...]
    frame: pd.DataFrame
    head: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    cells: tuple[tuple[str | Cell, ...], ...]
    wide: bool = False

    @property
    def titled(self) -> bool:
        """Whether its groups of columns have titles."""
        return any(title for title, _ in self.groups)

    @property
    def rows(self) -> list[list[Cell]]:
        """What is printed, as cells throughout."""
        return [[_cell(cell) for cell in row] for row in self.cells]

    def markdown(self) -> str:
        """For a repository or a terminal; our own columns go without their group's title."""
        head = [self.head]
        for title, columns in self.groups:
            head += [column if title in ("", "Ours") else f"{column} ({title.lower()})" for column in columns]
        body = pd.DataFrame([[cell.markdown() for cell in row] for row in self.rows], columns=head)
        align = ("left",) + ("right",) * (len(head) - 1)
        table = body.to_markdown(index=False, disable_numparse=True, colalign=align)
        notes = "".join(f"\n\n{plain_markdown(note)}" for note in self.notes)
        return f"**{plain_markdown(self.caption)}**\n\n{table}{notes}\n"

    def latex(self) -> str:
        """For a two-column paper; needs ``booktabs``."""
        environment = "table*" if self.wide else "table"
        spans, rules, first = [""], [], 2
        for title, columns in self.groups:
            spans.append(f"\\multicolumn{{{len(columns)}}}{{c}}{{{_escaped(title)}}}")
            rules.append(f"\\cmidrule(l){{{first}-{first + len(columns) - 1}}}")
            first += len(columns)
        head = [self.head, *(column for _, columns in self.groups for column in columns)]
        rows = [spans, list(map(_escaped, head)), *([cell.latex() for cell in row] for row in self.rows)]
        lines = [" & ".join(row) + r" \\" for row in rows]
        if not self.titled:
            lines[0], rules = "", []
        return "\n".join(
            [
                rf"\begin{{{environment}}}[t]",
                r"\centering",
                rf"\caption{{{_escaped(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                r"\scriptsize" if len(head) > _MANY and not self.wide else r"\footnotesize",
                r"\setlength{\tabcolsep}{2.5pt}",
                rf"\begin{{tabular}}{{@{{}}l{'c' * (len(head) - 1)}@{{}}}}",
                r"\toprule",
                *([lines[0], "".join(rules)] if lines[0] else []),
                lines[1],
                r"\midrule",
                *lines[2:],
                r"\bottomrule",
                r"\end{tabular}",
                *(rf"\par\smallskip\raggedright\scriptsize {_escaped(note)}" for note in self.notes),
                rf"\end{{{environment}}}",
                "",
            ]
        )

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>`` in every one of :data:`TABLE_FORMS` into the folder."""
        texts = (self.frame.to_csv(index=False, float_format="%.6g"), self.markdown(), self.latex())
        paths = []
        for form, text in zip(TABLE_FORMS, texts, strict=True):
            paths.append(folder / f"{self.name}.{form}")
            with written_atomically(paths[-1]) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return paths


def comparison(
    summary: pd.DataFrame,
    key: str,
    variants: Sequence[str],
    *,
    name: str,
    caption: str,
    dataset: str,
    seeds: int,
    comparisons: Mapping[Metric, Sequence[Comparison]] | None = None,
) -> Table:
    """A table of variants: what was measured on the test split beside what was published.

    Args:
        summary: aggregated by ``key``, fractions.
        key: ``fusion`` or ``modules``.
        variants: the rows, in order.
        name: of the files and of the published data: ``table1``.
        caption: what it shows, in one sentence.
        dataset: whose published figures stand beside.
        seeds: how many were asked for; a row with fewer is noted.
        comparisons: of the variants with the paper's choice, by metric: a difference that is more than noise is marked.
    """
    ours = summary.set_index(key).reindex(list(variants))
    frame = pd.DataFrame({key: list(variants), "n_seeds": ours["n_seeds"].fillna(0).astype(int).to_numpy()})
    for measure in MEASURES:
        for figure in ("mean", "std"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    theirs = published(name, dataset)
    groups = [("Ours", tuple(MEASURES.values()))]
    if len(theirs):
        theirs = theirs.set_index(key).reindex(list(variants))
        for measure in MEASURES:
            frame[f"{measure}_published"] = theirs[measure].to_numpy()
        groups.append(("Paper", tuple(MEASURES.values())))
    for measure in MEASURES:
        for figure in ("low", "high"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    differing = {(metric, c.second): c.p_holm < LEVEL for metric, made in (comparisons or {}).items() for c in made}
    cells: list[tuple[str | Cell, ...]] = []
    for row in frame.to_dict("records"):
        measured = [
            mean_cell(
                *(row[f"{m}_{x}"] for x in ("mean", "low", "high")),
                bold=_is_best(row[f"{m}_mean"], frame[f"{m}_mean"]),
                mark="*" if differing.get((m, row[key])) else "",
            )
            for m in MEASURES
        ]
        printed = [
            Cell(
                _number(row[f"{m}_published"]),
                bold=_is_best(row[f"{m}_published"], frame[f"{m}_published"]),
                mark="†" if _outside(row[f"{m}_published"], row[f"{m}_low"], row[f"{m}_high"]) else "",
            )
            for m in (MEASURES if len(theirs) else ())
        ]
        cells.append((LABELS[row[key]], *measured, *printed))
    marks = {cell.mark for cells_ in cells for cell in cells_ if isinstance(cell, Cell)}
    return Table(
        name=name,
        caption=caption,
        notes=(*interval_notes(frame), *_variant_notes(frame, key, seeds, marks, beside_published=len(theirs) > 0)),
        frame=frame,
        head=_HEADS[key],
        groups=tuple(groups),
        cells=tuple(cells),
    )


def _variant_notes(frame: pd.DataFrame, key: str, seeds: int, marks: set[str], *, beside_published: bool) -> list[str]:
    notes = []
    short = frame[frame["n_seeds"] < seeds]
    if len(short):
        counts = ", ".join(f"{LABELS[row[key]]} {row['n_seeds']}" for row in short.to_dict("records"))
        notes.append(f"Fewer than {seeds} seeds are done: {counts}.")
    if "*" in marks:
        reference = LABELS[REFERENCES[key]]
        notes.append(f"* differs from {reference} by more than noise (paired by seed, 95%, Holm's correction).")
    if "†" in marks:
        notes.append("† outside the 95% interval of ours.")
    if beside_published:
        notes.append(SWAP_NOTE)
    return notes


def systems_table(analysis: Analysis) -> Table | None:
    """Table III or IV: the systems that the paper compares with, and our row; None: the paper has none for this data.

    Ours is the study's fusion with both modules at its K pair.
    """
    about, results = analysis.results.about, analysis.results
    names = [name for name in ("table3", "table4") if len(published(name, about.dataset))]
    ours = results.fusion[results.fusion["fusion"] == about.fusion]
    if not names or ours.empty:
        return None
    (name,), row = names, ours.iloc[0]
    theirs = published(name, about.dataset)
    records = [
        {"system": x["system"], "year": str(x["year"]), "modalities": x["modalities"], "wa": x["wa"], "ua": x["ua"]}
        for x in theirs.to_dict("records")
    ]
    own: dict[str, Any] = {"system": "CemoBAM, this study", "year": "", "modalities": "A+T", "n_seeds": row["n_seeds"]}
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
            *(mean_cell(x[m], x[f"{m}_low"], x[f"{m}_high"], bold=_is_best(x[m], frame[m])) for m in ("wa", "ua")),
        )
        for x in frame.to_dict("records")
    ]
    notes = [*interval_notes(frame.tail(1)), *(f"{letters[system]} {note}." for system, note in noted.items())]
    if row["n_seeds"] < len(about.seeds):
        notes.append(f"Ours rests on {row['n_seeds']:.0f} of {len(about.seeds)} seeds.")
    notes.append(
        "The systems were not measured under one protocol: splits, folds and sometimes classes are each one's own, and "
        "the others' figures are as the paper prints them, so a difference between rows is no test."
    )
    return Table(
        name=name,
        caption=f"Other systems on {about.title}, and this study ({_where(analysis)}): percent, ours a mean over "
        f"{row['n_seeds']:.0f} seeds{interval_words(frame)}",
        notes=(*notes, SWAP_NOTE),
        frame=frame,
        head="System",
        groups=(("", ("Year", "Input", "WA", "UA")),),
        cells=tuple(cells),
    )


def variance_table(analysis: Analysis) -> Table | None:
    """The grid's analysis of variance; None: the grid cannot tell K from luck."""
    grid = analysis.grid
    if not analysis.variance or grid is None:
        return None
    rows = []
    for metric, variance in analysis.variance.items():
        p_values = holm([effect.p for effect in variance.effects])
        for effect, p in zip((*variance.effects, variance.pairs), (*p_values, np.nan), strict=True):
            rows.append({"metric": metric, "effect": effect.name, **asdict(effect), "p_holm": p})
            del rows[-1]["name"]
        rows[-1] |= {"share": variance.share, "share_low": variance.share_low, "share_high": variance.share_high}
    frame = pd.DataFrame(rows)
    shown = frame[frame["metric"] == analysis.metric]
    cells = [
        (
            "all pairs" if x["effect"] == "pairs" else x["effect"],
            f"{x['df']}",
            f"{x['omega2']:.3f}",
            f"{x['f']:.2f}",
            f"{x['epsilon']:.2f}",
            _p(x["p"]),
            _p(x["p_holm"]),
        )
        for x in shown.to_dict("records")
    ]
    notes = [
        f"{MEASURES[analysis.metric]}; the csv has the others. Within seeds; ω² is the share of the variance of single "
        "trials, ε the correction of the degrees of freedom after Greenhouse and Geisser, Holm over the effects.",
    ]
    if grid.left_out:
        notes.append(f"Left out, because not complete: {grid.left_out}.")
    return Table(
        name="variance",
        caption=f"The K grid on {analysis.results.about.title}, test split, {len(grid.seeds)} seeds: K and luck",
        notes=tuple(notes),
        frame=frame,
        head="Effect",
        groups=(("", ("df", "ω²", "F", "ε", "p", "p (Holm)")),),
        cells=tuple(cells),
    )


def comparisons_table(analysis: Analysis) -> Table | None:
    """Every pair of configurations that was compared; None: there is none."""
    made = [analysis.pairs, analysis.fusion, analysis.ablation]
    every = [c for family in made for comparisons in family.values() for c in comparisons]
    if not every:
        return None
    rows = []
    for c in every:
        d = c.difference
        rows.append(
            {
                **{"family": c.family, "metric": c.metric, "first": c.first, "second": c.second},
                **{"raw_difference": 100 * c.raw, "corrected_for": "choice of K" if c.corrected else "nothing"},
                **{"corrected_difference": 100 * d.mean, "corrected_low": 100 * d.low, "corrected_high": 100 * d.high},
                **{"d_z": d.d_z, "p": d.p, "p_holm": c.p_holm, "n_seeds": d.n},
            }
        )
    shown = [c for c in every if c.metric == analysis.metric]
    both = any(c.corrected for c in shown)
    cells: list[tuple[str | Cell, ...]] = [
        (
            f"{_compared(analysis, c.first)} less {_compared(analysis, c.second)}",
            *([signed(100 * c.raw) if c.corrected else points(c.difference)] if both else []),
            points(c.difference) if c.corrected or not both else "",
            _number(c.difference.d_z),
            _p(c.difference.p),
            Cell(_p(c.p_holm), bold=c.p_holm < LEVEL),
            str(c.difference.n),
        )
        for c in shown
    ]
    interval = ", with its 95% interval" if any(c.difference.n >= SEEDS_FOR_INTERVAL for c in shown) else ""
    notes = [f"{MEASURES[analysis.metric]} in points; the csv has the others."]
    if both:
        notes.append(
            "Raw: the mean of the first less that of the second, over the seeds that both have, as the tables and the "
            f"grid show them. Corrected: for the choice of K on these very seeds{interval}; pairs of K are measured by "
            "seeds that did not choose them. d, p and n are of the corrected one; a row without it needs none."
        )
    else:
        notes.append(f"The mean of the first less that of the second, over the seeds that both have{interval}.")
    notes.append(
        "d: the mean over the deviation of the differences. Holm within pairs, fusion and modules; bold below 0.05."
    )
    if analysis.pairs and analysis.grid and analysis.grid.left_out:
        notes.append(f"Pairs of K without what is not complete: {analysis.grid.left_out}.")
    return Table(
        name="comparisons",
        caption=f"Differences on {analysis.results.about.title}, test split, paired by seed",
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        head="Difference",
        groups=(("", (*(("Raw", "Corrected") if both else ("Points",)), "d", "p", "p (Holm)", "n")),),
        cells=tuple(cells),
        wide=True,
    )


def _compared(analysis: Analysis, name: str) -> str:
    """One side of a comparison; a pair of K with its numbers."""
    pair = analysis.compared.get(name)
    return f"{LABELS[name]} (K {pair})" if pair else LABELS[name]


def selection_table(analysis: Analysis) -> Table | None:
    """Choosing the pair on validation and on test: what is reported, what holds; None: there is no choice."""
    grid = analysis.grid
    if not analysis.selections or grid is None:
        return None
    rows, cells = [], []
    known = len(grid.seeds) >= SEEDS_FOR_INTERVAL
    for (split, metric), chosen in analysis.selections.items():
        pair = grid.pair(chosen.chosen)
        fresh, optimism = chosen.on_new_seed, chosen.optimism
        gap = 100 * (chosen.reported - analysis.selections["val", metric].reported)
        rows.append(
            {
                **{"chosen_on": split, "metric": metric, "k_audio": pair.k_audio, "k_text": pair.k_text},
                **{"reported": 100 * chosen.reported, "less_validation": gap},
                **{"new_seed_mean": 100 * fresh.mean, "new_seed_low": 100 * fresh.low},
                **{"new_seed_high": 100 * fresh.high, "optimism": 100 * optimism.mean},
                **{"optimism_low": 100 * optimism.low, "optimism_high": 100 * optimism.high},
                **{"same_choice": chosen.same, "n_seeds": len(grid.seeds)},
            }
        )
        cells.append(
            (
                f"{'validation' if split == 'val' else 'test'}, by {MEASURES[metric]}",
                str(pair),
                _number(100 * chosen.reported),
                signed(gap) if split == "test" else "",
                _number(100 * fresh.mean),
                _with_interval(*(100 * x for x in (optimism.mean, optimism.low, optimism.high))),
                f"{chosen.same} of {len(grid.seeds)}",
            )
        )
    notes = [
        "Reported: the test mean over the seeds that chose. New seed: the mean of every seed at the pair that the "
        f"others choose. Optimism: the difference{', with its approximate 95% interval' if known else ''}. Same: how "
        "many of the choices by all seeds but one are the same pair. The test utterances are the same throughout, so "
        "choosing on them is more optimistic still about other utterances.",
    ]
    if grid.left_out:
        notes.append(f"Left out, because not complete: {grid.left_out}.")
    return Table(
        name="selection",
        caption=f"Choosing K on validation and on test ({analysis.results.about.title}): the optimism, in percent",
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        head="Chosen on",
        groups=(("", ("K", "Reported", "Less val.", "New seed", "Optimism", "Same")),),
        cells=tuple(cells),
        wide=True,
    )


def gaps_table(trials: pd.DataFrame, *, caption: str, seeds: int, folds: int) -> Table:
    """What each gap between the paper's text and the released code costs or brings, from either side.

    A difference is the mean over seeds of (with the other's choice) - (without), on the test split, each seed against
    itself, with its 95% interval by Student's t for paired samples (Student, 1908). The intervals are each by itself:
    of twenty, one is expected to miss zero by chance.

    Args:
        trials: the block's rows of ``trials.csv``.
        caption: what it shows, in one sentence.
        seeds: how many were asked for; where fewer are shared by both sides, it is noted.
        folds: how many folds a complete seed has.
    """
    done = trials[trials["status"] == "done"]
    means = done.groupby(["profile", "seed"])[[f"test_{m}" for m in MEASURES]].agg("mean")
    means = means[done.groupby(["profile", "seed"]).size() == folds]
    starts = ("paper", "released")
    rows = {
        (start, gap): _mean_and_difference(means, f"{start}+{gap}" if gap else start, start)
        for start in starts
        for gap in ("", *GAPS)
    }
    frame = pd.DataFrame([{"start": start, "switched": gap, **row} for (start, gap), row in rows.items()])
    cells: list[tuple[str, ...]] = []
    for gap in ("", *GAPS):
        sides = [(rows[start, gap], m) for start in starts for m in ("wa", "ua")]
        if gap:
            printed = [_with_interval(*(row[f"{m}_{x}"] for x in ("difference", "low", "high"))) for row, m in sides]
        else:
            printed = [_with_deviation(row[f"{m}_mean"], row[f"{m}_std"]) for row, m in sides]
        cells.append((gap or "as it is", *printed))
    interval = ", with its 95% interval" if (frame["n_seeds"] >= SEEDS_FOR_INTERVAL).any() else ""
    notes = [f"First row: mean ± standard deviation; the others: the difference to it{interval}."]
    if (frame["n_seeds"] < seeds).any():
        notes.append(f"Some rows rest on fewer than {seeds} seeds; the csv says which.")
    return Table(
        name="gaps",
        caption=caption,
        notes=tuple(notes),
        frame=frame,
        head="Switched to the other's",
        groups=(("From paper", ("WA", "UA")), ("From released", ("WA", "UA"))),
        cells=tuple(cells),
        wide=True,
    )


def _mean_and_difference(means: pd.DataFrame, label: str, start: str) -> dict[str, float]:
    """One configuration against another, seed by seed, in percent; NaN where there are not enough of them."""
    empty = means.iloc[:0].droplevel(0)
    mine = means.loc[label] if label in means.index.get_level_values(0) else empty
    base = means.loc[start] if start in means.index.get_level_values(0) else empty
    shared = mine.index.intersection(base.index)
    row: dict[str, float] = {"n_seeds": len(shared)}
    for m in MEASURES:
        x, y = mine.loc[shared, f"test_{m}"].to_numpy(), base.loc[shared, f"test_{m}"].to_numpy()
        row[f"{m}_mean"] = 100 * x.mean() if len(x) else np.nan
        row[f"{m}_std"] = 100 * x.std(ddof=1) if len(x) > 1 else np.nan
        if label == start:
            continue
        difference = paired(x, y)
        row[f"{m}_difference"] = 100 * difference.mean
        row[f"{m}_low"], row[f"{m}_high"] = 100 * difference.low, 100 * difference.high
    return row


def plain_markdown(text: object) -> str:
    """Text that Markdown leaves as it is, on one line; an underscore within a word, as in K_audio, means nothing."""
    return re.sub(r"([\\`*\[\]<>|#!])", r"\\\1", " ".join(str(text).split()))


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _where(analysis: Analysis) -> str:
    pair = analysis.results.about.at
    return f"K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else "no pair yet"


def _is_best(value: float, column: pd.Series) -> bool:
    return bool(pd.notna(value) and column.notna().sum() > 1 and np.isclose(value, column.max(), rtol=0, atol=1e-9))


def _outside(value: float, low: float, high: float) -> bool:
    return bool(value < low or value > high)


def _with_deviation(mean: float, std: float) -> str:
    return f"{_number(mean)} ± {_number(std)}" if pd.notna(std) else _number(mean)


def mean_cell(mean: float, low: float, high: float, *, bold: bool = False, mark: str = "") -> Cell:
    """Return a mean ± half of its interval, or with both ends of an interval that is cut at 0 or 100%."""
    if _cut(mean, low, high):
        return Cell(f"{_number(mean)} [{_number(low)}, {_number(high)}]", bold, mark)
    return Cell(_with_deviation(mean, high - mean), bold, mark)


def interval_words(frame: pd.DataFrame) -> str:
    """Return what a caption says of the intervals: nothing where no row has seeds enough for one."""
    return " ± half its 95% interval" if (frame["n_seeds"] >= SEEDS_FOR_INTERVAL).any() else ""


def interval_notes(frame: pd.DataFrame) -> list[str]:
    """Return what a reader must know of the intervals of a table.

    Args:
        frame: with ``n_seeds``, and for each measure ``<measure>_low`` and ``_high``; the mean is ``<measure>_mean``
            or ``<measure>``.
    """
    notes = []
    if frame["n_seeds"].between(1, SEEDS_FOR_INTERVAL - 1).any():
        notes.append(f"Fewer than {SEEDS_FOR_INTERVAL} seeds have no interval.")
    shown = [measure for measure in MEASURES if f"{measure}_low" in frame]
    means = {measure: f"{measure}_mean" if f"{measure}_mean" in frame else measure for measure in shown}
    if any(
        _cut(row[means[measure]], row[f"{measure}_low"], row[f"{measure}_high"])
        for row in frame.to_dict("records")
        for measure in shown
    ):
        notes.append("An interval that would pass 0 or 100% ends there; both of its sides are then given.")
    return notes


def _cut(mean: float, low: float, high: float) -> bool:
    """Whether an interval, in percent, is cut at 0 or 100; NaN is not."""
    return bool(abs((high - mean) - (mean - low)) > 1e-6)


def _with_interval(difference: float, low: float, high: float) -> str:
    interval = f" [{signed(low)}, {signed(high)}]" if pd.notna(low) else ""
    return signed(difference) + interval


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if pd.notna(value) else "–"


def _p(value: float) -> str:
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


_LATEX = {
    **{character: f"\\{character}" for character in "%&#$_{}"},
    **{character: f"${character}$" for character in "<>|"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}


def _escaped(text: str) -> str:
    """Return plain text for LaTeX.

    K_audio becomes a formula, 1.00 ± 0.10 a number with a small deviation, 1.00 [0.80, 1.10] one with two.
    """
    text = "".join(_LATEX.get(character, character) for character in text)
    text = re.sub(r"([\d.]+) ± ([\d.]+)", r"$\1_{\\pm \2}$", text)
    text = re.sub(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", _two_sided, text)
    for plain, formula in (
        ("±", r"$\pm$"),
        ("−", "$-$"),
        ("ω²", r"$\omega^2$"),
        ("ε", r"$\varepsilon$"),
        ("†", r"$\dagger$"),
        (r"K\_audio", r"$K_\mathrm{audio}$"),
        (r"K\_text", r"$K_\mathrm{text}$"),
    ):
        text = text.replace(plain, formula)
    return text


def _two_sided(match: re.Match[str]) -> str:
    """A mean and how far its interval reaches to either side: narrow enough for a column."""
    mean, low, high = map(float, match.groups())
    return f"${match[1]}^{{+{high - mean:.2f}}}_{{-{mean - low:.2f}}}$"

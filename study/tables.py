"""Tables as csv, Markdown and LaTeX: Tables I and II beside the published figures, and what each gap costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cemobam_core.files import written_atomically
from study.design import GAPS
from study.published import SWAP_NOTE, published

TABLE_FORMS = ("csv", "md", "tex")

MEASURES = {"wa": "WA", "ua": "UA", "wf1": "w-F1"}

_LABELS = {
    "fusion": {"cls": "CLS", "min": "MIN", "max": "MAX", "mean": "MEAN"},
    "modules": {"full": "CemoBAM", "no_xcbam": "w/o xCBAM", "no_chgat": "w/o CH-GAT"},
}
_HEADS = {"fusion": "Fusion", "modules": "Model"}


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
    cells: tuple[tuple[str, ...], ...]
    wide: bool = False

    def markdown(self) -> str:
        """For a repository or a terminal; our own columns go without their group's title."""
        head = [self.head]
        for title, columns in self.groups:
            head += [column if title == "Ours" else f"{column} ({title.lower()})" for column in columns]
        body = pd.DataFrame(self.cells, columns=head)
        align = ("left",) + ("right",) * (len(head) - 1)
        table = body.to_markdown(index=False, disable_numparse=True, colalign=align)
        notes = "".join(f"\n\n{note}" for note in self.notes)
        return f"**{self.caption}**\n\n{table}{notes}\n"

    def latex(self) -> str:
        """For a two-column paper; needs ``booktabs``."""
        environment = "table*" if self.wide else "table"
        spans, rules, first = [""], [], 2
        for title, columns in self.groups:
            spans.append(f"\\multicolumn{{{len(columns)}}}{{c}}{{{title}}}")
            rules.append(f"\\cmidrule(l){{{first}-{first + len(columns) - 1}}}")
            first += len(columns)
        head = [self.head, *(column for _, columns in self.groups for column in columns)]
        rows = [spans, head, *self.cells]
        lines = [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
        lines[0] = " & ".join(spans) + r" \\"
        return "\n".join(
            [
                rf"\begin{{{environment}}}[t]",
                r"\centering",
                rf"\caption{{{_escaped(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                r"\footnotesize",
                r"\setlength{\tabcolsep}{2.5pt}",
                rf"\begin{{tabular}}{{@{{}}l{'c' * (len(head) - 1)}@{{}}}}",
                r"\toprule",
                lines[0],
                "".join(rules),
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
    """
    ours = summary.set_index(key).reindex(list(variants))
    frame = pd.DataFrame({key: list(variants), "n_seeds": ours["n_seeds"].fillna(0).astype(int).to_numpy()})
    for measure in MEASURES:
        for figure in ("mean", "std"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    labels = _LABELS[key]
    notes = []
    short = frame[frame["n_seeds"] < seeds]
    if len(short):
        counts = ", ".join(f"{labels[row[key]]} {row['n_seeds']}" for row in short.to_dict("records"))
        notes.append(f"Fewer than {seeds} seeds are done: {counts}.")
    groups = [("Ours", tuple(MEASURES.values()))]
    theirs = published(name, dataset)
    if len(theirs):
        theirs = theirs.set_index(key).reindex(list(variants))
        for measure in MEASURES:
            frame[f"{measure}_published"] = theirs[measure].to_numpy()
        groups.append(("Paper", tuple(MEASURES.values())))
        notes.append(SWAP_NOTE)
    cells = []
    for row in frame.to_dict("records"):
        measured = [_with_deviation(row[f"{m}_mean"], row[f"{m}_std"]) for m in MEASURES]
        printed = [_number(row[f"{m}_published"]) for m in MEASURES] if len(theirs) else []
        cells.append((labels[row[key]], *measured, *printed))
    return Table(
        name=name,
        caption=caption,
        notes=tuple(notes),
        frame=frame,
        head=_HEADS[key],
        groups=tuple(groups),
        cells=tuple(cells),
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
    means = 100 * means[done.groupby(["profile", "seed"]).size() == folds]
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
    notes = ["First row: mean ± standard deviation; the others: the difference to it, with its 95% interval."]
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
    """One configuration against another, seed by seed; NaN where there are not enough of them."""
    empty = means.iloc[:0].droplevel(0)
    mine = means.loc[label] if label in means.index.get_level_values(0) else empty
    base = means.loc[start] if start in means.index.get_level_values(0) else empty
    shared = mine.index.intersection(base.index)
    row: dict[str, float] = {"n_seeds": len(shared)}
    for m in MEASURES:
        x, y = mine.loc[shared, f"test_{m}"].to_numpy(), base.loc[shared, f"test_{m}"].to_numpy()
        row[f"{m}_mean"] = x.mean() if len(x) else np.nan
        row[f"{m}_std"] = x.std(ddof=1) if len(x) > 1 else np.nan
        if label == start:
            continue
        row[f"{m}_difference"] = (x - y).mean() if len(x) else np.nan
        if len(x) < 2:
            low = high = np.nan
        elif np.ptp(x - y) == 0:  # no spread: the t statistic is not defined, the interval is the point
            low = high = (x - y).mean()
        else:
            low, high = stats.ttest_rel(x, y).confidence_interval(0.95)
        row[f"{m}_low"], row[f"{m}_high"] = low, high
    return row


def _with_deviation(mean: float, std: float) -> str:
    return f"{_number(mean)} ± {_number(std)}" if pd.notna(std) else _number(mean)


def _with_interval(difference: float, low: float, high: float) -> str:
    interval = f" [{_signed(low)}, {_signed(high)}]" if pd.notna(low) else ""
    return _signed(difference) + interval


def _number(value: float) -> str:
    return f"{value:.2f}" if pd.notna(value) else "–"


def _signed(value: float) -> str:
    # the zero added makes a rounded -0.0 a plain zero
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") if pd.notna(value) else "–"


def _escaped(text: str) -> str:
    """Plain text for LaTeX; K_audio becomes a formula, 1.00 ± 0.10 a number with a small deviation."""
    text = re.sub(r"[%&#$_]", r"\\\g<0>", text)
    text = re.sub(r"([\d.]+) ± ([\d.]+)", r"$\1_{\\pm \2}$", text)
    for plain, formula in (
        ("±", r"$\pm$"),
        ("−", "$-$"),
        (r"K\_audio", r"$K_\mathrm{audio}$"),
        (r"K\_text", r"$K_\mathrm{text}$"),
    ):
        text = text.replace(plain, formula)
    return text

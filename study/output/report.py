"""What comes out of a study: files made from the ledger alone, and a summary to read."""

from __future__ import annotations

import base64
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from cemobam_core.config import FUSIONS, MODULES
from cemobam_core.files import written_atomically
from study.engines.execution import versions
from study.findings.analysis import MEASURES
from study.findings.evidence import Evidence
from study.findings.results import ABOUT, TRIALS
from study.findings.statistics import SEEDS_FOR_INTERVAL
from study.output import figures
from study.output.figures import DRAWINGS
from study.output.tables import (
    TABLE_FORMS,
    Table,
    comparison,
    comparisons_table,
    gaps_table,
    interval_words,
    plain_markdown,
    selection_table,
    systems_table,
    variance_table,
)
from study.papers.cemobam.claims import Claim, Verdict, about_what, claims, spread_sentence

TABLES = ("table1", "table2", "table3", "table4", "gaps", "variance", "comparisons", "selection")
OTHERS = ("grid.csv", "claims.csv", "report.md", "report.html")

RESULT_FILES = (TRIALS, ABOUT, *OTHERS, *(f"{name}.{form}" for name in TABLES for form in TABLE_FORMS))
PLOT_FILES = tuple(f"{drawing.file}.{form}" for drawing in DRAWINGS.values() for form in figures.FORMS)
"""All that a report may write into its two folders."""

_SHOWN = 50
"""Failed trials that are listed; the others are counted."""

VERDICT_SIGNS: dict[Verdict, str] = {
    "confirmed": "✓",
    "within noise": "≈",
    "contradicted": "✗",
    "higher than published": "↑",
    "not tested": "–",
}

_INDENT = 2 + max(map(len, VERDICT_SIGNS))


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """All that a study has to show so far; whatever block has no trial yet is absent, and named.

    Attributes:
        evidence: what the ledger knows.
        tables: by name, of :data:`TABLES`.
        figures: by name, of :data:`study.output.figures.DRAWINGS`.
        missing: by name of the figure, why it cannot be drawn.
        again: the command that makes the study again.
    """

    evidence: Evidence
    tables: dict[str, Table]
    figures: dict[str, Figure]
    missing: dict[str, str]
    again: str

    @cached_property
    def claims(self) -> list[Claim]:
        """The paper's, each with its verdict."""
        return claims(self.evidence.analysis)

    @property
    def summary(self) -> tuple[str, ...]:
        """What to print, paragraph by paragraph."""
        about = self.evidence.about
        said = [
            "\n".join(
                textwrap.fill(text, 110, initial_indent=first, subsequent_indent=" " * _INDENT)
                for text, first in ((claim.claim, claim.verdict.ljust(_INDENT)), (claim.numbers, " " * _INDENT))
            )
            for claim in self.claims
        ]
        return (
            *counts(self.evidence),
            chosen(self.evidence),
            *(table.markdown().rstrip() for name, table in self.tables.items() if name in ("table1", "table2", "gaps")),
            "\n".join([f"The paper's claims. {about_what(about.dataset, about.title)}", *said]),
        )

    def write(self, results: Path, plots: Path) -> list[Path]:
        """Write every file, each as a whole: trials, grid, tables and reports into ``results``, figures into ``plots``.

        What an earlier report left there and this one does not have is removed: it would be of other trials.

        Raises:
            OSError: a folder that cannot be written to, a full disk; files already written stay.
        """
        made = self.evidence.results
        written = made.save(results)
        if "grid" in self.evidence.blocks and not made.grid.empty:
            written.append(_write_csv(made.grid, results / "grid.csv"))
        written.append(_write_csv(pd.DataFrame(map(asdict, self.claims)), results / "claims.csv"))
        for table in self.tables.values():
            written += table.write(results)
        for name, figure in self.figures.items():
            written += figures.save(figure, plots / DRAWINGS[name].file)
        for name, text in (("report.md", self._markdown(results, plots)), ("report.html", self._html(plots))):
            with written_atomically(results / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(results / name)
        possible = [results / name for name in RESULT_FILES] + [plots / name for name in PLOT_FILES]
        for path in set(possible) - set(written):
            path.unlink(missing_ok=True)
        return written

    @property
    def _captions(self) -> dict[str, str]:
        return {name: DRAWINGS[name].shows for name in self.figures}

    @property
    def _spread(self) -> str:
        analysis = self.evidence.analysis
        if "grid" not in self.evidence.blocks or analysis.metric not in analysis.variance:
            return ""
        sentence = spread_sentence(analysis)
        return f"{sentence[0].upper()}{sentence[1:]} ({MEASURES[analysis.metric]} on test.)"

    def _html(self, plots: Path) -> str:
        environment = Environment(
            loader=PackageLoader("study.output"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["words"] = _subscripted
        images = {
            name: base64.b64encode((plots / f"{DRAWINGS[name].file}.png").read_bytes()).decode()
            for name in self.figures
        }
        return environment.get_template("report.html").render(
            **self._content(), signs=VERDICT_SIGNS, images=images, tables=list(self.tables.values())
        )

    def _content(self) -> dict[str, object]:
        """What both forms of the report hold."""
        evidence = self.evidence
        about = evidence.about
        return {
            "about": about,
            "about_what": about_what(about.dataset, about.title),
            "claims": self.claims,
            "counts": counts(evidence),
            "chosen": chosen(evidence),
            "spread": self._spread,
            "captions": self._captions,
            "missing": {DRAWINGS[name].shows: why for name, why in self.missing.items()},
            "failed": [
                (", ".join(f"{n} {value}" for n, value in trial.parameters.items()), outcome.reason, outcome.log)
                for trial, outcome in list(evidence.failed.items())[:_SHOWN]
            ],
            "failed_more": max(0, len(evidence.failed) - _SHOWN),
            "versions": {**about.made_with, **{f"{k} (report)": v for k, v in versions().items()}},
            "again": self.again,
        }

    def _markdown(self, results: Path, plots: Path) -> str:
        """The report for a repository; figures are linked where they lie."""
        content, about = self._content(), self.evidence.about
        rows = [
            (
                f"**{claim.verdict}**",
                plain_markdown(claim.claim),
                plain_markdown(claim.where),
                plain_markdown(claim.numbers),
            )
            for claim in self.claims
        ]
        table = pd.DataFrame(rows, columns=["Verdict", "Claim", "Where", "Numbers"]).to_markdown(index=False)
        parts = [
            f"# CemoBAM study: {plain_markdown(about.title)}",
            plain_markdown(content["about_what"]),
            "## The paper's claims",
            table,
        ]
        parts += [
            plain_markdown(content["chosen"]),
            plain_markdown(content["spread"]),
            *map(plain_markdown, counts(self.evidence)),
            "## Figures",
        ]
        for name in self.figures:
            parts.append(f"![{plain_markdown(DRAWINGS[name].shows)}]({link(plots, results)}/{DRAWINGS[name].file}.png)")
        parts += [
            f"Not drawn: {plain_markdown(DRAWINGS[name].shows)}: {plain_markdown(why)}."
            for name, why in self.missing.items()
        ]
        parts += ["## Tables", *(table.markdown().rstrip() for table in self.tables.values())]
        settings = {**about.settings, "seeds": ", ".join(map(str, about.seeds)), "folds": about.folds}
        parts += ["## Settings", *_md_lists(settings, about.made_with)]
        if self.evidence.failed:
            lines = [
                f"- {plain_markdown(what)}: {plain_markdown(why)}{f' (`{log}`)' if log else ''}"
                for what, why, log in content["failed"]  # type: ignore[attr-defined]
            ]
            more = [f"- and {content['failed_more']} more"] if content["failed_more"] else []
            parts += ["## Failed trials", "\n".join(lines + more)]
        parts += ["## Again", f"    {self.again}"]
        return "\n\n".join(part for part in parts if part) + "\n"


def make_report(evidence: Evidence, *, again: str) -> Report:
    """Put together what the ledger knows.

    Args:
        evidence: it.
        again: the command that makes the study again.
    """
    drawn = {name: drawing.draw(evidence) for name, drawing in DRAWINGS.items()}
    # gaps are the one block that is not run unless asked for: nobody misses it
    asked = {name: x for name, x in drawn.items() if name != "gaps" or isinstance(x, Figure)}
    return Report(
        evidence=evidence,
        tables=make_tables(evidence),
        figures={name: figure for name, figure in asked.items() if isinstance(figure, Figure)},
        missing={name: why for name, why in asked.items() if isinstance(why, str)},
        again=again,
    )


def make_tables(evidence: Evidence) -> dict[str, Table]:
    """Every table that there is something to show in, by name."""
    analysis = evidence.analysis
    tables: dict[str, Table | None] = {**paper_tables(evidence), "comparisons": comparisons_table(analysis)}
    if "grid" in evidence.blocks:
        tables |= {"variance": variance_table(analysis), "selection": selection_table(analysis)}
    return {name: table for name in TABLES if (table := tables.get(name))}


def paper_tables(evidence: Evidence) -> dict[str, Table]:
    """The paper's Tables I to IV and what the gaps cost, as far as there is something to show: made in a moment."""
    about, analysis, results = evidence.about, evidence.analysis, evidence.results
    seeds, pair = len(about.seeds), about.at
    where = f"{about.title}, K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else ""
    over = f"over {seeds} seed{'s' if seeds > 1 else ''}"
    what = f"test split, percent, mean {over}"
    tables: dict[str, Table] = {}
    if "fusion" in evidence.blocks and not results.fusion.empty:
        tables["table1"] = comparison(
            results.fusion, "fusion", FUSIONS, name="table1", dataset=about.dataset, seeds=seeds,
            caption=f"Fusion strategies ({where}): {what}{interval_words(results.fusion)}", comparisons=analysis.fusion,
        )  # fmt: skip
    if "ablation" in evidence.blocks and not results.ablation.empty:
        tables["table2"] = comparison(
            results.ablation, "modules", MODULES, name="table2", dataset=about.dataset, seeds=seeds,
            caption=f"Ablation ({where}): {what}{interval_words(results.ablation)}", comparisons=analysis.ablation,
        )  # fmt: skip
    if systems := systems_table(analysis):
        tables[systems.name] = systems
    if "gaps" in evidence.blocks and (results.gaps_trials["status"] == "done").any():
        tables["gaps"] = gaps_table(
            results.gaps_trials,
            caption=f"What each gap between text and code costs ({where}): test split, percent, mean {over}",
            seeds=seeds,
            folds=about.folds,
        )
    return tables


def counts(evidence: Evidence) -> list[str]:
    """How many trials are done, and what became of the others."""
    asked, done, failed = evidence.asked, evidence.done, evidence.failed
    line = f"{evidence.about.title}: {done} of {asked} trials done"
    if failed:
        line += f", {len(failed)} failed (the next run tries them again)"
    if (waiting := asked - done - len(failed)) > 0:
        line += f", {waiting} not run yet"
    reasons = Counter(outcome.reason for outcome in failed.values())
    return [line, *(f"failed {times} times: {reason}" for reason, times in reasons.most_common(10))]


def chosen(evidence: Evidence) -> str:
    """The pair, how it was come by, and what it does on test."""
    about, grid = evidence.about, evidence.results.grid
    pair = about.at
    if pair is None:
        return "No K pair is chosen yet: that takes every seed of at least one pair, and all of the grid run."
    how = about.how if about.given else f"{about.how} by {MEASURES[about.select_by]}"
    line = f"K_audio = {pair.k_audio}, K_text = {pair.k_text} ({how})"
    row = grid[(grid["k_audio"] == pair.k_audio) & (grid["k_text"] == pair.k_text)]
    if row.empty:
        return line
    record = row.iloc[0]
    shown = ", ".join(_figure(record, f"test_{measure}", label) for measure, label in MEASURES.items())
    n = int(record["n_seeds"])
    interval = " (95% interval)" if n >= SEEDS_FOR_INTERVAL else ""
    return f"{line}: test {shown} over {n} seed{'s' if n > 1 else ''}{interval}"


def _figure(record: pd.Series, metric: str, label: str) -> str:
    mean, low, high = (100 * record[f"{metric}_{x}"] for x in ("mean", "low", "high"))
    return f"{label} {mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if pd.notna(low) else "")


def link(plots: Path, results: Path) -> str:
    """Return how a file in the folder of results refers to the folder of figures, as Markdown has it."""
    return os.path.relpath(plots, results).replace(os.sep, "/").replace(" ", "%20")


def _subscripted(text: object) -> Markup:
    """Text for HTML, K_audio as it is read."""
    safe = str(escape(str(text)))
    return Markup(re.sub(r"K_(audio|text)", r"K<sub>\1</sub>", safe))


def _md_lists(*content: dict[str, object] | dict[str, str]) -> Iterable[str]:
    return [
        "\n".join(f"- {plain_markdown(name)}: {plain_markdown(value)}" for name, value in x.items())
        for x in content
        if x
    ]


def _write_csv(frame: pd.DataFrame, path: Path) -> Path:
    with written_atomically(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path

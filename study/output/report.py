"""What comes out of a study: files made from the ledger alone, and a summary to read."""

from __future__ import annotations

import base64
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from cemobam_core.files import written_atomically
from study.engines.execution import versions
from study.findings.analysis import MEASURES
from study.findings.answers import Answer, answers
from study.findings.evidence import Evidence
from study.findings.predictions import PREDICTIONS, UTTERANCES
from study.findings.results import ABOUT, TRIALS, About
from study.findings.statistics import SEEDS_FOR_INTERVAL
from study.findings.systems import measured_block
from study.findings.tuned import traces
from study.findings.wording import measured_in, points_of, seeds_in_words
from study.output import figures
from study.output.error_tables import calibration_table, errors_table, hard_table, no_hard_sentence
from study.output.figures import Drawing, drawings, without_predictions
from study.output.tables import (
    LONGEST,
    TABLE_FORMS,
    Table,
    agreement_table,
    block_table,
    comparisons_table,
    plain_markdown,
    selection_table,
    variance_table,
)
from study.output.tuning_table import NAME as TUNING
from study.output.tuning_table import tuning_table
from study.papers.cemobam import paper
from study.papers.cemobam.claims import OF_SYSTEMS, Claim, Verdict, about_what, claims, spread_sentence
from study.papers.cemobam.systems import NAMES as SYSTEMS
from study.papers.cemobam.systems import systems_table

OTHERS = ("claims.csv", "report.md", "report.html")

WHERE_IT_ERRS = ("errors", "hard", "calibration")
"""Tables that say where the study errs: they stand below the others."""

ALWAYS = (TUNING, "variance", "comparisons", "agreement", "selection", *SYSTEMS, *WHERE_IT_ERRS)
"""Tables that no block names."""


def result_files(about: About) -> list[str]:
    """Return the name of every file that a report may write into the folder of results."""
    tables = [*ALWAYS, *(block.table for block in about.blocks)]
    of_tables = [f"{name}.{form}" for name in dict.fromkeys(tables) for form in TABLE_FORMS]
    return [TRIALS, ABOUT, PREDICTIONS, UTTERANCES, *OTHERS, *of_tables]


def plot_files(about: About, forms: Sequence[str] = figures.FORMS) -> list[str]:
    """Return the name of every file that a report may write into the folder of figures.

    Args:
        about: what the study is.
        forms: formats of figures: those of a report, or others that a user may have drawn beside them.
    """
    own = (
        *("curves", "confusion", "confusion_difference", "errors", "calibration", "embedding", "marginal"),
        *("comparison", "critical_difference", "tuning"),
    )
    figures_of = [file for block in about.blocks for file in (block.file, f"{block.file}_sd")]
    return [f"{file}.{form}" for file in (*figures_of, *own) for form in forms]


MORE = "More seeds would tell differences that are undecided; only what is missing is trained"

_SHOWN = 50
"""Failed trials that are listed; the others are counted."""

VERDICT_SIGNS: dict[Verdict, str] = {
    "confirmed": "✓",
    "equivalent": "≈",
    "undecided": "?",
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
        tables: by name.
        drawings: the figures that the study has, by name.
        figures: those that can be drawn, by name.
        missing: by name of the figure, why it cannot be drawn.
        again: the command that makes the study again.
    """

    evidence: Evidence
    tables: dict[str, Table]
    drawings: dict[str, Drawing]
    figures: dict[str, Figure]
    missing: dict[str, str]
    again: str

    @cached_property
    def claims(self) -> list[Claim]:
        """The paper's, each with its verdict; none of its blocks in the study: those that a comparison answers."""
        about, analysis = self.evidence.about, self.evidence.analysis
        papers = {block.name for block in (*paper.blocks, *paper.optional)}
        named = papers & {*self.evidence.waiting, *(block.name for block in about.blocks)}
        if named and about.system == "cemobam":
            return claims(analysis)
        if measured_block(analysis.results) is None:
            return []
        return [claim for claim in claims(analysis) if claim.id in OF_SYSTEMS]

    @cached_property
    def answers(self) -> list[Answer]:
        """What each block that is not the paper's says to its question."""
        return answers(self.evidence.analysis)

    @property
    def more(self) -> str:
        """How undecided differences would be told, with the command; empty: none would, or the study looks itself."""
        about, needed = self.evidence.about, self.evidence.analysis.more_seeds
        if not needed or about.looks:
            return ""
        fresh = {name for name in needed if (block := about.block(name)) and block.confirms}
        flag = "confirm" if fresh else "seeds"
        most = max(n for name, n in needed.items() if name in fresh or not fresh)
        again = re.sub(rf" --{flag} \S+", "", self.again)
        return f"{again} --{flag} {most}"

    @property
    def summary(self) -> tuple[str, ...]:
        """What to print, paragraph by paragraph."""
        about = self.evidence.about
        tested = [claim for claim in self.claims if claim.verdict != "not tested"]
        said = [
            "\n".join(
                textwrap.fill(text, 110, initial_indent=first, subsequent_indent=" " * _INDENT)
                for text, first in ((claim.claim, claim.verdict.ljust(_INDENT)), (claim.numbers, " " * _INDENT))
            )
            for claim in tested
        ]
        if rest := len(self.claims) - len(tested):
            said.append(f"{'not tested'.ljust(_INDENT)}{rest} claims: the report says which and why")
        return (
            *counts(self.evidence),
            *filter(None, [chosen(self.evidence)]),
            *(table.markdown().rstrip() for name, table in self.tables.items() if name == TUNING or name not in ALWAYS),
            *("\n".join([answer.question, *(f"  {line}" for line in answer.lines)]) for answer in self.answers),
            *(["\n".join([f"The paper's claims. {about_what(about.dataset, about.title)}", *said])] if said else []),
            *([f"{MORE}:\n  {self.more}"] if self.more else []),
        )

    def write(self, results: Path, plots: Path) -> list[Path]:
        """Write every file, each as a whole: trials, grid, tables and reports into ``results``, figures into ``plots``.

        What an earlier report left there and this one does not have is removed: it would be of other trials.

        Raises:
            OSError: a folder that cannot be written to, a full disk; files already written stay.
        """
        made, about = self.evidence.results, self.evidence.about
        written = made.save(results)
        for block in about.blocks:
            if block.table not in self.tables and not block.tunes and not made.block(block.name).empty:
                written.append(_write_csv(made.block(block.name), results / f"{block.table}.csv"))
        if self.claims:
            written.append(_write_csv(pd.DataFrame(map(asdict, self.claims)), results / "claims.csv"))
        for table in self.tables.values():
            written += table.write(results)
        for name, figure in self.figures.items():
            written += figures.save(figure, plots / self.drawings[name].file)
        for name, text in (("report.md", self._markdown(results, plots)), ("report.html", self._html(plots))):
            with written_atomically(results / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(results / name)
        possible = [results / name for name in result_files(about)] + [plots / name for name in plot_files(about)]
        for path in set(possible) - set(written):
            path.unlink(missing_ok=True)
        return written

    @property
    def _captions(self) -> dict[str, str]:
        return {name: self.drawings[name].shows for name in self.figures}

    @property
    def _spread(self) -> str:
        analysis = self.evidence.analysis
        if analysis.metric not in analysis.variance:
            return ""
        return f"{spread_sentence(analysis)} ({MEASURES[analysis.metric]} on test.)"

    @property
    def _of_errors(self) -> list[str]:
        """What is said of errors beside their tables: why there are none, or that no utterance is hard."""
        if "errors" not in self.tables:
            why = without_predictions(self.evidence)
            return [f"{why[0].upper()}{why[1:]}."]
        return list(filter(None, [no_hard_sentence(self.evidence.errors.hard)]))

    def _html(self, plots: Path) -> str:
        environment = Environment(
            loader=PackageLoader("study.output"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["words"] = _subscripted
        images = {
            name: base64.b64encode((plots / f"{self.drawings[name].file}.png").read_bytes()).decode()
            for name in self.figures
        }
        return environment.get_template("report.html").render(
            **self._content(),
            signs=VERDICT_SIGNS,
            images=images,
            tables=[table for name, table in self.tables.items() if name not in WHERE_IT_ERRS],
            error_tables=[self.tables[name] for name in WHERE_IT_ERRS if name in self.tables],
            of_errors=self._of_errors,
        )

    def _content(self) -> dict[str, object]:
        """What both forms of the report hold."""
        evidence = self.evidence
        about = evidence.about
        return {
            "about": about,
            "settings": settings_of(about),
            "about_what": about_what(about.dataset, about.title),
            "claims": self.claims,
            "answers": self.answers,
            "counts": counts(evidence),
            "chosen": chosen(evidence),
            "spread": self._spread,
            "captions": self._captions,
            "missing": {self.drawings[name].title: why for name, why in self.missing.items()},
            "failed": [
                (", ".join(f"{n} {value}" for n, value in evidence.told(trial).items()), outcome.reason, outcome.log)
                for trial, outcome in list(evidence.failed.items())[:_SHOWN]
            ],
            "failed_more": max(0, len(evidence.failed) - _SHOWN),
            "versions": {**about.made_with, **{f"{k} (report)": v for k, v in versions().items()}},
            "again": self.again,
            "more": self.more,
            "more_words": MORE,
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
        parts = [f"# CemoBAM study: {plain_markdown(about.title)}"]
        if self.claims:
            table = pd.DataFrame(rows, columns=["Verdict", "Claim", "Where", "Numbers"]).to_markdown(index=False)
            parts += [plain_markdown(content["about_what"]), "## The paper's claims", table]
        if self.answers:
            parts.append("## Questions")
            for answer in self.answers:
                lines = "\n".join(f"- {plain_markdown(line)}" for line in answer.lines)
                parts.append(f"**{plain_markdown(answer.question)}**\n\n{lines}")
        parts += [
            plain_markdown(content["chosen"]),
            plain_markdown(content["spread"]),
            *map(plain_markdown, counts(self.evidence)),
            "## Figures",
        ]
        for name in self.figures:
            parts.append(
                f"![{plain_markdown(self.drawings[name].shows)}]({link(plots, results)}/{self.drawings[name].file}.png)"
            )
        parts += [
            f"Not drawn: {plain_markdown(self.drawings[name].title)}: {plain_markdown(why)}."
            for name, why in self.missing.items()
        ]
        tables = {name: table.markdown().rstrip() for name, table in self.tables.items()}
        parts += ["## Tables", *(text for name, text in tables.items() if name not in WHERE_IT_ERRS)]
        parts += ["## Where it errs", *map(plain_markdown, self._of_errors)]
        parts += [tables[name] for name in WHERE_IT_ERRS if name in tables]
        parts += ["## Settings", *_md_lists(settings_of(about), about.made_with)]
        if self.evidence.failed:
            failed = [
                f"- {plain_markdown(what)}: {plain_markdown(why)}{f' (`{log}`)' if log else ''}"
                for what, why, log in content["failed"]  # type: ignore[attr-defined]
            ]
            more = [f"- and {content['failed_more']} more"] if content["failed_more"] else []
            parts += ["## Failed trials", "\n".join(failed + more)]
        parts += ["## Again", f"    {self.again}"]
        parts += [f"{MORE}:", f"    {self.more}"] if self.more else []
        return "\n\n".join(part for part in parts if part) + "\n"


def make_report(evidence: Evidence, *, again: str) -> Report:
    """Put together what the ledger knows.

    Args:
        evidence: it.
        again: the command that makes the study again.
    """
    made = drawings(evidence)
    drawn = {name: drawing.draw(evidence) for name, drawing in made.items()}
    return Report(
        evidence=evidence,
        tables=make_tables(evidence),
        drawings=made,
        figures={name: figure for name, figure in drawn.items() if isinstance(figure, Figure)},
        missing={name: why for name, why in drawn.items() if isinstance(why, str)},
        again=again,
    )


def make_tables(evidence: Evidence) -> dict[str, Table]:
    """Return every table that there is something to show in, by name."""
    analysis = evidence.analysis
    others = (
        variance_table(analysis),
        comparisons_table(analysis),
        agreement_table(analysis),
        selection_table(analysis),
        errors_table(evidence.errors.recalls, evidence.about),
        hard_table(evidence.errors.hard, evidence.about),
        calibration_table(evidence.calibration, evidence.about),
    )
    return {**block_tables(evidence), **{table.name: table for table in others if table}}


def block_tables(evidence: Evidence) -> dict[str, Table]:
    """Return the blocks' tables and the systems that the paper compares with, made in a moment.

    A block of many configurations has no table but a csv: its figure shows it.
    """
    tables: dict[str, Table] = {}
    for name, block in evidence.blocks.items():
        about = evidence.about.block(name)
        if about is None or block.tunes or not evidence.any_done(name):
            continue
        if block.make_table:
            tables[about.table] = block.make_table(evidence)
        elif not block.chooses and len(about.rows) <= LONGEST:
            published = block.published(evidence.about.dataset) if block.published else None
            tables[about.table] = block_table(evidence.analysis, about, published)
    if systems := systems_table(evidence.analysis):
        tables[systems.name] = systems
    if tuning := tuning_table(traces(evidence.results), evidence.about):
        tables[tuning.name] = tuning
    return tables


def counts(evidence: Evidence) -> list[str]:
    """Return how many trials are done, what became of the others, and in which graph they were measured."""
    asked, done, failed = evidence.asked, evidence.done, evidence.failed
    line = f"{evidence.about.title}: {done} of {asked} trials done"
    if failed:
        line += f", {len(failed)} failed (the next run tries them again)"
    if (waiting := asked - done - len(failed)) > 0:
        line += f", {waiting} not run yet"
    reasons = Counter(outcome.reason for outcome in failed.values())
    failures = [f"failed {times} times: {reason}" for reason, times in reasons.most_common(10)]
    return [line, *failures, *measured_in(evidence.about.settings)]


def chosen(evidence: Evidence) -> str:
    """Return the pair, how it was come by, and what the study's own configuration does on test at it.

    Where no block needs a pair, and the study's own configuration was not run, there is nothing to say.
    """
    about, own, pair = evidence.about, evidence.results.own, evidence.about.at
    if evidence.waits_for_pair:
        return "No K pair is chosen yet: that takes every seed of at least one pair, and all of the grid run."
    if pair is None or about.value("k_audio") is None:
        line = f"{about.system}, which uses no graph"
    else:
        how = about.how if about.given else f"{about.how} by {MEASURES[about.select_by]}"
        line = f"K_audio = {pair.k_audio}, K_text = {pair.k_text} ({how})"
    if own.empty:
        return line if any(block.needs_pair or block.chooses for block in about.blocks) else ""
    record = own.iloc[0]
    shown = ", ".join(_figure(record, f"test_{measure}", label) for measure, label in evidence.results.measures.items())
    n = int(record["n_seeds"])
    interval = " (95% interval, another seed)" if n >= SEEDS_FOR_INTERVAL else ""
    whose = ""
    if evidence.results.own_seeds == about.confirm and about.pair_from != "usual":
        whose = " that took no part in the choice"
    elif not about.given and about.pair:
        whose = " that also chose the pair, so a little too high"
    return f"{line}: test {shown} over {seeds_in_words(n)}{whose}{interval}"


def _figure(record: pd.Series, metric: str, label: str) -> str:
    mean, low, high = (100 * record[f"{metric}_{x}"] for x in ("mean", "low", "high"))
    return f"{label} {mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if pd.notna(low) else "")


def settings_of(about: About) -> dict[str, object]:
    """Return what all trials share, and their seeds and folds, as a report lists them."""
    fresh = {"fresh seeds": ", ".join(map(str, about.confirm))} if about.confirm else {}
    seeds = ", ".join(map(str, about.seeds))
    return {**about.settings, "seeds": seeds, **fresh, "folds": about.folds, "rope": points_of(about.rope)}


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

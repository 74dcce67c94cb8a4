"""The report of a study: tables, figures, report.md and report.html, made from the ledger alone, and a summary."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cemobam_core.files import written_atomically
from study.engines.execution import versions
from study.findings.analysis import MEASURES
from study.findings.answers import Answer, answers
from study.findings.evidence import Evidence
from study.findings.predictions import PREDICTIONS, UTTERANCES
from study.findings.results import ABOUT, TRIALS, About, AboutBlock
from study.findings.statistics import SEEDS_FOR_INTERVAL
from study.findings.systems import measured_block
from study.findings.tuned import traces
from study.findings.wording import evaluation_graph_notes, index_notes, listed, points_of, sentence
from study.output import figures
from study.output.document import (
    Answered,
    Claimed,
    Code,
    Document,
    Items,
    Numbered,
    Part,
    Picture,
    Rows,
    Section,
    See,
    Terms,
    Text,
)
from study.output.error_tables import calibration_table, errors_table, hard_table, no_hard_sentence
from study.output.figures import Drawing, drawings, without_predictions
from study.output.tables import (
    LONGEST,
    TABLE_FORMS,
    Table,
    agreement_table,
    block_table,
    comparisons_table,
    selection_table,
    variance_table,
)
from study.output.tuning_table import NAME as TUNING
from study.output.tuning_table import tuning_table
from study.papers.cemobam import paper
from study.papers.cemobam.claims import OF_SYSTEMS, Claim, claims, scope, spread_sentences
from study.papers.cemobam.systems import NAMES as SYSTEMS
from study.papers.cemobam.systems import systems_table
from study.papers.demo import Truth, recovered, truths

OTHERS = ("claims.csv", "report.md", "report.html")

OF_ERRORS = ("errors", "hard", "calibration")
"""The tables of the section on errors."""

ALWAYS = (TUNING, "variance", "comparisons", "agreement", "selection", *SYSTEMS, *OF_ERRORS)
"""The tables that do not belong to one block."""


def result_files(about: About) -> list[str]:
    """Return the name of every file that a report may write into the folder of results."""
    tables = [*ALWAYS, *(block.table for block in about.blocks)]
    of_tables = [f"{name}.{form}" for name in dict.fromkeys(tables) for form in TABLE_FORMS]
    return [TRIALS, ABOUT, PREDICTIONS, UTTERANCES, *OTHERS, *of_tables]


def plot_files(about: About, forms: Sequence[str] = figures.FORMS) -> list[str]:
    """Return the name of every file that a report may write into the folder of figures.

    Args:
        about: Description of the study.
        forms: Formats of figures: those of a report, or others that a user may have drawn beside them.
    """
    own = (
        *("curves", "confusion", "confusion_difference", "errors", "calibration", "embedding", "marginal"),
        *("comparison", "critical_difference", "tuning"),
    )
    figures_of = [file for block in about.blocks for file in (block.file, f"{block.file}_sd")]
    return [f"{file}.{form}" for file in (*figures_of, *own) for form in forms]


MORE = "More seeds may decide the undecided differences. Only missing trials are trained"

_SHOWN = 50
"""The most failed trials that the report lists."""

_NARROW = ("confusion", "calibration", "embedding")
"""Figures that are no wider than a column of a paper."""

_BEHIND: dict[str, See] = {
    "k_matters": See(("topk", "marginal"), ("variance",)),
    "best_k": See(("topk",), ("confirm", "comparisons")),
    "best_system": See(("comparison",), SYSTEMS),
    "graph_helps": See(("comparison",), SYSTEMS),
}
"""The figures and tables behind claims that more than the table of one block is about."""

_INDENT = 2 + max(map(len, ("higher than published", "not tested")))


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """The report of a study so far.

    Attributes:
        evidence: The content of the ledger.
        tables: The tables by name.
        drawings: The figures of the study by name.
        figures: The figures that can be drawn, by name.
        missing: The reason for each figure that cannot be drawn, by name.
        again: The command that reproduces the study.
    """

    evidence: Evidence
    tables: dict[str, Table]
    drawings: dict[str, Drawing]
    figures: dict[str, Figure]
    missing: dict[str, str]
    again: str

    @cached_property
    def claims(self) -> list[Claim]:
        """The paper's claims with their verdicts. Without the paper's blocks, only those about systems."""
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
        """The answers to the questions of the blocks that are not the paper's."""
        return answers(self.evidence.analysis)

    @property
    def more(self) -> str:
        """The command that may decide undecided differences. Empty if more seeds would not, or run automatically."""
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
        """The summary for the terminal, in paragraphs."""
        about = self.evidence.about
        tested = [claim for claim in self.claims if claim.verdict != "not tested"]
        verdicts = [_hanging(claim.verdict, claim.answer) for claim in tested]
        if rest := len(self.claims) - len(tested):
            verdicts.append(_hanging("not tested", f"{rest} claims. The report says which, and why."))
        return (
            *counts(self.evidence),
            *filter(None, [chosen(self.evidence)]),
            *(table.markdown().rstrip() for name, table in self.tables.items() if name == TUNING or name not in ALWAYS),
            *("\n".join([answer.question, *(_hanging("  -", x, 4) for x in answer.lines)]) for answer in self.answers),
            *(
                ["\n".join([f"The paper's claims. {scope(about.in_papers, about.title)}", *verdicts])]
                if verdicts
                else []
            ),
            *([recovered(self._found)] if self._found else []),
            *([f"{MORE}:\n  {self.more}"] if self.more else []),
        )

    def write(self, results: Path, plots: Path) -> list[Path]:
        """Write trials, tables and reports into ``results`` and figures into ``plots``, each file as a whole.

        Files of an earlier report that this one does not have are removed: they would show other trials.

        Raises:
            OSError: A folder cannot be written to, or the disk is full. Files that are already written stay.
        """
        made, about = self.evidence.results, self.evidence.about
        written = made.save(results)
        for block in about.blocks:
            if block.table not in self.tables and not block.tunes and not made.block(block.name).empty:
                written.append(_write_csv(made.block(block.name), results / f"{block.table}.csv"))
        if self.claims:
            written.append(_write_csv(pd.DataFrame([claim.record for claim in self.claims]), results / "claims.csv"))
        for table in self.tables.values():
            written += table.write(results)
        for name, figure in self.figures.items():
            written += figures.save(figure, plots / self.drawings[name].file)
        document = self.document(results, plots)
        for name, text in (("report.md", document.markdown()), ("report.html", document.html())):
            with written_atomically(results / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(results / name)
        possible = [results / name for name in result_files(about)] + [plots / name for name in plot_files(about)]
        for path in set(possible) - set(written):
            path.unlink(missing_ok=True)
        return written

    def document(self, results: Path, plots: Path) -> Document:
        """Return the report as a document.

        Args:
            results: The folder of ``report.md``.
            plots: The folder of the figures, which must be written before the page is.
        """
        about = self.evidence.about
        sections = (
            Section("overview", "Overview", self._overview()),
            Section("answers", "Answers", self._answered()),
            Section("claims", "Do the paper's claims hold?", self._claimed()),
            Section("truths", "What is true of the demo's data", self._truths()),
            Section("figures", "Figures", self._pictures(results, plots)),
            Section("tables", "Tables", self._tables()),
            Section("errors", "Errors", self._errors()),
            Section("settings", "Settings and versions", self._settings()),
            Section("failed", "Failed trials", self._failed()),
            Section("reproduce", "How to reproduce this", self._reproduce()),
        )
        return Document(
            title=f"CemoBAM study: {about.title}",
            lead=scope(about.in_papers, about.title) if self.claims else "",
            sections=[section for section in sections if section.parts],
        )

    def _overview(self) -> list[Part]:
        evidence, analysis = self.evidence, self.evidence.analysis
        made = [chosen(evidence), _verdict_counts(self.claims)]
        if not self.claims and analysis.metric in analysis.variance:
            made += [f"{MEASURES[analysis.metric]} on test: {' '.join(spread_sentences(analysis))}"]
        return [
            *(Text(sentence) for sentence in counts(evidence)),
            *(Text(sentence) for sentence in made if sentence),
            Text("How to read the numbers:"),
            Items(_reading(evidence.about, with_claims=bool(self.claims))),
        ]

    def _answered(self) -> list[Part]:
        about = self.evidence.about
        return [Answered(answer, _behind(about.block(answer.block))) for answer in self.answers]

    def _claimed(self) -> list[Part]:
        about = self.evidence.about
        tested_first = sorted(self.claims, key=lambda claim: claim.verdict == "not tested")
        return [
            Claimed(x, See() if x.verdict == "not tested" else _BEHIND.get(x.id, _behind(about.block(x.block))))
            for x in tested_first
        ]

    @cached_property
    def _found(self) -> list[Truth]:
        return truths(self.evidence.analysis, self.claims)

    def _truths(self) -> list[Part]:
        if not self._found:
            return []
        rows = tuple((truth.truth, truth.reason, truth.outcome, truth.finding) for truth in self._found)
        return [
            Text(
                "The demo's data come from a generator, so what is true of them is known. This table compares it with "
                "what the study says."
            ),
            Rows(("Truth", "Why it is true", "Outcome", "What the study says"), rows),
            Text(recovered(self._found)),
        ]

    def _pictures(self, results: Path, plots: Path) -> list[Part]:
        folder = link(plots, results)
        made: list[Part] = []
        for name in self.figures:
            drawing = self.drawings[name]
            png = f"{drawing.file}.png"
            made.append(
                Picture(name, drawing.title, drawing.shows, plots / png, f"{folder}/{png}", wide=name not in _NARROW)
            )
        if self.missing:
            made.append(Text("Figures that cannot be drawn:"))
            made.append(Items(tuple(f"{self.drawings[x].title}: {why}." for x, why in self.missing.items())))
        return made

    def _tables(self) -> list[Part]:
        made: list[Part] = [Numbered(x) for name, x in self.tables.items() if name not in OF_ERRORS]
        return made or [Text("No table has any content yet.")]

    def _errors(self) -> list[Part]:
        if "errors" not in self.tables:
            return [Text(sentence(without_predictions(self.evidence)))]
        no_hard = no_hard_sentence(self.evidence.errors.hard)
        tables = [Numbered(self.tables[name]) for name in OF_ERRORS if name in self.tables]
        return [*([Text(no_hard)] if no_hard else []), *tables]

    def _settings(self) -> list[Part]:
        about = self.evidence.about
        grid = {"K_audio of the grid": about.k_audio, "K_text of the grid": about.k_text} if about.k_audio else {}
        return [
            Terms(
                {
                    "data set": about.title,
                    **{name: ", ".join(map(str, values)) for name, values in grid.items()},
                    **settings_of(about),
                    **about.made_with,
                    **{f"{name} (report)": version for name, version in versions().items()},
                }
            )
        ]

    def _failed(self) -> list[Part]:
        failed = list(self.evidence.failed.items())
        if not failed:
            return []
        rows = [
            (", ".join(f"{n} {value}" for n, value in self.evidence.told(trial).items()), outcome.reason, outcome.log)
            for trial, outcome in failed[:_SHOWN]
        ]
        more = len(failed) - _SHOWN
        return [
            Rows(("Trial", "Reason", "Log"), tuple(rows)),
            *([Text(f"{more} more failed trials are in trials.csv.")] if more > 0 else []),
        ]

    def _reproduce(self) -> list[Part]:
        more: list[Part] = [Text(f"{MORE}:"), Code(self.more)] if self.more else []
        return [
            Code(self.again),
            Text("With --report-only, this command makes the tables, the figures and this page from the ledger alone."),
            *more,
        ]


def _hanging(first: str, text: str, indent: int = _INDENT) -> str:
    """Return a text for the terminal, indented below its first word."""
    return textwrap.fill(text, 110, initial_indent=first.ljust(indent), subsequent_indent=" " * indent)


def _behind(block: AboutBlock | None) -> See:
    """Return the figure and the tables of a block."""
    return See((block.drawing,), (block.table, "comparisons")) if block else See()


def _verdict_counts(claims: list[Claim]) -> str:
    """Return a sentence with the number of claims for each verdict. Empty without claims."""
    if not claims:
        return ""
    by_verdict = Counter(claim.verdict for claim in claims)
    untested = by_verdict.pop("not tested", 0)
    tested = listed([f"{n} {verdict}" for verdict, n in by_verdict.most_common()]) if by_verdict else "none"
    return f"Verdicts on the {len(claims)} claims: {tested}; {untested} not tested."


def _reading(about: About, *, with_claims: bool) -> tuple[str, ...]:
    """Return sentences that explain how to read the numbers of the report."""
    rope = points_of(about.rope)
    verdicts = (
        f"Verdicts: an effect is confirmed or contradicted at the 5% level. Equivalent: the difference is shown to be "
        f"within {rope}. Undecided: the data show neither a difference nor equivalence.",
    )
    return (
        "Scores are percentages. WA is plain accuracy, UA the mean recall over classes, w-F1 the F1 score weighted by "
        "class size, and macro F1 the mean F1 score over classes.",
        "All intervals are 95% intervals. A mean or difference needs at least three seeds for one.",
        "The intervals of scores hold for another seed on the same test utterances. Comparisons of systems and modules "
        "use wider intervals, which hold for another seed and other test utterances.",
        f"Differences are in percentage points. A difference within {rope} counts as practically the same.",
        *(verdicts if with_claims else ()),
    )


def make_report(evidence: Evidence, *, again: str) -> Report:
    """Return the report of a study.

    Args:
        evidence: The content of the ledger.
        again: The command that reproduces the study.
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
    """Return every table that has content, by name."""
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
    """Return the tables of the blocks, of the systems and of tuning, by name. This is fast.

    A block of many configurations has a csv only: its figure shows it.
    """
    tables: dict[str, Table] = {}
    for name, block in evidence.blocks.items():
        about = evidence.about.block(name)
        if about is None or block.tunes or not evidence.any_done(name):
            continue
        if block.make_table:
            tables[about.table] = block.make_table(evidence)
        elif not block.chooses and len(about.rows) <= LONGEST:
            published = block.published(evidence.about.in_papers) if block.published else None
            tables[about.table] = block_table(evidence.analysis, about, published)
    if systems := systems_table(evidence.analysis):
        tables[systems.name] = systems
    if tuning := tuning_table(traces(evidence.results), evidence.about):
        tables[tuning.name] = tuning
    return tables


def counts(evidence: Evidence) -> list[str]:
    """Return how many trials are done, why others failed, and in which graph the trials were evaluated."""
    asked, done, failed = evidence.asked, evidence.done, evidence.failed
    line = f"{evidence.about.title}: {done} of {asked} trials done"
    if failed:
        line += f", {len(failed)} failed (the next run tries them again)"
    if (waiting := asked - done - len(failed)) > 0:
        line += f", {waiting} not run yet"
    reasons = Counter(outcome.reason for outcome in failed.values())
    failures = [f"{'1 trial' if n == 1 else f'{n} trials'} failed: {reason}" for reason, n in reasons.most_common(10)]
    about = evidence.about
    notes = (*evaluation_graph_notes(about.settings), *index_notes(about.settings, about.recall))
    return [f"{line}.", *failures, *notes]


def chosen(evidence: Evidence) -> str:
    """Return the study's pair and the test scores of the study's own configuration at it, in sentences.

    It is empty if no block needs a pair and the study's own configuration was not run.
    """
    about, own, pair = evidence.about, evidence.results.own, evidence.about.at
    if evidence.waits_for_pair:
        return "No K pair is chosen yet: the choice needs one pair with every seed, after all trials of the grid ran."
    if pair is None or about.value("k_audio") is None:
        line = f"{about.system} uses no graph."
    else:
        line = f"{_how_chosen(about)[0]} K_audio = {pair.k_audio}, K_text = {pair.k_text}{_how_chosen(about)[1]}."
    if own.empty:
        return line if any(block.needs_pair or block.chooses for block in about.blocks) else ""
    record, n = own.iloc[0], int(own.iloc[0]["n_seeds"])
    scores = [_score(record, f"test_{measure}", label) for measure, label in evidence.results.measures.items()]
    fresh = evidence.results.own_seeds == about.confirm and about.pair_from != "usual"
    over = f"{n} {'fresh ' if fresh else ''}{'seed' if n == 1 else 'seeds'}"
    mean = f"mean over {over}" if n > 1 else over
    interval = ", 95% interval in brackets" if n >= SEEDS_FOR_INTERVAL else ""
    line = f"{line} On test, it reaches {listed(scores)} ({mean}{interval})."
    if fresh:
        line += " Fresh seeds had no part in the choice."
    elif not about.given and about.pair:
        line += " These seeds also chose the pair, so the scores are slightly too high."
    return line


def _how_chosen(about: About) -> tuple[str, str]:
    """Return the words before and after the study's pair that describe how it was chosen."""
    if about.pair_from == "given":
        return "The given pair is", ""
    if about.given:
        return "The pair is", ", the usual one, because none was chosen"
    metric = MEASURES[about.select_by]
    on = "validation" if about.select_on == "val" else "the test split, as in the released code"
    return "The chosen pair is", f", which has the best mean {metric} on {on}"


def _score(record: pd.Series, metric: str, label: str) -> str:
    """Return a mean score with its interval in percent."""
    mean, low, high = (100 * record[f"{metric}_{x}"] for x in ("mean", "low", "high"))
    return f"{label} {mean:.2f}" + (f" [{low:.2f} to {high:.2f}]" if pd.notna(low) else "")


def settings_of(about: About) -> dict[str, object]:
    """Return the settings that all trials share, with their seeds and folds."""
    fresh = {"fresh seeds": ", ".join(map(str, about.confirm))} if about.confirm else {}
    seeds = ", ".join(map(str, about.seeds))
    splits = {"fingerprint of the splits": about.splits} if about.splits else {}
    return {**about.settings, "seeds": seeds, **fresh, "folds": about.folds, **splits, "rope": points_of(about.rope)}


def link(plots: Path, results: Path) -> str:
    """Return the Markdown link from the folder of results to the folder of figures."""
    return os.path.relpath(plots, results).replace(os.sep, "/").replace(" ", "%20")


def _write_csv(frame: pd.DataFrame, path: Path) -> Path:
    with written_atomically(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path

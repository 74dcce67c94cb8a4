"""The note and the figures of a study for the Optuna dashboard, kept current while the study runs.

The dashboard reads them from an Optuna study's attributes. The note uses the sentences and tables of the report.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy

from cemobam_core.extras import require
from study.design.tuning import DEFAULTS, TUNED
from study.driver import StudyRun
from study.findings.analysis import MEASURES
from study.findings.answers import Answer
from study.findings.evidence import Evidence
from study.findings.tuned import trace
from study.ledger.ledger import FACTS
from study.ledger.storages import LedgerFailed
from study.output.document import VERDICT_SIGNS
from study.output.figures import (
    drawings,
    head_of,
    in_order,
    interactive,
    labels_of,
    learning_curves,
    nothing_to_draw,
    plane_of,
    published_of,
)
from study.output.report import Report, block_tables, chosen, counts, settings_of
from study.output.tables import Table, plain_markdown
from study.papers.cemobam.claims import Claim, scope
from study.papers.cemobam.systems import NAMES

try:
    import plotly.graph_objects as go
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object
except ModuleNotFoundError:
    require("dashboard", "study.output.publishing")
    raise

_EVERY = 30.0
"""The least seconds between two updates of a running study."""
_SHARE = 0.02
"""The largest share of a run's time that updates may take."""

_MARK = "*The study updates the text below this line. Text that you write above it stays.*"

_PUBLISHED = "cemobam:published"
"""The system attribute of an Optuna study that holds its number of trials when its figures and note were written."""

_BEST, _ANSWER = "Best Trial", "Answer"
"""Attributes of an Optuna study that the dashboard shows beside its "Best Trial"."""

_log = logging.getLogger(__name__)


class Publisher:
    """Updates the dashboard's note and figures while the study runs.

    An update takes longer with more trials, so it runs every 30 s at most and takes 2% of the time at most. It runs on
    the thread that records outcomes, the only one that may read them.

    Args:
        run: The running study.
        name: The name of the study.
        models: The folder of the trained models.
        again: The command that reproduces the study.
    """

    def __init__(self, run: StudyRun, *, name: str, models: Path, again: str) -> None:
        self._run, self._name, self._models, self._again = run, name, models, again
        self._next = time.monotonic() + _EVERY

    def on_outcome(self) -> None:
        """Publish if enough time has passed."""
        start = time.monotonic()
        if start < self._next:
            return
        evidence = Evidence.of(self._run, name=self._name, models=self._models)
        publish(self._run, evidence, block_tables(evidence), again=self._again)
        end = time.monotonic()
        self._next = end + max(_EVERY, (end - start) / _SHARE)


def publish_report(run: StudyRun, report: Report) -> None:
    """Publish the tables of a report and, when every trial is done, its answers and claims.

    Args:
        run: The study.
        report: The report of the study.
    """
    evidence = report.evidence
    claims, answers = (report.claims, report.answers) if evidence.asked == evidence.done else ((), ())
    publish(run, evidence, report.tables, again=report.again, claims=claims, answers=answers)


def publish(
    run: StudyRun,
    evidence: Evidence,
    tables: Mapping[str, Table],
    *,
    again: str,
    claims: Sequence[Claim] = (),
    answers: Sequence[Answer] = (),
) -> None:
    """Write note and figures into the Optuna study of every block. Log a warning if the storage refuses.

    Args:
        run: The study.
        evidence: The content of its ledger.
        tables: The tables by name, from :func:`study.output.report.make_tables`.
        again: The command that reproduces the study.
        claims: The paper's claims with their verdicts.
        answers: The answers to the questions of blocks.
    """
    try:
        for block in (*evidence.blocks, *evidence.waiting):
            with run.ledger.guarded():
                shown = run.ledger.optuna_study(block)
            if shown is None:
                continue
            figures, beside = _figures(evidence, block), _beside_the_best(evidence, block)
            note = _note(run, evidence, block, tables, again=again, claims=claims, answers=answers)
            with run.ledger.guarded():
                _publish(shown, figures, beside, note)
    except LedgerFailed as failure:
        # Figures can be published again; a broken storage stops the recording of the next trial.
        _log.warning("the figures and notes of the dashboard were not updated: %s", failure)


def _publish(shown: optuna.Study, figures: Mapping[str, go.Figure], beside: Mapping[str, str], note: str) -> None:
    """Write the figures, the attributes and the note of one Optuna study."""
    for name, figure in figures.items():
        save_plotly_graph_object(shown, figure, graph_object_id=name)
    shown_before = shown.user_attrs
    for key, value in beside.items():
        if shown_before.get(key) != value:
            shown.set_user_attr(key, value)
    before = get_note(shown)
    own = before.partition(_MARK)[0].rstrip()
    if before != (text := "\n\n".join(part for part in (own, _MARK, note) if part)):
        save_note(shown, text)
    storage, study_id = shown._storage, shown._study_id
    storage.set_study_system_attr(study_id, _PUBLISHED, storage.get_n_trials(study_id))


def is_current(storage: BaseStorage, study: FrozenStudy) -> bool:
    """Return whether the figures and the note of an Optuna study include all of its trials."""
    trials = storage.get_n_trials(study._study_id)
    return FACTS not in study.user_attrs or not trials or study.system_attrs.get(_PUBLISHED) == trials


def _figures(evidence: Evidence, block: str) -> dict[str, go.Figure]:
    """Return figures by their id in the dashboard, so that an update replaces them."""
    figures = {block: _figure(evidence, block)}
    described, about = drawings(evidence), evidence.about.block(block)
    if about and evidence.any_done(block):
        interactive.captioned(figures[block], described["tuning" if about.tunes else about.drawing].caption)
    if block in evidence.blocks and not evidence.blocks[block].tunes and evidence.blocks[block].make_page is None:
        lines = learning_curves(evidence)
        if isinstance(lines, str) or block not in lines:
            why = lines if isinstance(lines, str) else nothing_to_draw(evidence)
            figures["learning-curves"] = interactive.nothing_yet("Learning curves", why)
        else:
            about = evidence.about.block(block)
            head = about.head if about and not about.chooses and head_of(about) else ""
            figure = interactive.curves(lines[block], title=_where(evidence), head=head)
            figures["learning-curves"] = interactive.captioned(figure, described["curves"].caption)
    return figures


def _figure(evidence: Evidence, name: str) -> go.Figure:
    """Return the main figure of a block."""
    about, results, block = evidence.about, evidence.results, evidence.about.block(name)
    if block is None or not evidence.any_done(name):
        return interactive.nothing_yet(block.title if block else name, f"no trial of the block {name} is done")
    of = evidence.blocks[name]
    if of.tunes:
        scores, label = trace(evidence.results, block).scores, MEASURES[about.select_by]
        return interactive.tuning(scores, label=label, title=f"{about.title}: {block.title}")
    if of.make_page:
        page: go.Figure = of.make_page(evidence, _where(evidence))
        return page
    title = f"{_where(evidence) if block.needs_pair else about.title}: {block.title}"
    frame = results.block(name)
    if of.kind == "plane" and frame[list(block.columns)].notna().all(axis=None):
        return interactive.heatmap(plane_of(results, block), title=title, first=about.select_by)
    _, by_seed, summary = in_order(results, block)
    return interactive.configurations(
        by_seed,
        summary,
        labels_of(results, block),
        head=block.head if head_of(block) else "",
        published=published_of(evidence, name),
        title=title,
        first=about.select_by,
        joined=of.kind == "line",
    )


def _beside_the_best(evidence: Evidence, block: str) -> dict[str, str]:
    """Return short explanations beside the dashboard's "Best Trial": its meaning, and the answer of the study."""
    about = evidence.about.block(block)
    if about and about.tunes:
        best = trace(evidence.results, about).best
        answer = (
            f"validation chose {'the defaults' if best == 0 else f'configuration {best}'}" if best is not None else ""
        )
        return {_BEST: "the best on validation, with one seed", _ANSWER: answer or "no configuration is finished"}
    if about and about.chooses and (pair := evidence.about.at) and not evidence.about.given:
        answer = f"K {pair} has the best mean over seeds; see the note"
    else:
        answer = "see the means over seeds in the note"
    return {_BEST: "one trial with the best validation WA, partly by chance", _ANSWER: answer}


def _note(
    run: StudyRun,
    evidence: Evidence,
    block: str,
    tables: Mapping[str, Table],
    *,
    again: str,
    claims: Sequence[Claim],
    answers: Sequence[Answer],
) -> str:
    """Return the note: the study and its progress, its answers, its tables, its settings, how to reproduce it."""
    about = evidence.about
    trials = run.trials(block)
    done = sum(outcome.status == "done" for outcome in run.known(trials).values())
    far = (
        f"**{done} of {len(trials)} trials of this block are done.**" if trials else "This block waits for the K pair."
    )
    of = evidence.about.block(block)
    parts = [
        f"# {plain_markdown(of.title if of else block)}",
        *([plain_markdown(of.question)] if of and of.question != of.title else []),
        f"CemoBAM study {plain_markdown(about.name)}, profile {plain_markdown(about.profile)}. {far}",
        "\n".join(f"- {plain_markdown(line)}" for line in [*counts(evidence), chosen(evidence)] if line),
    ]
    for answer in answers:
        if answer.block == block:
            parts += ["## Answer", "\n".join(f"- {plain_markdown(line)}" for line in answer.lines)]
    if claims:
        rows = [
            (f"{VERDICT_SIGNS[x.verdict]} **{x.verdict}**", plain_markdown(x.claim), plain_markdown(x.answer))
            for x in claims
        ]
        table = pd.DataFrame(rows, columns=["Verdict", "Claim", "Answer"]).to_markdown(index=False)
        parts += ["## The paper's claims", plain_markdown(scope(about.in_papers, about.title)), table]
    wanted = [of.table] if of else []
    wanted += ["tuning"] if of and (of.tunes or of.name == TUNED) else []
    wanted += ["variance", "selection"] if of and of.chooses else []
    wanted += NAMES if of and ("fusion" in of.columns or of.name in (TUNED, DEFAULTS)) else ()
    shown = [_spaced(tables[name].markdown().rstrip()) for name in wanted if name in tables]
    settings = settings_of(about)
    parts += [
        *(["## Tables", *shown] if shown else []),
        "## Settings",
        ", ".join(f"{plain_markdown(name)} **{plain_markdown(value)}**" for name, value in settings.items()),
        "## How to reproduce this",
        f"    {again}",
    ]
    return "\n\n".join(parts)


def _where(evidence: Evidence) -> str:
    """Return the data set and the pair."""
    pair = evidence.about.at
    return f"{evidence.about.title}, K {pair}" if pair else evidence.about.title


def _spaced(table: str) -> str:
    """Return a Markdown table with an em space before all columns but the first: the dashboard leaves no room."""
    return re.sub(r"(?m)(?<=[^\\|\n])\|(?= )", "|&emsp;", table)

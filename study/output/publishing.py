"""What the Optuna dashboard shows of a study beside its trials: a note and figures, kept current while it runs.

The dashboard reads them from an Optuna study's attributes. They come from the builders of the report, so that both say
the same.
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
from sqlalchemy.exc import SQLAlchemyError

from cemobam_core.extras import require
from study.design.tuning import DEFAULTS, TUNED
from study.driver import StudyRun
from study.findings.analysis import MEASURES
from study.findings.answers import Answer
from study.findings.evidence import Evidence
from study.findings.tuned import trace
from study.ledger.ledger import FACTS
from study.output.figures import (
    head_of,
    in_order,
    interactive,
    labels_of,
    learning_curves,
    nothing_to_draw,
    published_of,
)
from study.output.report import VERDICT_SIGNS, Report, block_tables, chosen, counts, settings_of
from study.output.tables import Table, plain_markdown
from study.papers.cemobam.claims import Claim, about_what
from study.papers.cemobam.systems import NAMES

try:
    import plotly.graph_objects as go
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object
except ModuleNotFoundError:
    require("dashboard", "study.output.publishing")
    raise

_EVERY = 30.0
"""Seconds between two looks that a running study gives of itself, at least."""
_SHARE = 0.02
"""Of a run's time that they may take, at most."""

_MARK = "*What is below is kept current by the study; what you write above this line stays.*"

_PUBLISHED = "cemobam:published"
"""The system attribute of an Optuna study that holds its number of trials when its figures and note were written."""

_BEST, _ANSWER = "Best Trial", "the answer"
"""The attributes of an Optuna study that stand beside the dashboard's "Best Trial"."""

_log = logging.getLogger(__name__)


class Publisher:
    """Keeps what the dashboard shows of a study current while the study runs.

    Publishing takes as long as there are trials to average, so it is rationed: every 30 s at most, and never more than
    2% of the time. It happens on the thread that records outcomes, which alone may read them.

    Args:
        run: the study that runs.
        name: of the study.
        models: the folder where trained models are kept.
        again: the command that makes the study again.
    """

    def __init__(self, run: StudyRun, *, name: str, models: Path, again: str) -> None:
        self._run, self._name, self._models, self._again = run, name, models, again
        self._next = time.monotonic() + _EVERY

    def on_outcome(self) -> None:
        """Publish if it is time to."""
        start = time.monotonic()
        if start < self._next:
            return
        evidence = Evidence.of(self._run, name=self._name, models=self._models)
        publish(self._run, evidence, block_tables(evidence), again=self._again)
        end = time.monotonic()
        self._next = end + max(_EVERY, (end - start) / _SHARE)


def publish_report(run: StudyRun, report: Report) -> None:
    """Publish what a report says: all tables and, when every trial is done, its answers and the paper's claims.

    Args:
        run: the study.
        report: of it.
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
    """Write note and figures onto the Optuna study of every block that has one; a storage that refuses is no error.

    Args:
        run: the study.
        evidence: what it has to show.
        tables: by name, as :func:`study.output.report.make_tables` gives them.
        again: the command that makes the study again.
        claims: the paper's, each with its verdict.
        answers: of the blocks that no paper claims anything about.
    """
    try:
        for block in (*evidence.blocks, *evidence.waiting):
            if (shown := run.ledger.optuna_study(block)) is None:
                continue
            for name, figure in _figures(evidence, block).items():
                save_plotly_graph_object(shown, figure, graph_object_id=name)
            said_before = shown.user_attrs
            for key, value in _beside_the_best(evidence, block).items():
                if said_before.get(key) != value:
                    shown.set_user_attr(key, value)
            note = _note(run, evidence, block, tables, again=again, claims=claims, answers=answers)
            before = get_note(shown)
            own = before.partition(_MARK)[0].rstrip()
            if before != (said := "\n\n".join(part for part in (own, _MARK, note) if part)):
                save_note(shown, said)
            storage, study_id = shown._storage, shown._study_id
            storage.set_study_system_attr(study_id, _PUBLISHED, storage.get_n_trials(study_id))
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        # The trials matter, the pictures can be published again; what is wrong will stop the next trial's recording.
        _log.warning("the dashboard's figures and notes were not renewed: %s", str(error).partition("\n")[0])


def is_current(storage: BaseStorage, study: FrozenStudy) -> bool:
    """Return whether the figures and the note of an Optuna study include all of its trials."""
    trials = storage.get_n_trials(study._study_id)
    return FACTS not in study.user_attrs or not trials or study.system_attrs.get(_PUBLISHED) == trials


def _figures(evidence: Evidence, block: str) -> dict[str, go.Figure]:
    """Return figures by the id under which the dashboard keeps each, so that it is replaced and not added."""
    figures = {block: _figure(evidence, block)}
    if block in evidence.blocks and not evidence.blocks[block].tunes and evidence.blocks[block].make_page is None:
        lines = learning_curves(evidence)
        if isinstance(lines, str) or block not in lines:
            why = lines if isinstance(lines, str) else nothing_to_draw(evidence)
            figures["learning-curves"] = interactive.nothing_yet("Learning curves", why)
        else:
            about = evidence.about.block(block)
            head = about.head if about and not about.chooses and head_of(about) else ""
            figures["learning-curves"] = interactive.curves(lines[block], title=_where(evidence), head=head)
    return figures


def _figure(evidence: Evidence, name: str) -> go.Figure:
    """Return what the block is about."""
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
        (x, y), keys = block.columns, results.keys(block)
        return interactive.heatmap(
            frame, (x, y), about.pair if block.chooses else None, title=title, seeds=len(block.seeds),
            xs=list(dict.fromkeys(key[0] for key in keys)), ys=list(dict.fromkeys(key[1] for key in keys)),
            how=about.how, first=about.select_by,
        )  # fmt: skip
    keys, by_seed, summary = in_order(results, block)
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
    """Return what the dashboard's "Best Trial" is, and what the study answers instead; short, for a narrow table."""
    about = evidence.about.block(block)
    if about and about.tunes:
        best = trace(evidence.results, about).best
        answer = (
            f"validation chose {'the defaults' if best == 0 else f'configuration {best}'}" if best is not None else ""
        )
        return {_BEST: "the best on validation, with one seed", _ANSWER: answer or "none is done yet"}
    if about and about.chooses and (pair := evidence.about.at) and not evidence.about.given:
        answer = f"K {pair}, by the mean over seeds: see the note"
    else:
        answer = "by means over seeds: see the note"
    return {_BEST: "one trial, by validation WA: partly luck, no result", _ANSWER: answer}


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
    """What the study is and how far, what it says, its settings, how to make it again."""
    about = evidence.about
    trials = run.trials(block)
    done = sum(outcome.status == "done" for outcome in run.known(trials).values())
    far = f"**{done} of {len(trials)} trials of this block are done.**" if trials else "Waits for the K pair."
    of = evidence.about.block(block)
    parts = [
        f"# {plain_markdown(of.title if of else block)}",
        *([plain_markdown(of.question)] if of and of.question != of.title else []),
        f"CemoBAM study {plain_markdown(about.name)}, profile {plain_markdown(about.profile)}. {far}",
        "\n".join(f"- {plain_markdown(line)}" for line in [*counts(evidence), chosen(evidence)] if line),
    ]
    for answer in answers:
        if answer.block == block:
            parts += ["## The answer", "\n".join(f"- {plain_markdown(line)}" for line in answer.lines)]
    if claims:
        rows = [(f"{VERDICT_SIGNS[x.verdict]} **{x.verdict}**", x.claim, x.numbers) for x in claims]
        table = pd.DataFrame(rows, columns=["Verdict", "Claim", "Numbers"]).map(_cell).to_markdown(index=False)
        parts += ["## The paper's claims", plain_markdown(about_what(about.dataset, about.title)), table]
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
        "## Again",
        f"    {again}",
    ]
    return "\n\n".join(parts)


def _where(evidence: Evidence) -> str:
    """The data set and the pair."""
    pair = evidence.about.at
    return f"{evidence.about.title}, K {pair}" if pair else evidence.about.title


def _spaced(table: str) -> str:
    """With room between columns, which the dashboard leaves none: an em space before all but the first."""
    return re.sub(r"(?m)(?<=[^\\|\n])\|(?= )", "|&emsp;", table)


def _cell(text: str) -> str:
    """What stands in a table's cell; the verdict is bold already."""
    return text if text.endswith("**") else plain_markdown(text)

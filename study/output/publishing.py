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
import plotly.graph_objects as go
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from sqlalchemy.exc import SQLAlchemyError

from cemobam_core.config import FUSIONS, MODULES
from study.driver import StudyRun
from study.findings.evidence import Evidence
from study.output.figures import interactive, learning_curves
from study.output.report import VERDICT_SIGNS, Report, chosen, counts, paper_tables
from study.output.tables import Table, plain_markdown
from study.papers.cemobam import published
from study.papers.cemobam.claims import Claim, about_what

_EVERY = 30.0
"""Seconds between two looks that a running study gives of itself, at least."""
_SHARE = 0.02
"""Of a run's time that they may take, at most."""

_MARK = "*What is below is kept current by the study; what you write above this line stays.*"

_BEST, _ANSWER = "Best Trial", "the answer"
"""The attributes of an Optuna study that stand beside the dashboard's "Best Trial"."""

_TITLES = {
    "grid": "The K grid (Fig. 2)",
    "fusion": "Fusion strategies (Table I)",
    "ablation": "Ablation (Table II)",
    "gaps": "Gaps between the paper's text and the released code",
}
_TABLES = {
    "grid": ("variance", "selection"),
    "fusion": ("table1", "table3", "table4"),
    "ablation": ("table2",),
    "gaps": ("gaps",),
}

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
        publish(self._run, evidence, paper_tables(evidence), again=self._again)
        end = time.monotonic()
        self._next = end + max(_EVERY, (end - start) / _SHARE)


def publish_report(run: StudyRun, report: Report) -> None:
    """Publish what a report says: all tables and, when every trial is done, the answers to the paper's claims.

    Args:
        run: the study.
        report: of it.
    """
    evidence = report.evidence
    answers = report.claims if evidence.asked == evidence.done else ()
    publish(run, evidence, report.tables, again=report.again, answers=answers)


def publish(
    run: StudyRun, evidence: Evidence, tables: Mapping[str, Table], *, again: str, answers: Sequence[Claim] = ()
) -> None:
    """Write note and figures onto the Optuna study of every block that has one; a storage that refuses is no error.

    Args:
        run: the study.
        evidence: what it has to show.
        tables: by name, as :func:`study.output.report.make_tables` gives them.
        again: the command that makes the study again.
        answers: to the paper's claims.
    """
    try:
        for block in evidence.blocks:
            if (shown := run.ledger.optuna_study(block)) is None:
                continue
            for name, figure in _figures(evidence, block, tables).items():
                save_plotly_graph_object(shown, figure, graph_object_id=name)
            said_before = shown.user_attrs
            for key, value in _beside_the_best(evidence, block).items():
                if said_before.get(key) != value:
                    shown.set_user_attr(key, value)
            note = _note(run, evidence, block, tables, again=again, answers=answers)
            before = get_note(shown)
            own = before.partition(_MARK)[0].rstrip()
            if before != (said := "\n\n".join(part for part in (own, _MARK, note) if part)):
                save_note(shown, said)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        # The trials matter, the pictures can be published again; what is wrong will stop the next trial's recording.
        _log.warning("the dashboard's figures and notes were not renewed: %s", str(error).partition("\n")[0])


def _figures(evidence: Evidence, block: str, tables: Mapping[str, Table]) -> dict[str, go.Figure]:
    """By the id under which the dashboard keeps each, so that it is replaced and not added."""
    figures = {block: _figure(evidence, block, tables)}
    if block != "gaps":
        lines = learning_curves(evidence)
        if isinstance(lines, str) or block not in lines:
            why = lines if isinstance(lines, str) else "no trial at the K pair is done"
            figures["learning-curves"] = interactive.nothing_yet("Learning curves at the K pair", why)
        else:
            figures["learning-curves"] = interactive.curves(lines[block], title=_where(evidence))
    return figures


def _figure(evidence: Evidence, block: str, tables: Mapping[str, Table]) -> go.Figure:
    """What the block is about."""
    about, results = evidence.about, evidence.results
    fusion = block == "fusion"
    if block == "grid" and not results.grid.empty:
        return interactive.heatmap(
            results.grid, about.at, title=about.title, seeds=len(about.seeds), k_audio=about.k_audio,
            k_text=about.k_text, how=about.how, first=about.select_by,
        )  # fmt: skip
    if block == "gaps" and "gaps" in tables:
        return interactive.gaps(tables["gaps"].frame, title=_where(evidence))
    if block in ("fusion", "ablation") and not (results.fusion if fusion else results.ablation).empty:
        key = "fusion" if fusion else "modules"
        return interactive.variants(
            results.per_seed(results.fusion_trials if fusion else results.ablation_trials, [key]),
            results.fusion if fusion else results.ablation,
            key,
            FUSIONS if fusion else MODULES,
            published=published("table1" if fusion else "table2", about.dataset),
            title=_where(evidence),
            first=about.select_by,
        )
    return interactive.nothing_yet(_TITLES[block], f"no trial of the block {block} is done")


def _beside_the_best(evidence: Evidence, block: str) -> dict[str, str]:
    """What the dashboard's "Best Trial" is, and what the study answers instead; short, for a narrow table."""
    if block == "grid" and (pair := evidence.about.at) and not evidence.about.given:
        answer = f"K {pair}, by the mean over seeds: see the note"
    else:
        answer = "by means over seeds: see the note"
    return {_BEST: "one trial, by validation WA: partly luck, no result", _ANSWER: answer}


def _note(
    run: StudyRun, evidence: Evidence, block: str, tables: Mapping[str, Table], *, again: str, answers: Sequence[Claim]
) -> str:
    """What the study is and how far, what it says, its settings, how to make it again."""
    about = evidence.about
    trials = run.trials(block)
    done = sum(outcome.status == "done" for outcome in run.known(trials).values())
    far = f"**{done} of {len(trials)} trials of this block are done.**" if trials else "Waits for the grid's K pair."
    parts = [
        f"# {_TITLES[block]}",
        f"CemoBAM study {plain_markdown(about.name)}, profile {plain_markdown(about.profile)}. {far}",
        "\n".join(f"- {plain_markdown(line)}" for line in [*counts(evidence), chosen(evidence)]),
    ]
    if answers:
        rows = [(f"{VERDICT_SIGNS[x.verdict]} **{x.verdict}**", x.claim, x.numbers) for x in answers]
        table = pd.DataFrame(rows, columns=["Verdict", "Claim", "Numbers"]).map(_cell).to_markdown(index=False)
        parts += ["## The paper's claims", plain_markdown(about_what(about.dataset, about.title)), table]
    shown = [_spaced(tables[name].markdown().rstrip()) for name in _TABLES[block] if name in tables]
    settings = {**about.settings, "seeds": ", ".join(map(str, about.seeds)), "folds": about.folds}
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

"""A study in the form of an experiment tracker: runs with parameters, metrics, tags and files."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from study.design.block import shown
from study.design.configuration import Trial
from study.driver import StudyRun
from study.findings.evidence import Evidence
from study.ledger.outcomes import Outcome
from study.output.figures import drawings
from study.output.figures.style import style
from study.output.report import chosen, counts, make_tables, settings_of

CURVE = "curve/val_wa"
"""The name of the metric for the learning curve, validation WA by epoch."""


@dataclass(frozen=True, kw_only=True)
class Attachments:
    """The content of a study's summary in addition to its metrics.

    Attributes:
        text: Findings of the study, in Markdown.
        tables: Content of CSV files, by file name.
        figures: PNG images, by file name.
    """

    text: str
    tables: Mapping[str, str]
    figures: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a tracker: a trial in one of its blocks, or the summary of a study.

    Attributes:
        study: Name of the study.
        group: The block, with the tag of its settings if the ledger has one. ``summary`` for the summary.
        name: Name that distinguishes the run from the others of its group.
        key: Key that identifies the run in its study. It is the signature for a trial.
        version: Version that a later export compares: the status of a trial, or a digest of all trials for the summary.
        parameters: The configuration, the seed and the fold, by name.
        metrics: Final metrics, as in ``trials.csv``. Scores are fractions.
        curve: Validation WA by epoch.
        tags: Tags that describe the run and its data and packages.
        seconds: Duration in seconds.
        reason: Reason of a failure. Empty if the run did not fail.
        attachments: Function that makes the attachments of a summary, which takes seconds. ``None`` if there are none.
    """

    study: str
    group: str
    name: str
    key: str
    version: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Mapping[int, float] = field(default_factory=dict)
    tags: Mapping[str, str]
    seconds: float = 0.0
    reason: str = ""
    attachments: Callable[[], Attachments] | None = None


def runs_of(run: StudyRun, evidence: Evidence) -> list[Run]:
    """Return a run for each trial in each of its blocks, and the summary at the end.

    A trial that several blocks share has a run in each of them, as in the ledger, so that each block is complete.

    Args:
        run: The study with its ledger.
        evidence: The evidence of the study.
    """
    facts, about = run.facts, evidence.about
    common = {
        "dataset": facts.dataset,
        "fingerprint": facts.fingerprint,
        **{f"version.{package}": version for package, version in facts.made_with.items()},
    }
    made = [
        _of_trial(trial, outcome, evidence, group=_group(run, block), columns=about_block.columns, common=common)
        for block in evidence.blocks
        if (about_block := about.block(block))
        for trial, outcome in run.known(run.trials(block)).items()
    ]
    digest = hashlib.sha256("\n".join(sorted(f"{one.group} {one.key} {one.version}" for one in made)).encode())
    return [*made, _summary(run, evidence, version=digest.hexdigest()[:16], common=common)]


def _group(run: StudyRun, block: str) -> str:
    return run.ledger.study_name(block).partition("/")[2]


def _of_trial(
    trial: Trial,
    outcome: Outcome,
    evidence: Evidence,
    *,
    group: str,
    columns: tuple[str, ...],
    common: Mapping[str, str],
) -> Run:
    signature = trial.signature(evidence.fingerprint)
    configuration = trial.configuration
    settings = {name: configuration.get(name) for name in ("profile", "system")} | configuration.settings()
    told = {column: configuration.get(column) for column in columns} | {"seed": trial.seed}
    if evidence.about.folds > 1:
        told["fold"] = trial.fold
    learnt = {} if outcome.parameters is None else {"parameters": float(outcome.parameters)}
    return Run(
        study=evidence.about.name,
        group=group,
        name=", ".join(f"{name} {shown(value)}" for name, value in told.items() if value is not None),
        key=signature,
        version=outcome.status,
        parameters={**settings, "seed": trial.seed, "fold": trial.fold},
        metrics={**outcome.metrics, **learnt, "seconds": outcome.seconds},
        curve=outcome.curve,
        tags={
            "block": group,
            "status": outcome.status,
            "profile": configuration.profile,
            "system": str(settings["system"]),
            "signature": signature,
            "device": outcome.device,
            **common,
        },
        seconds=outcome.seconds,
        reason=outcome.reason if outcome.status == "failed" else "",
    )


def _summary(run: StudyRun, evidence: Evidence, *, version: str, common: Mapping[str, str]) -> Run:
    """Return the summary. Its metrics are those of the study's own configuration."""
    about, own = evidence.about, evidence.results.own
    of = [f"test_{name}_{figure}" for name in evidence.results.measures for figure in ("mean", "std", "low", "high")]
    known = own.iloc[0][of].dropna().to_dict() if len(own) else {}
    group = f"summary{_group(run, '')}"
    return Run(
        study=about.name,
        group=group,
        name="summary",
        key="summary",
        version=version,
        parameters=settings_of(about),
        metrics={str(name): float(value) for name, value in known.items()},
        tags={"block": group, "profile": about.profile, "system": about.system, **common},
        attachments=lambda: _attachments(evidence),
    )


def _attachments(evidence: Evidence) -> Attachments:
    tables = make_tables(evidence)
    lines = "\n".join(f"- {line}" for line in [*counts(evidence), chosen(evidence)] if line)
    csv = {f"{name}.csv": table.frame.to_csv(index=False) for name, table in tables.items()}
    means = {
        f"{block.name}_means.csv": evidence.results.block(block.name).to_csv(index=False)
        for block in evidence.about.blocks
    }
    return Attachments(
        text="\n\n".join([lines, *(table.markdown().rstrip() for table in tables.values())]),
        tables={**means, **csv},
        figures=dict(_figures(evidence)),
    )


def _figures(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    for drawing in drawings(evidence).values():
        figure = drawing.draw(evidence)
        if isinstance(figure, Figure):
            image = io.BytesIO()
            with style(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")
                figure.savefig(image, format="png", dpi=150)
            yield f"{drawing.file}.png", image.getvalue()

"""Where a study errs, in its report: with predictions and probabilities, without them, and with broken ones."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented import FakeEngine, demo_plan, invented, unpredicted
from safetensors.numpy import save_file

from study.design.configuration import Trial
from study.driver import StudyRun
from study.engines.probabilities import KeptProbabilities
from study.findings.evidence import Evidence
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.utterances import TestUtterances
from study.output.figures import drawings
from study.output.report import Report, make_report, plot_files, result_files

N = 40
LABELS = np.arange(N) % 4
ERRORS = {"errors", "hard", "calibration"}


def predicting(trial: Trial) -> Outcome:
    """An outcome whose predictions are right for three of four utterances; u39 is always wrong."""
    rng = np.random.default_rng(zlib.crc32(repr(trial).encode()))
    predicted = np.where(rng.random(N) < 0.75, LABELS, (LABELS + 1) % 4)
    predicted[-1] = 0
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (LABELS, predicted), 1)
    return replace(
        invented(trial), predicted=predicted.astype(np.uint8).tobytes(), confusion=tuple(map(tuple, confusion.tolist()))
    )


class Predicting(FakeEngine):
    """An engine whose trials have predictions."""

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        for trial, _ in super().run(trials):
            yield trial, predicting(trial)


@pytest.fixture
def study(facts: StudyFacts) -> Callable[..., StudyRun]:
    """A study of the demo's plan that has been run with predictions."""

    def make(*, seeds: int = 3, engine: FakeEngine | None = None) -> StudyRun:
        ledger = Ledger("sqlite:///:memory:", name="demo")
        utterances = TestUtterances(
            ids=tuple(f"u{i}" for i in range(N)), labels=tuple(LABELS.tolist()), folds=(0,) * N,
            speakers=("Ann", "Bob") * (N // 2), sessions=None, seconds=tuple(i / 10 for i in range(N)),
            train_sizes=(100,),
        )  # fmt: skip
        ledger.open(replace(facts, class_names=("anger", "happiness", "neutral", "sadness")), utterances)
        run = StudyRun(demo_plan(seeds=range(seeds)), ledger, replace(facts, class_names=("a", "b", "c", "d")))
        run.run(engine or Predicting(), lambda *_: None)
        return run

    return make


def report_of(run: StudyRun, folder: Path) -> Report:
    evidence = Evidence.of(run, name="demo", models=folder / "results/models")
    return make_report(evidence, again="again")


def keep_probabilities(run: StudyRun, folder: Path) -> list[Path]:
    """Write the probabilities of every trial, three quarters for what it predicts."""
    kept = KeptProbabilities(folder=folder / "results/probabilities", fingerprint=run.facts.fingerprint)
    kept.folder.mkdir(parents=True)
    paths = []
    for block in run.plan.blocks:
        for trial in run.trials(block):
            values = np.full((N, 4), 1 / 12, np.float16)
            values[np.arange(N), np.frombuffer(predicting(trial).predicted, np.uint8)] = 0.75
            save_file({"probabilities": values}, kept.place(trial))
            paths.append(kept.place(trial))
    return paths


@pytest.mark.usefixtures("without_figures")
def test_the_section_stands_below_the_other_tables(study: Callable[..., StudyRun], tmp_path: Path) -> None:
    run = study()
    keep_probabilities(run, tmp_path)
    report = report_of(run, tmp_path)
    written = report.write(tmp_path / "results", tmp_path / "plots")
    names = {path.name for path in written}
    assert {f"{name}.{form}" for name in ERRORS for form in ("csv", "md", "tex")} <= names
    assert names <= set(result_files(report.evidence.about))
    markdown, page = ((tmp_path / "results" / f"report.{form}").read_text() for form in ("md", "html"))
    for text, section, after in ((markdown, 'id="errors"', 'id="settings"'), (page, 'id="errors"', 'id="settings"')):
        before, _, rest = text.partition(section)
        here = rest.partition(after)[0]
        for table in ("speaker Ann", "u39", "Brier score"):
            assert table in here
            assert table not in before
        assert "vote of 3 seeds" in before
    hard = pd.read_csv(tmp_path / "results/hard.csv")
    assert "u39" in set(hard["id"])
    assert not any("vote" in line for line in (tmp_path / "results/grid.csv").read_text().splitlines())
    summary = "\n".join(report.summary)
    assert "vote of 3 seeds" in summary
    assert "u39" not in summary
    # a later report of a study without predictions removes them
    without = report_of(study(engine=FakeEngine(outcome=unpredicted)), tmp_path)
    without.write(tmp_path / "results", tmp_path / "plots")
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert not {f"{name}.csv" for name in ERRORS} & left
    assert "Its ledger is from before predictions were kept: run it under another --name." in (
        tmp_path / "results/report.md"
    ).read_text().replace("\\", "")


def test_every_figure_is_drawn_and_is_a_file_of_the_report(study: Callable[..., StudyRun], tmp_path: Path) -> None:
    run = study()
    keep_probabilities(run, tmp_path)
    report = report_of(run, tmp_path)
    assert {"errors", "calibration", "confusion-difference"} <= report.figures.keys()
    files = {f"{report.drawings[name].file}.png" for name in report.figures}
    assert files <= set(plot_files(report.evidence.about))
    titles = [ax.get_title().replace("\n", " ") for ax in report.figures["confusion-difference"].axes]
    assert titles[:3] == [f"MIN − {name}" for name in ("CLS", "MAX", "MEAN")]
    assert titles[3:5] == [f"CemoBAM − w/o {name}" for name in ("xCBAM", "CH-GAT")]
    panels = [ax.get_title(loc="left") for ax in report.figures["errors"].axes]
    assert panels == ["by class", "by speaker", "by length"]


@pytest.mark.usefixtures("without_figures")
def test_a_broken_file_of_probabilities_is_a_line_and_the_report_goes_on(
    study: Callable[..., StudyRun], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = study()
    for path in keep_probabilities(run, tmp_path):
        path.write_bytes(b"\x80\x04broken")
    with caplog.at_level(logging.WARNING):
        report = report_of(run, tmp_path)
    assert len(caplog.records) == 3  # a seed each
    assert "errors" in report.tables
    assert "calibration" not in report.tables
    report.write(tmp_path / "results", tmp_path / "plots")


def test_what_is_missing_says_what_to_do(study: Callable[..., StudyRun], tmp_path: Path) -> None:
    def why(run: StudyRun, name: str) -> object:
        evidence = Evidence.of(run, name="demo", models=tmp_path / "models")
        return drawings(evidence)[name].draw(evidence)

    assert "--keep-probabilities" in str(why(study(), "calibration"))
    old = study(engine=FakeEngine(outcome=unpredicted))
    for name in ("errors", "calibration"):
        assert why(old, name) == "its ledger is from before predictions were kept: run it under another --name"
    assert "no block" in str(why(old, "confusion-difference"))
    nothing = study(engine=FakeEngine(fails=lambda _: True))
    for name in ("errors", "calibration"):
        assert why(nothing, name) == why(nothing, "curves")

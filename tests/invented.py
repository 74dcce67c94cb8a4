"""A study without training: designs, facts, and an engine whose outcomes depend only on the trial."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cemobam_core.systems.search import Value
from study.design.configuration import Trial
from study.design.design import Design, with_values
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.findings.looks import catch_up, look
from study.findings.tuned import tune
from study.findings.votes import scores
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.utterances import TestUtterances
from study.papers.cemobam import paper

CLASSES = ("anger", "happiness", "neutral", "sadness")

LABELS = np.arange(32) % len(CLASSES)
"""Labels of the test utterances of a fold."""


def invented(trial: Trial) -> Outcome:
    """Return an outcome with predictions that depends only on the trial. Validation prefers K 2,1."""
    digest = hashlib.shake_256(repr(trial).encode()).digest(len(METRICS) + len(LABELS))
    metrics = {name: byte / 512 for name, byte in zip(METRICS, digest, strict=False)}
    if trial.configuration.pair == Pair(2, 1):
        metrics["val_wa"] = 0.9 + metrics["val_wa"] / 100
    drawn = np.frombuffer(digest[len(METRICS) :], np.uint8)
    predicted = np.where(drawn < 128, LABELS, drawn % 4)  # five in eight are correct
    return predicting(Outcome(status="done", seconds=0.5, device="cpu", metrics=metrics), predicted)


def unpredicted(trial: Trial) -> Outcome:
    """Return an invented outcome as in old ledgers, without predictions."""
    return replace(invented(trial), predicted=b"")


def predicting(outcome: Outcome, predicted: npt.NDArray[Any]) -> Outcome:
    """Return an outcome with predictions of the test utterances, and the metrics that follow from them."""
    tested = scores(predicted, LABELS, np.zeros_like(LABELS), len(CLASSES))
    metrics = {**outcome.metrics, **{f"test_{name}": score for name, score in tested.items()}}
    return replace(
        outcome,
        metrics=metrics,
        curve={1: 0.25, 2: metrics["val_wa"]},
        predicted=predicted.astype(np.uint8).tobytes(),
    )


def demo_utterances(folds: int = 1) -> TestUtterances:
    """Return the test utterances of the study of :func:`demo_plan`."""
    return TestUtterances(
        ids=tuple(f"u{i:03d}" for i in range(folds * len(LABELS))),
        labels=tuple(LABELS.tolist()) * folds,
        folds=tuple(fold for fold in range(folds) for _ in LABELS),
        speakers=None,
        sessions=None,
        seconds=None,
        train_sizes=(4 * len(LABELS),) * folds,
    )


class FakeEngine:
    """An engine that records the trials that it ran, and fails or stops on demand."""

    stacks = False

    def __init__(
        self,
        *,
        fails: Callable[[Trial], bool] = lambda _: False,
        stop_after: int | None = None,
        seconds: float = 0.0,
        outcome: Callable[[Trial], Outcome] = invented,
    ) -> None:
        self.ran: list[Trial] = []
        self.rested = 0
        self.seconds = seconds
        self.fails = fails
        self.stop_after = stop_after
        self.outcome = outcome

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def rest(self) -> None:
        self.rested += 1

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        for trial in trials:
            if len(self.ran) == self.stop_after:
                raise KeyboardInterrupt
            self.ran.append(trial)
            time.sleep(self.seconds)
            if self.fails(trial):
                yield trial, Outcome(status="failed", seconds=0.1, device="cpu", reason="ValueError: told to")
            else:
                yield trial, self.outcome(trial)


def run_to_the_end(asked: Plan, ledger: Ledger, engine: FakeEngine) -> StudyRun:
    """Run a study until it asks for no more trials, as the command does."""
    run = StudyRun(asked, ledger, replace(demo_facts(), folds=asked.design.folds))
    catch_up(run, name="demo")
    run.run(engine, lambda *_: None)
    while tune(run, name="demo") or look(run, name="demo"):
        run.run(engine, lambda *_: None)
    return run


def demo_facts() -> StudyFacts:
    """Return the facts that a ledger keeps about the study of :func:`demo_plan`."""
    return StudyFacts(
        dataset="demo",
        title="demo (synthetic)",
        fingerprint="abc",
        folds=1,
        settings={"epochs": 2},
        class_names=CLASSES,
    )


def small_design(
    *,
    k_audio: Iterable[int] = (1, 2),
    k_text: Iterable[int] = (1, 2),
    seeds: Iterable[int] = (0, 1),
    profile: str = "paper",
    folds: int = 1,
    **settings: Value,
) -> Design:
    """Return a design of the paper's blocks and the gaps over a small grid, with some settings changed."""
    pairs = {"k_audio": tuple(k_audio), "k_text": tuple(k_text)}
    blocks = {block.name: with_values(block, pairs) for block in (*paper.blocks, *paper.optional)}
    return Design(blocks=blocks, profile=profile, settings=settings, seeds=tuple(seeds), folds=folds)


def demo_plan(*, seeds: Iterable[int] = (0, 1)) -> Plan:
    """Return a plan of 12 trials for each seed.

    They are 2 x 3 pairs and, with fresh seeds, the four fusions and two more ablations.
    """
    design = small_design(k_text=(1, 2, 3), seeds=seeds, epochs=2)
    return Plan(design=design, blocks=("grid", "fusion", "ablation"), at=None, select_by="wa", select_on="val")

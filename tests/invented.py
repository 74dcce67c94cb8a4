"""A study without training: designs, facts and an engine whose outcomes are a function of the trial."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator

from study.design.configuration import Trial
from study.design.design import Design, with_values
from study.design.factors import Pair, Value
from study.driver import Plan
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.papers.cemobam import paper


def invented(trial: Trial) -> Outcome:
    """An outcome that depends on the trial alone; validation likes K 2,1."""
    digest = hashlib.sha256(repr(trial).encode()).digest()
    metrics = {name: byte / 512 for name, byte in zip(METRICS, digest, strict=False)}
    if trial.configuration.pair == Pair(2, 1):
        metrics["val_wa"] = 0.9 + metrics["val_wa"] / 100
    return Outcome(status="done", seconds=0.5, device="cpu", metrics=metrics, curve={1: 0.25, 2: metrics["val_wa"]})


class FakeEngine:
    """Keeps count of what it ran; fails or stops where it is told to."""

    stacks = False

    def __init__(
        self,
        *,
        fails: Callable[[Trial], bool] = lambda _: False,
        stop_after: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.ran: list[Trial] = []
        self.seconds = seconds
        self.fails = fails
        self.stop_after = stop_after

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        for trial in trials:
            if len(self.ran) == self.stop_after:
                raise KeyboardInterrupt
            self.ran.append(trial)
            time.sleep(self.seconds)
            if self.fails(trial):
                yield trial, Outcome(status="failed", seconds=0.1, device="cpu", reason="ValueError: told to")
            else:
                yield trial, invented(trial)


def demo_facts() -> StudyFacts:
    """What a ledger keeps of the study of :func:`demo_plan`."""
    return StudyFacts(dataset="demo", title="demo (synthetic)", fingerprint="abc", folds=1, settings={"epochs": 2})


def small_design(
    *,
    k_audio: Iterable[int] = (1, 2),
    k_text: Iterable[int] = (1, 2),
    seeds: Iterable[int] = (0, 1),
    profile: str = "paper",
    folds: int = 1,
    **settings: Value,
) -> Design:
    """The paper's blocks and the gaps over a small grid, with some settings changed."""
    pairs = {"k_audio": tuple(k_audio), "k_text": tuple(k_text)}
    blocks = {block.name: with_values(block, pairs) for block in (*paper.blocks, *paper.optional)}
    return Design(blocks=blocks, profile=profile, settings=settings, seeds=tuple(seeds), folds=folds)


def demo_plan(*, seeds: Iterable[int] = (0, 1)) -> Plan:
    """A plan of 2 x 3 pairs, the fusions and the ablations: 11 trials for each seed."""
    design = small_design(k_text=(1, 2, 3), seeds=seeds, epochs=2)
    return Plan(design=design, blocks=("grid", "fusion", "ablation"), at=None, select_by="wa", select_on="val")

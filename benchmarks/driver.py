"""The cost of the driver: planning, recording, progress and resuming, without any training.

    python benchmarks/driver.py [STORAGE_URL]

Runs the study of 525 trials, then one with 100 seeds (10,500 trials), on an empty storage (default: SQLite in a
temporary folder) with an engine that invents its outcomes. Then plans both again, as a resumed run does. For
comparison, it also measures Optuna's own calls that add the same trials and read them.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import optuna

from study.commands.progress import Progress
from study.design.configuration import Trial
from study.design.design import Design
from study.driver import Plan, StudyRun
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.storages import open_storage
from study.ledger.utterances import TestUtterances
from study.papers.cemobam import paper

TESTED = TestUtterances(
    ids=tuple(f"Ses05F_impro{i // 40:02d}_F{i % 40:03d}" for i in range(551)),
    labels=tuple(i % 4 for i in range(551)),
    folds=(0,) * 551,
    speakers=None,
    sessions=None,
    seconds=None,
    train_sizes=(4_400,),
)
"""As many test utterances as in the released features of IEMOCAP."""


class Inventing:
    """An engine that takes no time and invents outcomes of realistic size."""

    stacks = False

    def __enter__(self) -> Inventing:
        """Start nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop nothing."""

    def rest(self) -> None:
        """Do nothing."""

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Yield each trial with an invented outcome."""
        draw = random.Random(0)
        for trial in trials:
            curve = {epoch: draw.random() for epoch in range(10, 101, 10)}
            metrics = {name: draw.random() for name in METRICS}
            confusion = tuple(tuple(draw.randrange(99) for _ in range(4)) for _ in range(4))
            outcome = Outcome(
                status="done",
                seconds=1.0,
                device="cpu",
                metrics=metrics,
                curve=curve,
                confusion=confusion,
                predicted=bytes(byte % 4 for byte in draw.randbytes(len(TESTED.ids))),
            )
            yield trial, outcome


def plan(seeds: int) -> Plan:
    """Return the plan of the paper's study with ``seeds`` seeds."""
    design = Design(blocks={block.name: block for block in paper.blocks}, seeds=tuple(range(seeds)))
    return Plan(design=design, blocks=tuple(design.blocks), at=None, select_by="wa", select_on="val")


def study(storage: str, seeds: int) -> StudyRun:
    """Return the study with the content of the storage, as a run plans it."""
    facts = StudyFacts(dataset="demo", title="demo", fingerprint="abc", folds=1, settings={})
    ledger = Ledger(storage, name=f"seeds{seeds}")
    ledger.open(facts, TESTED)
    return StudyRun(plan(seeds), ledger, facts)


def main(storage: str) -> None:
    """Print the time of each step."""
    print(storage.partition("://")[0])
    for seeds in (5, 100):
        run = study(storage, seeds)
        asked, _ = run.counts()
        start = time.perf_counter()
        with Progress(run) as progress:
            run.run(Inventing(), progress.on_outcome)
        ran = time.perf_counter() - start
        start = time.perf_counter()
        again = study(storage, seeds)
        missing = asked - again.counts()[1]
        resumed = time.perf_counter() - start
        print(f"  {asked:6d} trials  {1000 * ran / asked:6.1f} ms per trial; planned and resumed in {resumed:.2f} s")
        assert missing == 0
    place = open_storage(storage).optuna
    theirs = optuna.create_study(study_name="optuna", storage=place)
    some = optuna.load_study(study_name="seeds5/grid", storage=place).trials[:100]
    start = time.perf_counter()
    theirs.add_trials(some)
    print(f"  Optuna's add_trial    {10 * (time.perf_counter() - start):6.1f} ms per trial")
    start = time.perf_counter()
    read = len(optuna.load_study(study_name="seeds100/grid", storage=open_storage(storage).optuna).trials)
    print(f"  Optuna's get_trials   {time.perf_counter() - start:6.2f} s for {read} trials")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(f"sqlite:///{Path(folder) / 'study.db'}")

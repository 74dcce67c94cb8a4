"""The report of a study of 10,000 trials from its ledger: tables, figures, claims and both reports.

    python benchmarks/report.py [SEEDS]

Fills an SQLite ledger with invented outcomes of a 10×10 grid with SEEDS seeds (100 by default) and of the fusion and
ablation blocks. Then measures ``--report-only`` as a user types it, in a separate process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from driver import TESTED

from study.design.configuration import Trial
from study.design.design import Design
from study.design.factors import Pair
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.papers.cemobam import paper

ROOT = Path(__file__).resolve().parent.parent


def invented(trial: Trial, rng: np.random.Generator) -> Outcome:
    """Return an invented outcome of realistic size for the demo."""
    figures = dict(zip(METRICS, (0.7 + 0.03 * rng.standard_normal(len(METRICS))).tolist(), strict=True))
    curve = {2 * i: 0.4 + 0.04 * i for i in range(1, 11)}
    confusion = tuple(tuple(40 if i == j else 4 for j in range(4)) for i in range(4))
    labels = np.array(TESTED.labels)
    predicted = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, 4, len(labels)))
    return Outcome(
        status="done",
        seconds=1.0,
        device="cpu",
        metrics=figures,
        curve=curve,
        confusion=confusion,
        predicted=predicted.astype(np.uint8).tobytes(),
    )


def fill(storage: str, seeds: int) -> int:
    """Record every trial and return the number of trials."""
    design = Design(blocks={block.name: block for block in paper.blocks}, seeds=tuple(range(seeds)))
    facts = StudyFacts(dataset="demo", title="demo (synthetic)", fingerprint="invented", folds=1, settings={})
    ledger = Ledger(storage, name="demo")
    ledger.open(facts, TESTED)
    rng = np.random.default_rng(0)
    trials = {
        name: design.trials(name, Pair(3, 3), design.seeds if block.chooses else design.fresh_seeds)
        for name, block in design.blocks.items()
    }
    made = {trial: invented(trial, rng) for of_block in trials.values() for trial in of_block}
    best = {
        trial: replace(o, metrics={**o.metrics, "val_wa": 0.9})
        for trial, o in made.items()
        if trial.configuration.pair == Pair(3, 3)
    }
    made |= best
    for name, block in design.blocks.items():
        for trial in trials[name]:
            ledger.record(block, trial, made[trial])
    return len(made)


def main(seeds: int) -> None:
    """Fill a ledger and measure the time of its report."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "results/demo").mkdir(parents=True)
        trials = fill(f"sqlite:///{folder}/results/demo/study.db", seeds)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "run_grid.py"), "--report-only", "--seeds", str(seeds)],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        print(f"{trials} trials reported in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

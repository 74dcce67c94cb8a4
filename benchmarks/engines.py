"""Trials per second of the local engine with one and with two workers, and of Ray with two workers.

    python benchmarks/engines.py [TRIALS]

All engines run the same TRIALS trials of the demo (60 by default), with features and rankings prepared. The start of an
engine is measured separately: its first trials, one per worker, run before the clock starts.
"""

from __future__ import annotations

import sys
import time

from cemobam_core.corpora.synthetic import demo_fold
from study.design.configuration import Trial
from study.design.design import ANY_PAIR, Design
from study.engines import Engine
from study.engines.execution import StudyData
from study.engines.local import LocalEngine
from study.engines.ray import RayEngine
from study.papers.cemobam import paper


def throughput(name: str, engine: Engine, workers: int, trials: list[Trial]) -> float:
    """Return and print the trials per second of an engine after its start."""
    entered = time.perf_counter()
    with engine:
        list(engine.run(trials[:workers]))
        begun = time.perf_counter()
        seconds = [outcome.seconds for _, outcome in engine.run(trials)]
        rate = len(trials) / (time.perf_counter() - begun)
    print(
        f"{name:<17} {rate:6.2f} trials/s  {sum(seconds) / len(seconds):.3f} s per trial  "
        f"{rate * sum(seconds) / len(seconds) / workers:6.1%} of the workers' time  start {begun - entered:.1f} s",
        flush=True,
    )
    return rate


def main(trials: int) -> None:
    """Print the throughput of each engine, and their ratios."""
    design = Design(blocks={"grid": paper.grid}, seeds=tuple(range(1 + trials // 100)))
    asked = design.trials("grid", ANY_PAIR)[:trials]
    data = StudyData.prepare((demo_fold(),), 10)
    one = throughput("local, 1 worker", LocalEngine(data, ["cpu"]), 1, asked)
    two = throughput("local, 2 workers", LocalEngine(data, ["cpu"] * 2), 2, asked)
    ray = throughput("ray, 2 workers", RayEngine(data, ["cpu"] * 2), 2, asked)
    print(f"ratio of two workers to one: {two / one:.2f}; of Ray to local with two workers each: {ray / two:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)

"""The effect of rounding: the same trials trained singly, as stacks, and with matrix products in bfloat16.

    python benchmarks/rounding.py [--trials 100] [--features DIR --hidden-dim 64 --epochs 50 --pair 8,7]

Uses the demo, or your own features. A stack adds numbers in another order, as a GPU does. bfloat16 keeps 8 bits of each
factor of a product. For test WA, UA and w-F1, the script prints in points: the mean difference to the single trial in
float32 with its 95% interval (paired by seed), the deviation of a single trial, and for comparison the deviation
between seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from cemobam_core.corpora.demo import DEMO
from cemobam_core.corpora.splits import load_folds
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.training.config import Precision
from study.design.block import Block
from study.design.configuration import Trial
from study.design.design import Design
from study.design.factors import Factor, Pair
from study.engines.execution import StudyData, execute

MEASURES = ("test_wa", "test_ua", "test_wf1")


def figures(trials: Sequence[Trial], data: StudyData, at_once: int, precision: Precision) -> np.ndarray:
    """Return the metrics of all trials, (trials, 3), in points."""
    rows = []
    for first in range(0, len(trials), at_once):
        group = tuple(
            replace(trial, configuration=trial.configuration.having({"precision": precision}))
            for trial in trials[first : first + at_once]
        )
        rows += [[100 * outcome.metrics[name] for name in MEASURES] for outcome in execute(group, data, "cpu")]
    return np.array(rows)


def main() -> None:
    """Print the effect of each way of rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, metavar="N")
    parser.add_argument("--features", type=Path, metavar="DIR")
    parser.add_argument("--hidden-dim", type=int, metavar="D")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--pair", default="8,7", metavar="K,K")
    arguments = parser.parse_args()
    settings = {n: v for n in ("hidden_dim", "epochs") if (v := getattr(arguments, n)) is not None}
    fold = load_folds(arguments.features)[0] if arguments.features else demo_fold()
    pair = Pair(*map(int, arguments.pair.split(",")))
    pairs = Block("pair", factors=(Factor("k_audio", [pair.k_audio]), Factor("k_text", [pair.k_text])))
    dataset = "features" if arguments.features else DEMO.name
    seeds = tuple(range(arguments.trials))
    design = Design(blocks={"pair": pairs}, settings=settings, dataset=dataset, seeds=seeds)
    trials, data = design.trials("pair", pair), StudyData.prepare((fold,), max(pair.k_audio, pair.k_text))
    torch.set_num_threads(1)
    alone = figures(trials, data, 1, "fp32")
    print(f"{len(trials)} trials at K {pair}, {settings}; WA, UA, w-F1 in points")
    print(f"{'':<10} mean {alone.mean(axis=0).round(2)}, deviation between seeds {alone.std(axis=0, ddof=1).round(2)}")
    ways: tuple[tuple[str, int, Precision], ...] = (("stacked", 20, "fp32"), ("bf16", 1, "bf16"))
    for name, at_once, precision in ways:
        moved = figures(trials, data, at_once, precision) - alone
        half = stats.t.ppf(0.975, len(moved) - 1) * moved.std(axis=0, ddof=1) / len(moved) ** 0.5
        shown = ", ".join(f"{m:+.2f} ± {h:.2f}" for m, h in zip(moved.mean(axis=0), half, strict=True))
        print(f"{name:<10} {shown}; deviation of one trial {moved.std(axis=0, ddof=1).round(2)}", flush=True)


if __name__ == "__main__":
    main()

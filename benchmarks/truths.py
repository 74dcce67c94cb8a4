"""How often a study of the demo finds the truths that are built into the demo's data.

    python benchmarks/truths.py [DATA_SETS]

Makes DATA_SETS data sets (20 by default) with the demo's generator, each with a seed of its own, and runs a study with
five seeds on each: a grid of 5 × 4 pairs, the four fusions and both ablations, 130 trials. Prints, for each truth, how
many studies found it, left it open or said the opposite.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from cemobam_core.corpora import synthetic
from cemobam_core.corpora.synthetic import demo_fold
from study import load_results
from study.commands import main as run_study
from study.findings.analysis import Analysis
from study.papers.cemobam.claims import claims
from study.papers.demo import Truth, truths

_GRID = ("--k-audio", "1,2,4,7,10", "--k-text", "1,4,7,10")


def found(seed: int) -> list[Truth]:
    """Return the truths as the study of one data set finds them.

    Args:
        seed: Seed of the demo's generator.
    """
    synthetic.demo_fold = partial(demo_fold, seed)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        status = run_study([*_GRID, "--results", f"{folder}/results", "--plots", f"{folder}/plots"])
        if status:
            raise RuntimeError(errors.getvalue())
        analysis = Analysis(load_results(Path(folder) / "results" / "demo"))
        return truths(analysis, claims(analysis))


def main(data_sets: int) -> None:
    """Print how often each truth is found."""
    counts: dict[str, Counter[str]] = {}
    for seed in range(data_sets):
        for truth in found(seed):
            counts.setdefault(truth.truth, Counter())[truth.outcome] += 1
        print(f"{seed + 1} of {data_sets} data sets", file=sys.stderr)
    print(f"{'found':>9} {'not shown':>9} {'wrong':>9}  truth, over {data_sets} data sets")
    for truth_in_words, count in counts.items():
        print(f"{count['found']:9} {count['not shown']:9} {count['wrong']:9}  {truth_in_words}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)

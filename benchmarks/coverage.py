"""Coverage of the 95% interval of a mean share: Student's t, cut at 0 and 1, and on the logit scale.

    python benchmarks/coverage.py [STUDIES]

Each study draws the accuracy of each seed from a beta distribution with the given mean and deviation, and its result on
a test split of 90 utterances, as in the demo, or 551. The script prints the share of studies whose interval contains
the true mean, and the mean width of the interval in points. Student's t on the logit scale uses the delta method. If a
seed has 0 or 100%, whose logit is infinite, it falls back to Student's t.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from study.findings.statistics import ANYTHING, SHARES, half_width, interval_ends

Array = npt.NDArray[np.float64]


def on_logits(shares: Array) -> tuple[Array, Array]:
    """Return both ends of each study's interval on the logit scale.

    Args:
        shares: (studies, seeds), the accuracies.
    """
    seeds = shares.shape[1]
    mean, std = shares.mean(axis=1), shares.std(axis=1, ddof=1)
    plain = interval_ends(mean, std, seeds, SHARES)
    inner = (shares > 0).all(axis=1) & (shares < 1).all(axis=1)
    safe = np.where(inner, mean, 0.5)
    centre, half = logit(safe), half_width(std, seeds) / (safe * (1 - safe))
    ends = expit(centre - half), expit(centre + half)
    return np.where(inner, ends[0], plain[0]), np.where(inner, ends[1], plain[1])


def main(studies: int) -> None:
    """Print one row for each mean, number of seeds and size of the test split."""
    rng = np.random.default_rng(1)
    rows = []
    for utterances in (90, 551):
        for mean in (0.6, 0.8, 0.95, 0.99):
            for seeds in (3, 5, 10):
                deviation = min(0.02, 0.5 * (1 - mean))
                strength = mean * (1 - mean) / deviation**2 - 1
                own = rng.beta(mean * strength, (1 - mean) * strength, (studies, seeds))
                shares = rng.binomial(utterances, own) / utterances
                average, std = shares.mean(axis=1), shares.std(axis=1, ddof=1)
                row: dict[str, float] = {"utterances": utterances, "mean": mean, "seeds": seeds}
                for name, (low, high) in {
                    "t": interval_ends(average, std, seeds, ANYTHING),
                    "cut": interval_ends(average, std, seeds, SHARES),
                    "logit": on_logits(shares),
                }.items():
                    row[name] = float(((low <= mean) & (mean <= high)).mean())
                    row[f"{name} width"] = 100 * float((high - low).mean())
                rows.append(row)
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=("g", "g", "g", *[".3f", ".1f"] * 3)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)

"""Coverage of the interval of a group's recall: does it contain the true share over other seeds and utterances?

    python benchmarks/recall.py [STUDIES]

A seed labels an utterance correctly with a probability whose logit is the sum of a level, the ease of the utterance and
the luck of the seed. Ease and luck are normal. The true share is that over all utterances and seeds. For each row,
STUDIES studies (2,000 by default) are drawn. The row gives the share of intervals that contain the true share, and
their width in points, for two intervals: Student's t with the standard error of the crossed design, cut at 0 and 100%,
and ``study.findings.errors.share_interval``.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit

from study.findings.errors import share_interval
from study.findings.luck import level

SHARES = (0.5, 0.8, 0.95)
EASE_AND_LUCK = ((1.5, 0.2), (2.5, 0.4), (6.0, 0.1))
"""Deviations of the utterances' ease and of the seeds' luck. With 6.0, nearly all seeds agree on an utterance."""
SEEDS = (5, 10)
UTTERANCES = (5, 10, 25, 60, 140)


def drawn(
    rng: np.random.Generator, centre: float, ease: float, luck: float, size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Draw whether each seed labels each utterance correctly, (S, U)."""
    seeds, utterances = size
    logits = centre + ease * rng.standard_normal(utterances) + luck * rng.standard_normal((seeds, 1))
    return np.asarray(rng.random(size) < expit(logits), dtype=np.float64)


def main(studies: int) -> None:
    """Print one row for each true share, spread and size."""
    rng = np.random.default_rng(0)
    normal = np.random.default_rng(1).standard_normal(400_000)
    print("| true share | ease | luck | seeds | utterances | t | ours | width t | ours |")
    print("| ---: " * 9 + "|")
    for share in SHARES:
        for ease, luck in EASE_AND_LUCK:
            centre = brentq(lambda x, wanted, spread: expit(x + spread * normal).mean() - wanted, -40, 40,
                            args=(share, np.hypot(ease, luck)))  # fmt: skip
            for seeds in SEEDS:
                for utterances in UTTERANCES:
                    ends = np.empty((studies, 2, 2))
                    for study in range(studies):
                        right = drawn(rng, centre, ease, luck, (seeds, utterances))
                        plain = level(right)
                        ends[study] = (plain.low, plain.high), share_interval(right)
                    holds = ((ends[..., 0] <= share) & (share <= ends[..., 1])).mean(axis=0)
                    width = 100 * (ends[..., 1] - ends[..., 0]).mean(axis=0)
                    print(
                        f"| {share:.0%} | {ease} | {luck} | {seeds} | {utterances} | {holds[0]:.3f} | {holds[1]:.3f} "
                        f"| {width[0]:.1f} | {width[1]:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)

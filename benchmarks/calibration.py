"""Error rates and power of the verdicts on the paper's claims, measured on simulated studies.

    python benchmarks/calibration.py [STUDIES]

Simulates 10×10 grids with five seeds, and the blocks at the chosen pair with five fresh seeds, for several kinds of
luck (``simulated.py``), without any effect and with a hill over K and worse variants. Prints the share of studies in
which each claim is confirmed or contradicted. Before that, for studies without any effect, it prints the share for the
plain paired test of the best pair against the middle one, if the seeds that measure both pairs also chose them. The
luck of the test split is covered by ``two_kinds.py``.
"""

from __future__ import annotations

import gc
import sys

import numpy as np
import pandas as pd
import simulated
from simulated import NOISES, NOTHING, hill, worse

import study.findings.results
from cemobam_core.metrics import METRICS
from study.findings.analysis import Analysis
from study.findings.statistics import LEVEL, paired
from study.papers.cemobam.claims import claims

TESTED = ("k_matters", "best_k", "min_wins", "xcbam_needed", "chgat_needed", "synergy", "xcbam_more")


def plain(analysis: Analysis) -> bool:
    """Return whether Student's t finds a difference between the chosen pair and the middle one, ignoring the choice."""
    assert analysis.grid
    choosing, measured = (analysis.grid.values[f"{split}_wa"] for split in ("val", "test"))
    order, figures = np.argsort(-choosing.mean(axis=0).ravel()), measured.reshape(len(measured), -1)
    return paired(figures[:, order[0]], figures[:, order[len(order) // 2]]).p < LEVEL


def decided(analysis: Analysis) -> dict[str, bool]:
    """Return which claims are confirmed or contradicted."""
    verdicts = {claim.id: claim.verdict for claim in claims(analysis)}
    return {name: verdicts[name] in ("confirmed", "contradicted") for name in TESTED}


def main(studies: int) -> None:
    """Print the shares, each from ``studies`` simulations."""
    gc.freeze()  # statsmodels collects garbage at every call; this excludes all imported objects
    for name, noise in NOISES.items():
        rng = np.random.default_rng(1)
        found = np.mean([plain(Analysis(simulated.study(rng, noise))) for _ in range(studies)])
        print(f"plain paired test of the best pair, luck {name}: {found:.3f}", flush=True)
    # The other metrics have the same values in these simulations.
    vars(study.findings.results)["SCORES"] = {"wa": METRICS["wa"]}
    rows = []
    for effect in (0.0, 2.0, 4.0):
        for name, noise in NOISES.items():
            if effect and name not in ("independent", "like the demo's"):
                continue
            rng = np.random.default_rng(1)
            brought = worse(effect) if effect else NOTHING
            made = [
                decided(Analysis(simulated.study(rng, noise, effect=hill(effect), variants=brought)))
                for _ in range(studies)
            ]
            rows.append({"luck": name, "effect": effect, **pd.DataFrame(made).mean().to_dict()})
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)

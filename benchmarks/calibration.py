"""How often the statistics claim an effect where there is none, and where there is one.

    python benchmarks/calibration.py [GRIDS]

Simulates 10×10 grids of five seeds with several kinds of luck (``simulated.py``), without any effect and with a hill
over K and worse variants, and prints the share of grids in which each family of tests finds an effect (Holm's
correction within the family, at 5%); and first, without any effect, that of the plain paired test of the best pair
against the middle one, both picked on the seeds that measure them.
"""

from __future__ import annotations

import gc
import sys

import numpy as np
import pandas as pd
import simulated
from simulated import NOISES, NOTHING, claimed, hill, worse

import study.findings.results
import study.findings.statistics
from cemobam_core.metrics import METRICS
from study.findings.analysis import Analysis
from study.findings.statistics import LEVEL, paired, pick


def plain(analysis: Analysis) -> bool:
    """Whether Student's t takes the chosen pair for another than the middle one, as if neither had been picked."""
    assert analysis.grid
    choosing, measured = (analysis.grid.values[f"{split}_wa"] for split in ("val", "test"))
    means, figures = choosing.mean(axis=0).ravel(), measured.reshape(len(measured), -1)
    return paired(figures[:, int(pick(means, "best"))], figures[:, int(pick(means, "middle"))]).p < LEVEL


def main(grids: int) -> None:
    """Print the shares, each from ``grids`` simulations."""
    gc.freeze()  # statsmodels collects garbage at every call, and what was imported is none
    for name, noise in NOISES.items():
        rng = np.random.default_rng(1)
        found = np.mean([plain(Analysis(simulated.study(rng, noise))) for _ in range(grids)])
        print(f"plain paired test of the best pair, luck {name}: {found:.3f}", flush=True)
    study.findings.statistics.DRAWS = 500
    # The others have the same figures in these simulations.
    vars(study.findings.results)["SCORES"] = {"wa": METRICS["wa"]}
    rows = []
    for effect in (0.0, 2.0, 4.0):
        for name, noise in NOISES.items():
            if effect and name not in ("independent", "like the demo's"):
                continue
            rng = np.random.default_rng(1)
            brought = worse(effect) if effect else NOTHING
            made = [
                claimed(Analysis(simulated.study(rng, noise, effect=hill(effect), variants=brought)))
                for _ in range(grids)
            ]
            rows.append({"luck": name, "effect": effect, **pd.DataFrame(made).mean().to_dict()})
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)

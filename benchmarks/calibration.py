"""How often the statistics claim an effect where there is none, and where there is one.

    python benchmarks/calibration.py [GRIDS]

Simulates 10×10 grids of five seeds with several kinds of luck (``simulated.py``), without any effect and with a hill
over K and worse variants, and prints the share of grids in which each family of tests finds an effect (Holm's
correction within the family, at 5%).
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import simulated
from simulated import NOISES, NOTHING, claimed, hill, worse

import study.analysis
import study.statistics
from study.analysis import Analysis


def main(grids: int) -> None:
    """Print the shares, each from ``grids`` simulations."""
    study.statistics.DRAWS = 500
    study.analysis.MEASURES = {"wa": "WA"}  # the others have the same figures in these simulations
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

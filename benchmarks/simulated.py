"""Simulated grids with known effects and known noise, for all that the statistics must and must not find."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from study.design.design import Design, with_values
from study.design.factors import Pair
from study.driver import Plan
from study.findings.aggregate import columns
from study.findings.analysis import Analysis
from study.findings.evidence import about_study
from study.findings.results import About, Results
from study.findings.statistics import holm
from study.ledger.outcomes import METRICS, StudyFacts
from study.papers.cemobam import paper

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How luck looks.

    Attributes:
        smooth: how far, in steps of K, a seed's luck reaches over the grid; 0: every trial has its own.
        val_test: the correlation of a trial's luck on validation with that on test.
        seed: deviation of the luck that a seed brings to all of its trials, a trial's own being 1.
        uneven: trials of the smallest K_audio stray this many times as much as those of the largest.
        collapses: the share of trials that go wrong altogether.
    """

    smooth: float = 0.0
    val_test: float = 0.5
    seed: float = 1.0
    uneven: float = 1.0
    collapses: float = 0.0


NOISES = {
    "independent": Noise(),
    "like the demo's": Noise(smooth=1.0, val_test=0.3, seed=0.5),
    "reaching far": Noise(smooth=2.0),
    "chosen on what is reported": Noise(val_test=1.0),
    "validation says nothing": Noise(val_test=0.0),
    "uneven": Noise(uneven=3.0),
    "with collapses": Noise(collapses=0.05),
}


def luck(rng: np.random.Generator, noise: Noise, seeds: int, a: int, b: int) -> tuple[Array, Array]:
    """Validation's and test's luck, (S, A, B) each."""

    def field() -> Array:
        if not noise.smooth:
            return rng.standard_normal((seeds, a, b))
        edge = 12
        wide = rng.standard_normal((seeds, a + 2 * edge, b + 2 * edge))
        blurred = np.stack([gaussian_filter(x, noise.smooth) for x in wide])[:, edge:-edge, edge:-edge]
        return np.asarray(blurred * 2 * noise.smooth * np.sqrt(np.pi))

    shared, own = np.sqrt(noise.val_test), np.sqrt(1 - noise.val_test)
    common = field()
    val, test = shared * common + own * field(), shared * common + own * field()
    stray = np.linspace(noise.uneven, 1, a)[None, :, None]
    lost = 6.0 * (rng.random((seeds, a, b)) < noise.collapses)
    ups = noise.seed * rng.standard_normal((2, seeds, 1, 1))
    return val * stray - lost + ups[0], test * stray - lost + ups[1]


def study(
    rng: np.random.Generator,
    noise: Noise,
    *,
    effect: Array | None = None,
    variants: dict[str, float] | None = None,
    seeds: int = 5,
    size: tuple[int, int] = (10, 10),
    point: float = 0.01,
    dataset: str = "iemocap",
) -> Results:
    """A study whose WA, UA and w-F1 are all luck and effect, in units of ``point``.

    Args:
        rng: of the luck.
        noise: what it looks like.
        effect: (A, B), of every pair on validation and test.
        variants: what other fusions and ablations bring beside the full model; their luck is shared in part.
        seeds: how many.
        size: A and B.
        point: a trial's own deviation, as a fraction.
        dataset: its name, which decides whether the paper's best pair is one of those compared.
    """
    a, b = size
    val, test = luck(rng, noise, seeds, a, b)
    effect = np.zeros(size) if effect is None else effect
    val, test = 0.7 + point * (val + effect), 0.7 + point * (test + effect)
    chosen = int(val.mean(axis=0).round(10).argmax())
    pair = (chosen // b + 1, chosen % b + 1)
    rows = [
        row(i + 1, j + 1, seed, float(val[seed, i, j]), float(test[seed, i, j]))
        for i in range(a) for j in range(b) for seed in range(seeds)
    ]  # fmt: skip
    for name, brought in (variants or {}).items():
        for seed in range(seeds):
            at_pair = test[seed].flat[chosen] - test[seed].mean()
            own = test[seed].mean() + 0.5 * at_pair + point * (brought + 0.87 * rng.standard_normal())
            where: dict[str, Any] = {"fusion" if name in ("cls", "max", "mean") else "modules": name}
            rows.append(row(*pair, seed, own, own, **where))
    return Results(about=about(size, seeds, Pair(*pair), dataset), trials=pd.DataFrame(rows, columns=list(columns())))


@cache
def about(size: tuple[int, int], seeds: int, pair: Pair, dataset: str = "iemocap") -> About:
    """What a study of the paper's blocks is.

    Args:
        size: how many K_audio and K_text the grid has, from 1.
        seeds: how many.
        pair: that was chosen.
        dataset: its name.
    """
    grid = {name: tuple(range(1, n + 1)) for name, n in zip(("k_audio", "k_text"), size, strict=True)}
    blocks = {block.name: with_values(block, grid) for block in paper.blocks}
    design = Design(blocks=blocks, dataset=dataset, seeds=tuple(range(seeds)))
    plan = Plan(design=design, blocks=tuple(blocks), at=None, select_by="wa", select_on="val")
    facts = StudyFacts(dataset=dataset, title="simulated", fingerprint="", folds=1, settings={})
    return about_study(plan, facts, name="sim", blocks=blocks, pair=pair, pair_from="chosen")


NOTHING = dict.fromkeys(("cls", "max", "mean", "no_xcbam", "no_chgat"), 0.0)
"""Variants that bring nothing."""


def worse(by: float) -> dict[str, float]:
    """Variants that are all worse by as much."""
    return dict.fromkeys(NOTHING, -by)


def hill(height: float) -> Array:
    """(10, 10): an effect of K that is highest at 4, 4 and flat in the corner."""
    a, t = np.mgrid[1:11, 1:11]
    return np.asarray(height * np.exp(-((a - 4) ** 2 + (t - 4) ** 2) / 8))


def claimed(analysis: Analysis) -> dict[str, bool]:
    """Which of the families of tests that claims rest on finds anything."""
    found = {"variance": min(holm([effect.p for effect in analysis.variance["wa"].effects])) < 0.05}
    families = {"pairs": analysis.pairs, **{name: analysis.of(name) for name in ("fusion", "ablation")}}
    for name, comparisons in families.items():
        found[name] = min(comparison.p_holm for comparison in comparisons["wa"]) < 0.05
    return found


def row(k_audio: int, k_text: int, seed: int, val: float, test: float, **changes: Any) -> dict[str, Any]:
    """One row of ``trials.csv``."""
    figures = {name: {"val": val, "test": test, "train": 0.9}[name.partition("_")[0]] for name in METRICS}
    return {
        "dataset": "sim", "profile": "paper", "system": "cemobam", "k_audio": k_audio, "k_text": k_text,
        "fusion": "min", "modules": "full", "fold": 0, "seed": seed, "status": "done", "epochs": 1,
        "seconds": 1.0, "device": "cpu", **figures, "reason": "", **changes,
    }  # fmt: skip

"""Simulated grids with known effects and known noise, for all that the statistics must and must not find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from cemobam_core.metrics import METRICS as SCORES
from study.design.design import Design, with_values
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.findings.aggregate import columns
from study.findings.analysis import Analysis
from study.findings.evidence import about_study
from study.findings.luck import contributions
from study.findings.predictions import Predictions
from study.findings.results import About, Results
from study.findings.statistics import Indices, holm
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.utterances import TestUtterances
from study.papers.cemobam import paper
from study.papers.cemobam.published import paper_pair

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


CLASSES = ("anger", "happiness", "neutral", "sadness")


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
    level: float = 0.7,
    utterances: int = 0,
    spread: float = 0.5,
) -> Results:
    """A study whose WA, UA and w-F1 are all luck and effect, in units of ``point``.

    Seeds from 0 choose the pair; as many fresh ones measure it beside the paper's, other fusions and ablations.

    Args:
        rng: of the luck.
        noise: what it looks like.
        effect: (A, B), of every pair on validation and test.
        variants: what other fusions and ablations bring beside the full model.
        seeds: how many choose, and how many are fresh.
        size: A and B.
        point: a trial's own deviation, as a fraction.
        dataset: its name, which decides whether the paper's best pair is one of those compared.
        level: about which everything varies.
        utterances: how many test utterances there are predictions of; 0: none are kept.
        spread: see :func:`labelled`.
    """
    a, b = size
    val, test = luck(rng, noise, seeds, a, b)
    effect = np.zeros(size) if effect is None else effect
    val, test = level + point * (val + effect), level + point * (test + effect)
    chosen = int(val.mean(axis=0).round(10).argmax())
    pair = Pair(chosen // b + 1, chosen % b + 1)
    rows = [
        row(i + 1, j + 1, seed, float(val[seed, i, j]), float(test[seed, i, j]))
        for i in range(a) for j in range(b) for seed in range(seeds)
    ]  # fmt: skip
    ups = noise.seed * rng.standard_normal(seeds)

    def fresh(at: Pair, brought: float, **where: str) -> None:
        for seed in range(seeds):
            figure = level + point * (effect[at.k_audio - 1, at.k_text - 1] + brought + ups[seed])
            figure += point * rng.standard_normal()
            rows.append(row(at.k_audio, at.k_text, seeds + seed, figure, figure, **where))

    fresh(pair, 0.0)
    beside = paper_pair(dataset)
    if beside and beside.k_audio <= a and beside.k_text <= b:
        same = rows[-seeds:] if beside == pair else []
        rows += [{**one, "profile": PAPERS} for one in same]
        if not same:
            fresh(beside, 0.0, profile=PAPERS)
    for name, brought in (variants or {}).items():
        fresh(pair, brought, **{"fusion" if name in ("cls", "max", "mean") else "modules": name})
    trials = pd.DataFrame(rows, columns=list(columns())).astype({"parameters": "Int64"})
    of = about(size, seeds, pair, dataset)
    made = Results(about=of, trials=trials)
    return with_predictions(rng, made, utterances, spread) if utterances else made


PAPERS = "the paper's pair"
"""The name of the paper's pair in the block confirm."""


def with_predictions(
    rng: np.random.Generator, results: Results, utterances: int, spread: float = 0.5, speakers: int = 0
) -> Results:
    """Return a study with predictions that give its trials' WA, to the nearest utterance; UA and w-F1 follow.

    Args:
        rng: of the luck.
        results: of one fold.
        utterances: how many test utterances there are, the classes being equally large.
        spread: see :func:`labelled`.
        speakers: how many speak them in turn; 0: not known.
    """
    classes, trials = len(CLASSES), results.trials.copy()
    labels = np.arange(utterances) % classes
    by = np.asarray(trials.groupby(list(results.about.identity[1:]), dropna=False, sort=False).ngroup(), dtype=np.int64)
    predicted = labelled(rng, trials["test_wa"].to_numpy(), by, labels, spread)
    for metric in SCORES:
        trials[f"test_{metric}"] = contributions(predicted, labels, metric, classes).mean(axis=1)
    told = TestUtterances(
        ids=tuple(f"u{i:05d}" for i in range(utterances)),
        labels=tuple(labels.tolist()),
        folds=(0,) * utterances,
        speakers=tuple(f"s{i % speakers:02d}" for i in range(utterances)) if speakers else None,
        sessions=None,
        seconds=None,
        train_sizes=(4 * utterances,),
    )
    outcomes = [Outcome(status="done", seconds=1.0, device="cpu", predicted=bytes(one)) for one in predicted]
    kept = Predictions.of(told, trials["fold"], outcomes, classes=classes)
    return Results(about=replace(results.about, class_names=CLASSES), trials=trials, kept=kept)


def labelled(rng: np.random.Generator, wa: Array, by: Indices, labels: Indices, spread: float) -> npt.NDArray[np.uint8]:
    """Return predictions (T, U) of which exactly the share ``wa`` is right, up to rounding.

    An utterance is the harder the higher the sum of three: what it is for all trials, what it is for the trials of a
    configuration, and what it is for a single trial. A trial has the easiest ones right.

    Args:
        rng: of the luck.
        wa: (T,).
        by: (T,), the configuration of each trial.
        labels: (U,).
        spread: deviation of the second and of the third of the three, the first's being 1.
    """
    shape = (len(wa), len(labels))
    of_all, of_one = rng.standard_normal(shape[1]), rng.standard_normal((by.max() + 1, shape[1]))
    hard = of_all + spread * (of_one[by] + rng.standard_normal(shape))
    right = hard.argsort(axis=1).argsort(axis=1) < np.round(wa * shape[1])[:, None]
    wrong = (labels + rng.integers(1, len(CLASSES), shape)) % len(CLASSES)
    return np.where(right, labels, wrong).astype(np.uint8)


@cache
def about(size: tuple[int, int], seeds: int, pair: Pair, dataset: str = "iemocap") -> About:
    """What a study of the paper's blocks is.

    Args:
        size: how many K_audio and K_text the grid has, from 1.
        seeds: how many choose, and how many are fresh.
        pair: that was chosen.
        dataset: its name.
    """
    design = _design(size, seeds, dataset)
    plan = Plan(design=design, blocks=tuple(design.blocks), at=pair, select_by="wa", select_on="val")
    facts = StudyFacts(dataset=dataset, title="simulated", fingerprint="", folds=1, settings={})
    return replace(about_study(StudyRun(plan, _nothing(), facts), name="sim", blocks=design.blocks), pair_from="chosen")


@cache
def _design(size: tuple[int, int], seeds: int, dataset: str) -> Design:
    grid = {name: tuple(range(1, n + 1)) for name, n in zip(("k_audio", "k_text"), size, strict=True)}
    listed = [with_values(paper.grid, grid), paper.fusion, paper.ablation]
    if beside := paper_pair(dataset):
        listed.insert(1, paper.confirm("paper", beside))
    return Design(blocks={block.name: block for block in listed}, dataset=dataset, seeds=tuple(range(seeds)))


@cache
def _nothing() -> Ledger:
    """A ledger without a trial."""
    return Ledger("sqlite:///:memory:", name="sim")


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
    for name in ("confirm", "fusion", "ablation"):
        made = analysis.of(name)["wa"]  # none where the grid has not got the paper's pair
        found[name] = min((comparison.p_holm for comparison in made), default=1.0) < 0.05
    return found


def row(k_audio: int, k_text: int, seed: int, val: float, test: float, **changes: Any) -> dict[str, Any]:
    """One row of ``trials.csv``."""
    figures = {name: {"val": val, "test": test, "train": 0.9}[name.partition("_")[0]] for name in METRICS}
    return {
        "dataset": "sim", "profile": "paper", "system": "cemobam", "k_audio": k_audio, "k_text": k_text,
        "fusion": "min", "modules": "full", "fold": 0, "seed": seed, "status": "done", "epochs": 1,
        "seconds": 1.0, "device": "cpu", **figures, "reason": "", **changes,
    }  # fmt: skip

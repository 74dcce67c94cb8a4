"""Simulated grids with known effects and known noise, to test what the statistics must find and must not find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from cemobam_core.corpora import CORPORA
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
    """The noise of a simulated study.

    Attributes:
        smooth: Range over the grid, in steps of K, of a seed's luck. 0 if every trial has its own luck.
        val_test: Correlation of a trial's luck on validation with its luck on test.
        seed: Deviation of the luck that all trials of a seed share, relative to a trial's own luck.
        uneven: Deviation of trials at the smallest K_audio, relative to trials at the largest.
        collapses: Share of trials that fail completely.
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
    """Return the luck on validation and on test, (S, A, B) each."""

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
    """Return a study whose WA, UA and w-F1 consist of luck and effect, in units of ``point``.

    Seeds from 0 choose the pair. The same number of fresh seeds measures it, together with the paper's pair, the other
    fusions and the ablations.

    Args:
        rng: Generator of the luck.
        noise: Kind of noise.
        effect: (A, B), effect of every pair on validation and test.
        variants: Effects of other fusions and ablations, relative to the full model.
        seeds: Number of seeds that choose, and number of fresh seeds.
        size: A and B.
        point: Deviation of a trial's own luck, as a fraction.
        dataset: Name of the data set. It decides whether the paper's best pair is compared.
        level: Mean of all results.
        utterances: Number of test utterances with predictions. 0 for no predictions.
        spread: See ``labelled``.
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
"""Name of the paper's pair in the block confirm."""


def with_predictions(
    rng: np.random.Generator, results: Results, utterances: int, spread: float = 0.5, speakers: int = 0
) -> Results:
    """Add predictions that give each trial's WA, rounded to whole utterances. UA and w-F1 follow from them.

    Args:
        rng: Generator of the luck.
        results: Results of one fold.
        utterances: Number of test utterances. All classes have the same size.
        spread: See ``labelled``.
        speakers: Number of speakers, who speak in turn. 0 if they are not known.
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
    names = class_names(results.about.dataset)
    return Results(about=replace(results.about, class_names=names), trials=trials, kept=kept)


def labelled(rng: np.random.Generator, wa: Array, by: Indices, labels: Indices, spread: float) -> npt.NDArray[np.uint8]:
    """Return predictions (T, U) of which the share ``wa`` is correct, up to rounding.

    The difficulty of an utterance is the sum of three parts: one for all trials, one for the trials of a configuration,
    and one for a single trial. A trial labels the easiest utterances correctly.

    Args:
        rng: Generator of the luck.
        wa: (T,), accuracy of each trial.
        by: (T,), configuration of each trial.
        labels: (U,), labels of the utterances.
        spread: Deviation of the second part and of the third part, relative to the first.
    """
    shape = (len(wa), len(labels))
    of_all, of_one = rng.standard_normal(shape[1]), rng.standard_normal((by.max() + 1, shape[1]))
    hard = of_all + spread * (of_one[by] + rng.standard_normal(shape))
    right = hard.argsort(axis=1).argsort(axis=1) < np.round(wa * shape[1])[:, None]
    wrong = (labels + rng.integers(1, len(CLASSES), shape)) % len(CLASSES)
    return np.where(right, labels, wrong).astype(np.uint8)


def class_names(dataset: str) -> tuple[str, ...]:
    """Return the names of a data set's classes. The simulated labels are the first four."""
    return CORPORA[dataset].class_names if dataset in CORPORA else CLASSES


@cache
def about(size: tuple[int, int], seeds: int, pair: Pair, dataset: str = "iemocap") -> About:
    """Return the description of a study with the paper's blocks.

    Args:
        size: Number of values of K_audio and K_text in the grid, from 1.
        seeds: Number of seeds that choose, and number of fresh seeds.
        pair: Chosen pair.
        dataset: Name of the data set.
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
    """Return a ledger without trials."""
    return Ledger("sqlite:///:memory:", name="sim")


NOTHING = dict.fromkeys(("cls", "max", "mean", "no_xcbam", "no_chgat"), 0.0)
"""Variants without any effect."""


def worse(by: float) -> dict[str, float]:
    """Return variants that are all worse by the same amount."""
    return dict.fromkeys(NOTHING, -by)


def hill(height: float) -> Array:
    """Return an effect of K, (10, 10), that is highest at 4, 4 and flat in the corner."""
    a, t = np.mgrid[1:11, 1:11]
    return np.asarray(height * np.exp(-((a - 4) ** 2 + (t - 4) ** 2) / 8))


def claimed(analysis: Analysis) -> dict[str, bool]:
    """Return which of the families of tests behind the claims find anything."""
    found = {"variance": min(holm([effect.p for effect in analysis.variance["wa"].effects])) < 0.05}
    for name in ("confirm", "fusion", "ablation"):
        made = analysis.of(name)["wa"]  # empty if the grid does not contain the paper's pair
        found[name] = min((comparison.p_holm for comparison in made), default=1.0) < 0.05
    return found


def row(k_audio: int, k_text: int, seed: int, val: float, test: float, **changes: Any) -> dict[str, Any]:
    """Return one row of ``trials.csv``."""
    figures = {name: {"val": val, "test": test, "train": 0.9}[name.partition("_")[0]] for name in METRICS}
    return {
        "dataset": "sim", "profile": "paper", "system": "cemobam", "k_audio": k_audio, "k_text": k_text,
        "fusion": "min", "modules": "full", "fold": 0, "seed": seed, "status": "done", "epochs": 1,
        "seconds": 1.0, "device": "cpu", **figures, "reason": "", **changes,
    }  # fmt: skip

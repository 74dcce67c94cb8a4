"""What the paper claims, and what a study says to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis import MEASURES, Analysis, Comparison
from study.published import published
from study.statistics import LEVEL, Difference, holm

Verdict = Literal["confirmed", "within noise", "contradicted", "not tested"]

LABELS = {
    **{"cls": "CLS", "min": "MIN", "max": "MAX", "mean": "MEAN"},
    **{"full": "CemoBAM", "no_xcbam": "w/o xCBAM", "no_chgat": "w/o CH-GAT"},
    **{"chosen": "the chosen pair", "paper": "the paper's pair", "middle": "the middle pair"},
}

_MARGIN = 1.0
"""Points within which a level counts as reached."""
_PAPER_SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and what became of it.

    Attributes:
        id: short.
        claim: in words.
        where: in the paper.
        confirmed: what would confirm it.
        contradicted: what would contradict it.
        test: how it is tested.
        verdict: what this study says.
        numbers: why, in a sentence.
    """

    id: str
    claim: str
    where: str
    confirmed: str
    contradicted: str
    test: str
    verdict: Verdict
    numbers: str


def about_what(dataset: str, title: str) -> str:
    """What the verdicts are about, for whoever reads no further."""
    if dataset == "demo":
        return "The demo is synthetic: these answers are about the demo data alone, not about the paper's data."
    if published("table1", dataset).empty:
        return f"These answers are about {title}, on which the paper reports nothing."
    return f"These answers are about {title} with these features and this split."


def claims(analysis: Analysis) -> list[Claim]:
    """Every claim of ``published/claims.csv`` with its verdict on a study."""
    with as_file(files("study.published") / "claims.csv") as path:
        rows = pd.read_csv(path).to_dict("records")
    pair, of = analysis.paper_pair
    level = _published_level(analysis)
    words = {
        "k_audio": pair.k_audio,
        "k_text": pair.k_text,
        "wa": f"{level['wa']:.2f}" if level else "82.17",
        "ua": f"{level['ua']:.2f}" if level else "81.85",
    }
    made = []
    for row in rows:
        verdict, numbers = _TESTS[row["id"]](analysis)
        fitting = of if row["id"] == "best_k" else "" if level else " (on IEMOCAP)"
        parts = {str(name): str(text) for name, text in row.items()}
        parts["claim"] = parts["claim"].format(**words, of=fitting)
        made.append(Claim(**parts, verdict=verdict, numbers=numbers))
    return made


def _k_matters(analysis: Analysis) -> tuple[Verdict, str]:
    variance = analysis.variance.get(analysis.metric)
    if variance is None:
        return "not tested", _no_grid(analysis)
    p_values = holm([effect.p for effect in variance.effects])
    effects = ", ".join(
        f"{effect.name} ω² = {effect.omega2:.2f} (p {_p(p)})"
        for effect, p in zip(variance.effects, p_values, strict=True)
    )
    verdict: Verdict = "confirmed" if min(p_values) < LEVEL else "within noise"
    return verdict, f"{_name(analysis)} on test: {effects}; {spread_sentence(analysis)}{_left_out(analysis)}"


def spread_sentence(analysis: Analysis) -> str:
    """How much of the spread over the grid is K and how much is luck."""
    variance, grid = analysis.variance[analysis.metric], analysis.grid
    assert grid
    low, high = 100 * variance.share_low, 100 * variance.share_high
    return (
        f"of the spread of the {len(grid.k_audio) * len(grid.k_text)} pairs' means over {len(grid.seeds)} seeds "
        f"(standard deviation {100 * variance.std_of_means:.1f} points), {100 * variance.share:.0f}% "
        f"[{low:.0f}, {high:.0f}] is K and the rest is luck; a single training strays by "
        f"{100 * variance.std_of_seeds:.1f} points."
    )


def _best_k(analysis: Analysis) -> tuple[Verdict, str]:
    if not analysis.pairs:
        return "not tested", _no_grid(analysis)
    pair, grid = analysis.paper_pair[0], analysis.grid
    assert grid
    if grid.index(pair) is None:
        return "not tested", f"K {pair} is not on the grid that was run{', or not complete' if grid.left_out else ''}."
    made = {(c.first, c.second): c for c in analysis.pairs[analysis.metric]}
    over_middle = made["paper", "middle"]
    against = made.get(("chosen", "paper"))
    verdict: Verdict = "within noise"
    if _sign(over_middle) < 0 or (against and _sign(against) > 0):
        verdict = "contradicted"
    elif _sign(over_middle) > 0 and (against is None or 100 * against.difference.high <= _MARGIN):
        # Not to have found a better pair is no evidence that there is none: the interval must say so.
        verdict = "confirmed"
    about = analysis.results.about
    parts = [f"K {pair} less the middle pair {_comparison(over_middle)}"]
    if against and analysis.chosen_here:
        parts.insert(
            0, f"the pair that the other seeds choose (all: K {about.at}) less K {pair} {_comparison(against)}"
        )
    elif against:
        parts.insert(0, f"the given pair (K {about.at}) less K {pair} {_comparison(against)}")
    elif about.at == pair:
        parts.append(f"K {pair} is the given pair")
    return verdict, f"{_name(analysis)} on test: {'; '.join(parts)}.{_left_out(analysis)}"


def _left_out(analysis: Analysis) -> str:
    """What of the grid the numbers are not of."""
    grid = analysis.grid
    return f" Left out of the grid, as not complete: {grid.left_out}." if grid and grid.left_out else ""


def _min_wins(analysis: Analysis) -> tuple[Verdict, str]:
    return _variants(analysis, analysis.fusion.get(analysis.metric, []), 3)


def _xcbam(analysis: Analysis) -> tuple[Verdict, str]:
    return _ablation(analysis, "no_xcbam")


def _chgat(analysis: Analysis) -> tuple[Verdict, str]:
    return _ablation(analysis, "no_chgat")


def _ablation(analysis: Analysis, variant: str) -> tuple[Verdict, str]:
    made = [c for c in analysis.ablation.get(analysis.metric, []) if c.second == variant]
    return _variants(analysis, made, 1)


def _variants(analysis: Analysis, made: list[Comparison], all_of_them: int) -> tuple[Verdict, str]:
    if not made:
        return "not tested", "The block that would tell has not been run, or has no trial that is done."
    if any(np.isnan(c.difference.p) for c in made):
        return "not tested", "It takes two seeds at least to tell an effect from luck, five to be of use."
    signs = [_sign(c) for c in made]
    numbers = (
        f"{_name(analysis)} on test, {LABELS[made[0].first]} less "
        + "; ".join(f"{LABELS[c.second]} {_comparison(c)}" for c in made)
        + "."
    )
    if min(signs) < 0:
        return "contradicted", numbers
    if len(made) < all_of_them:
        return "not tested", f"Only {len(made)} of {all_of_them} others are there: {numbers}"
    return ("confirmed" if min(signs) > 0 else "within noise"), numbers


def _level(analysis: Analysis) -> tuple[Verdict, str]:
    level, about = _published_level(analysis), analysis.results.about
    if level is None:
        return "not tested", f"The paper reports no figures for {about.title}."
    ours = analysis.results.fusion
    ours = ours[ours["fusion"] == "min"]
    if ours.empty or ours.iloc[0]["n_seeds"] < 2:
        return "not tested", "It takes the full model with MIN, with two seeds at least, at the K pair of the study."
    row = ours.iloc[0]
    n = int(row["n_seeds"])
    if min(row[f"test_{measure}_std"] for measure in ("wa", "ua")) < 1e-9:
        return "not tested", f"The {n} seeds do not differ at all, so nothing says how large luck is; run more."
    within, beyond, parts = True, False, []
    for measure in ("wa", "ua"):
        mean, std, low, high = (100 * row[f"test_{measure}_{x}"] for x in ("mean", "std", "low", "high"))
        # either of the two figures can contradict: each at half the level (Bonferroni)
        reach = stats.t.ppf(1 - LEVEL / 4, n - 1) * std * np.sqrt(1 / n + 1 / _PAPER_SEEDS)
        within &= abs(low - level[measure]) <= _MARGIN and abs(high - level[measure]) <= _MARGIN
        beyond |= abs(mean - level[measure]) > reach
        parts.append(f"{MEASURES[measure]} {mean:.2f} [{low:.2f}, {high:.2f}], published {level[measure]:.2f}")
    verdict: Verdict = "confirmed" if within else "contradicted" if beyond else "within noise"
    return verdict, f"At K {about.at}, {n} seeds: {'; '.join(parts)} (WA and UA may be swapped there)."


def _best_system(analysis: Analysis) -> tuple[Verdict, str]:
    dataset = analysis.results.about.dataset
    for name in ("table3", "table4"):
        others = published(name, dataset)
        if len(others):
            others = others[others["system"] != "CemoBAM"]
            best = others.sort_values("wa", ascending=False).iloc[0]
            return "not tested", (
                "The systems were measured on splits, folds and classes of their own, so a difference to them is no "
                f"test; the best of them is {best['system']} ({best['year']}) with WA {best['wa']:.2f}."
            )
    return "not tested", f"The paper compares with no other system on {analysis.results.about.title}."


_TESTS: dict[str, Callable[[Analysis], tuple[Verdict, str]]] = {
    "k_matters": _k_matters,
    "best_k": _best_k,
    "min_wins": _min_wins,
    "xcbam_needed": _xcbam,
    "chgat_needed": _chgat,
    "level": _level,
    "best_system": _best_system,
}


def _published_level(analysis: Analysis) -> dict[str, float] | None:
    table = published("table1", analysis.results.about.dataset)
    rows = table[table["fusion"] == "min"].to_dict("records")
    return {measure: float(rows[0][measure]) for measure in ("wa", "ua")} if rows else None


def _no_grid(analysis: Analysis) -> str:
    grid = analysis.grid
    if grid is None:
        return "The grid has not been run, or no seed has all of its pairs."
    if len(grid.seeds) < 2:
        return "The grid has one complete seed: nothing tells K from luck. Run it with --seeds 5."
    return "The grid has one complete pair: there is nothing to compare."


def _sign(comparison: Comparison) -> int:
    """1 or -1 for an effect, 0 for none shown."""
    if np.isnan(comparison.p_holm) or comparison.p_holm >= LEVEL:
        return 0
    return 1 if comparison.difference.mean > 0 else -1


def _name(analysis: Analysis) -> str:
    return MEASURES[analysis.metric]


def _comparison(comparison: Comparison) -> str:
    return f"{points(comparison.difference)} points (p {_p(comparison.p_holm)}, {comparison.difference.n} seeds)"


def points(difference: Difference) -> str:
    """A difference of fractions in percentage points with its interval."""
    interval = f" [{signed(100 * difference.low)}, {signed(100 * difference.high)}]" if difference.n > 1 else ""
    return signed(100 * difference.mean) + interval


def signed(value: float) -> str:
    """One decimal, always with a sign; a dash for what is not known."""
    # the zero added makes a rounded -0.0 a plain zero
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") if pd.notna(value) else "–"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

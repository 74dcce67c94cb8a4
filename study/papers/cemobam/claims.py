"""What the paper claims, and what a study says to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from study.design.factors import Pair
from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, holm
from study.findings.wording import ends, p_value, points
from study.papers.cemobam.paper import LABELS
from study.papers.cemobam.published import paper_pairs, published

Verdict = Literal["confirmed", "within noise", "contradicted", "higher than published", "not tested"]

PAIR_LABELS = {"chosen": "the chosen pair", "paper": "the paper's pair", "middle": "the middle pair"}

_MARGIN = 1.0
"""Points within which a level counts as reproduced."""
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
    with as_file(files("study.papers.cemobam") / "claims.csv") as path:
        rows = pd.read_csv(path).to_dict("records")
    level = _published_level(analysis)
    words = {
        "pair": _named_pairs(analysis),
        "wa": f"{level['wa']:.2f}" if level else "82.17",
        "ua": f"{level['ua']:.2f}" if level else "81.85",
        "of": "" if level else " (on IEMOCAP)",
    }
    made = []
    for row in rows:
        verdict, numbers = _TESTS[row["id"]](analysis)
        parts = {str(name): str(text) for name, text in row.items()}
        parts["claim"] = parts["claim"].format(**words)
        made.append(Claim(**parts, verdict=verdict, numbers=numbers))
    return made


def _named_pairs(analysis: Analysis) -> str:
    """The best pair as the paper names it for this data set; where it names none, those of its own data sets."""
    if pair := analysis.paper_pair:
        return _written_out(pair)
    titles = {"iemocap": "IEMOCAP", "esd": "ESD"}
    return " and ".join(f"{_written_out(pair)} on {titles[dataset]}" for dataset, pair in paper_pairs().items())


def _written_out(pair: Pair) -> str:
    return f"K_audio = {pair.k_audio}, K_text = {pair.k_text}"


def _k_matters(analysis: Analysis) -> tuple[Verdict, str]:
    variance = analysis.variance.get(analysis.metric)
    if variance is None:
        return "not tested", _no_grid(analysis)
    p_values = holm([effect.p for effect in variance.effects])
    effects = ", ".join(
        f"{effect.name} ω² = {effect.omega2:.2f} (p {p_value(p)})"
        for effect, p in zip(variance.effects, p_values, strict=True)
    )
    verdict: Verdict = "confirmed" if min(p_values) < LEVEL else "within noise"
    return verdict, f"{_name(analysis)} on test: {effects}; {spread_sentence(analysis)}{_left_out(analysis)}"


def spread_sentence(analysis: Analysis) -> str:
    """How much of the spread over the grid is K and how much is luck."""
    variance, grid = analysis.variance[analysis.metric], analysis.grid
    assert grid
    known = np.isfinite(variance.share_low)
    interval = f" [{100 * variance.share_low:.0f}, {100 * variance.share_high:.0f}]" if known else ""
    return (
        f"of the spread of the {len(grid.k_audio) * len(grid.k_text)} pairs' means over {len(grid.seeds)} seeds "
        f"(standard deviation {100 * variance.std_of_means:.1f} points), "
        f"{100 * variance.share:.0f}%{interval} is K and the rest is luck; a single training strays by "
        f"{100 * variance.std_of_seeds:.1f} points."
    )


def _best_k(analysis: Analysis) -> tuple[Verdict, str]:
    pair, grid, about = analysis.paper_pair, analysis.grid, analysis.results.about
    if pair is None:
        return "not tested", f"The paper names no best pair for this data: {about.title}."
    if not analysis.pairs:
        return "not tested", _no_grid(analysis)
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
    told = [_pairs_told(analysis, comparison) for comparison in (against, over_middle) if comparison]
    if about.at == pair:
        told.append(f"K {pair} is the pair that was given." if not analysis.chosen_here else "")
    return verdict, f"{_name(analysis)} on test. {' '.join(filter(None, told))}{_left_out(analysis)}"


def _pairs_told(analysis: Analysis, comparison: Comparison) -> str:
    """One comparison of pairs in a sentence or two: the grid's own difference, then the corrected one."""
    first, second = comparison.first, comparison.second
    pairs = analysis.compared
    whose = {
        "chosen": "chosen" if analysis.chosen_here else "given",
        "paper": "the paper's",
        "middle": "the middle pair",
    }
    named = {name: f"K {pair} ({whose[name]})" for name, pair in pairs.items()}
    raw = f"{_more(comparison, named[first], named[second])} on the grid"
    if not comparison.corrected:
        return f"{raw}{_tested(comparison)}."
    if pairs[first] == pairs[second]:
        raw = f"K {pairs[first]} is both {PAIR_LABELS[first]} and {PAIR_LABELS[second]}"
    return f"{raw}; corrected for having picked the pairs on these seeds, {_corrected(comparison)}."


def _left_out(analysis: Analysis) -> str:
    """What of the grid the numbers are not of."""
    grid = analysis.grid
    return f" Left out of the grid, as not complete: {grid.left_out}." if grid and grid.left_out else ""


def _min_wins(analysis: Analysis) -> tuple[Verdict, str]:
    return _variants(analysis, analysis.of("fusion").get(analysis.metric, []), 3)


def _xcbam(analysis: Analysis) -> tuple[Verdict, str]:
    return _ablation(analysis, "no_xcbam")


def _chgat(analysis: Analysis) -> tuple[Verdict, str]:
    return _ablation(analysis, "no_chgat")


def _ablation(analysis: Analysis, variant: str) -> tuple[Verdict, str]:
    made = [c for c in analysis.of("ablation").get(analysis.metric, []) if c.second == variant]
    return _variants(analysis, made, 1)


def _variants(analysis: Analysis, made: list[Comparison], all_of_them: int) -> tuple[Verdict, str]:
    if not made:
        return "not tested", "The block that would tell has not been run at this K pair, or has no trial that is done."
    if any(np.isnan(c.difference.p) for c in made):
        return "not tested", "It takes two seeds at least to tell an effect from luck, five to be of use."
    signs = [_sign(c) for c in made]
    numbers = f"{_name(analysis)} on test. {_variants_told(analysis, made)}"
    if min(signs) < 0:
        return "contradicted", numbers
    if len(made) < all_of_them:
        return "not tested", f"Only {len(made)} of {all_of_them} others are there. {numbers}"
    return ("confirmed" if min(signs) > 0 else "within noise"), numbers


def _variants_told(analysis: Analysis, made: list[Comparison]) -> str:
    """The differences as the table shows them, then those that are corrected, each labelled as what it is."""
    rows = analysis.results.block(made[0].family)
    seeds = rows.set_index(rows.columns[0])["n_seeds"]
    first, told = LABELS[made[0].first], []
    for c in made:
        whole = c.difference.n == seeds[c.first] == seeds[c.second]
        where = "in the table" if whole else f"on the {c.difference.n} seeds that both have"
        raw = f"{_more(c, first, LABELS[c.second])} {where}"
        told.append(
            f"{raw}; corrected for having chosen K on these seeds, {_corrected(c)}."
            if c.corrected
            else f"{raw}{_tested(c)}."
        )
    return " ".join(told)


def _level(analysis: Analysis) -> tuple[Verdict, str]:
    level, about = _published_level(analysis), analysis.results.about
    if level is None:
        return "not tested", f"The paper reports no figures for {about.title}."
    ours = analysis.results.own
    if analysis.results.about.fusion != "min":
        ours = analysis.results.block("fusion").query("fusion == 'min'")
    if ours.empty or ours.iloc[0]["n_seeds"] < SEEDS_FOR_INTERVAL:
        return "not tested", (
            f"It takes the full model with MIN, with {SEEDS_FOR_INTERVAL} seeds at least, at the K pair of the study."
        )
    row = ours.iloc[0]
    n = int(row["n_seeds"])
    if min(row[f"test_{measure}_std"] for measure in ("wa", "ua")) < 1e-9:
        return "not tested", f"The {n} seeds do not differ at all, so nothing says how large luck is; run more."
    reached, lower, higher, parts = True, False, False, []
    for measure in ("wa", "ua"):
        mean, std, low, high = (100 * row[f"test_{measure}_{x}"] for x in ("mean", "std", "low", "high"))
        # either of the two figures can differ: each at half the level (Bonferroni)
        reach = stats.t.ppf(1 - LEVEL / 4, n - 1) * std * np.sqrt(1 / n + 1 / _PAPER_SEEDS)
        reached &= abs(low - level[measure]) <= _MARGIN and abs(high - level[measure]) <= _MARGIN
        lower |= mean < level[measure] - reach
        higher |= mean > level[measure] + reach
        parts.append(f"{MEASURES[measure]} {mean:.2f} [{low:.2f}, {high:.2f}], published {level[measure]:.2f}")
    verdict: Verdict = "within noise"
    if reached:
        verdict = "confirmed"
    elif lower:
        verdict = "contradicted"
    elif higher:
        verdict = "higher than published"
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


def _more(comparison: Comparison, first: str, second: str) -> str:
    """The raw difference in words."""
    size = f"{abs(100 * comparison.raw):.1f}"
    if float(size) == 0:
        return f"{first} scores as much as {second}"
    unit = "point" if size == "1.0" else "points"
    return f"{first} scores {size} {unit} {'more' if comparison.raw > 0 else 'less'} than {second}"


def _tested(comparison: Comparison) -> str:
    """What stands behind a raw difference that needs no correction: its interval, p-value and seeds."""
    difference = comparison.difference
    interval = f"95% interval {both}, " if (both := ends(difference)) else ""
    return f" ({interval}p {p_value(comparison.p_holm)}, {difference.n} seeds)"


def _corrected(comparison: Comparison) -> str:
    """A corrected difference with what stands behind it."""
    return f"{points(comparison.difference)} (p {p_value(comparison.p_holm)}, {comparison.difference.n} seeds)"

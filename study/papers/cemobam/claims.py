"""What the paper claims, and what a study says to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.design.factors import Pair
from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.luck import Level, equivalence, reproduced
from study.findings.results import AboutBlock
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, Difference, paired
from study.findings.wording import (
    WHOSE,
    chances_told,
    difference_told,
    more_told,
    p_value,
    points,
    points_of,
    seeds_in_words,
)
from study.ledger.outcomes import Metric
from study.papers.cemobam.contests import best_system, does_a_graph_help
from study.papers.cemobam.paper import LABELS
from study.papers.cemobam.published import paper_pairs, published

Verdict = Literal["confirmed", "equivalent", "undecided", "contradicted", "higher than published", "not tested"]

_TITLES = {"iemocap": "IEMOCAP", "esd": "ESD"}


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
        numbers: why, in sentences.
    """

    id: str
    claim: str
    where: str
    confirmed: str
    contradicted: str
    test: str
    verdict: Verdict
    numbers: str


Said = tuple[Verdict, str]


OF_SYSTEMS = ("best_system", "graph_helps")
"""What a study answers that compares systems, whatever else of the paper's it has run."""


def about_what(dataset: str, title: str) -> str:
    """Return what the verdicts are about, for whoever reads no further."""
    if dataset == "demo":
        return "The demo is synthetic: these answers are about the demo data alone, not about the paper's data."
    if published("table1", dataset).empty:
        return f"These answers are about {title}, on which the paper reports nothing."
    return f"These answers are about {title} with these features and this split."


def claims(analysis: Analysis) -> list[Claim]:
    """Return every claim of ``claims.csv`` with its verdict on a study."""
    with as_file(files("study.papers.cemobam") / "claims.csv") as path:
        rows = pd.read_csv(path).to_dict("records")
    dataset = analysis.results.about.dataset
    known = not published("table1", dataset).empty
    of = dataset if known else "iemocap"
    words = {
        "pair": _named_pairs(analysis),
        "rope": points_of(analysis.results.about.rope),
        "of": "" if known else " (on IEMOCAP)",
        "margin": _margins(dataset),
        **{measure: f"{_published(of, 'table1', 'min', measure):.2f}" for measure in ("wa", "ua", "wf1")},
        "xcbam": f"{_published(of, 'table2', 'no_xcbam', 'wa'):.2f}",
        "chgat": f"{_published(of, 'table2', 'no_chgat', 'wa'):.2f}",
    }
    made = []
    for row in rows:
        verdict, numbers = _TESTS[row["id"]](analysis)
        parts = {str(name): str(text).format(**words) for name, text in row.items()}
        made.append(Claim(**parts, verdict=verdict, numbers=numbers))
    return made


def _published(dataset: str, table: str, value: str, measure: str) -> float:
    """Return a published figure in percent, of a row that the paper has."""
    rows = published(table, dataset)
    column = "fusion" if table == "table1" else "modules"
    return float(rows.loc[rows[column] == value, measure].iloc[0])


def _margins(dataset: str) -> str:
    """Return by how many points the paper is ahead of the best other system, on this data set or on its own two."""
    told = {}
    for table, name in (("table3", "iemocap"), ("table4", "esd")):
        rows = published(table, name)
        ours = rows["system"] == "CemoBAM"
        told[name] = f"{rows.loc[ours, 'wa'].iloc[0] - rows.loc[~ours, 'wa'].max():.2f} points"
    if dataset in told:
        return f": WA {told[dataset]} above the best"
    return f": WA {told['iemocap']} above the best on IEMOCAP, {told['esd']} on ESD"


def _named_pairs(analysis: Analysis) -> str:
    """Return the best pair as the paper names it for this data set; where it names none, those of its own data sets."""
    if pair := analysis.paper_pair:
        return _written_out(pair)
    return " and ".join(f"{_written_out(pair)} on {_TITLES[dataset]}" for dataset, pair in paper_pairs().items())


def _written_out(pair: Pair) -> str:
    return f"K_audio = {pair.k_audio}, K_text = {pair.k_text}"


def _k_matters(analysis: Analysis) -> Said:
    variance = analysis.variance.get(analysis.metric)
    if variance is None:
        return "not tested", _no_grid(analysis)
    effects = ", ".join(
        f"{effect.name} ω² = {effect.omega2:.2f} (p {p_value(effect.p)})" for effect in variance.effects
    )
    numbers = f"{_name(analysis)} on test: {effects}. {spread_sentence(analysis)}{_left_out(analysis)}"
    p_values = {effect.name: effect.p for effect in variance.effects if effect.name in ("K_audio", "K_text")}
    if len(p_values) < 2:
        return "not tested", f"Only one of K_audio and K_text was varied. {numbers}"
    if max(p_values.values()) < LEVEL:
        return "confirmed", numbers
    shown = [name for name, p in p_values.items() if p < LEVEL]
    found = f"An effect shows of {shown[0]} alone" if shown else "No effect shows of either"
    return "undecided", f"{found}. {numbers}"


def spread_sentence(analysis: Analysis) -> str:
    """Return how much of the spread over the grid is K and how much is luck."""
    variance, grid = analysis.variance[analysis.metric], analysis.grid
    assert grid
    known = np.isfinite(variance.share_low)
    interval = (
        f" (95% interval {100 * variance.share_low:.0f} to {100 * variance.share_high:.0f}%, another seed)"
        if known
        else ""
    )
    return (
        f"The means of the {len(grid.k_audio) * len(grid.k_text)} pairs over {len(grid.seeds)} seeds have a standard "
        f"deviation of {100 * variance.std_of_means:.1f} points: {100 * variance.share:.0f}%{interval} of their "
        f"variance is K and the rest is luck. A single training strays by {100 * variance.std_of_seeds:.1f} points."
    )


def _best_k(analysis: Analysis) -> Said:
    pair, grid, about = analysis.paper_pair, analysis.grid, analysis.results.about
    if pair is None:
        return "not tested", f"The paper names no best pair for this data: {about.title}."
    if grid is None or len(grid.seeds) < 2 or len(grid.k_audio) * len(grid.k_text) < 2:
        return "not tested", _no_grid(analysis)
    if (place := grid.index(pair)) is None:
        return "not tested", f"K {pair} is not on the grid that was run{', or not complete' if grid.left_out else ''}."
    measured = grid.values[f"test_{analysis.metric}"]
    over_grid = paired(measured.reshape(len(measured), -1)[:, place], measured.mean(axis=(1, 2)))
    told = [
        difference_told(
            over_grid, f"K {pair}, the paper's pair,", "the mean of the grid", whose=WHOSE["seed"], p=over_grid.p
        )
        + "."
    ]
    if about.at == pair:
        told.append(f"K {pair} is also the pair that is {'given' if about.given else 'chosen'} here.")
        against = None
    else:
        against = next(iter(analysis.of("confirm").get(analysis.metric, [])), None)
        if against is None or np.isnan(against.difference.p):
            return "not tested", (
                f"{' '.join(told)} The pair chosen here, K {about.at}, was not measured beside it with fresh seeds: "
                "run the block confirm."
            )
        told.append(_told(against, f"K {about.at}, the {'given' if about.given else 'chosen'} pair,", f"K {pair}"))
    numbers = f"{_name(analysis)} on test. {' '.join(told)}{_left_out(analysis)}"
    better = against is not None and against.verdict == "better"
    if better or (over_grid.p < LEVEL and over_grid.mean < 0):
        return "contradicted", numbers
    # Not to have found a better pair is no evidence that there is none: the interval must say so.
    none_better = against is None or 100 * against.difference.high <= about.rope
    return ("confirmed" if none_better and over_grid.p < LEVEL else "undecided"), numbers


def _left_out(analysis: Analysis) -> str:
    """Return what of the grid the numbers are not of."""
    grid = analysis.grid
    return f" Left out of the grid, as not complete: {grid.left_out}." if grid and grid.left_out else ""


def _min_wins(analysis: Analysis) -> Said:
    return _all_of(analysis, analysis.of("fusion").get(analysis.metric, []), 3)


def _min_consistent(analysis: Analysis) -> Said:
    measures = [measure for measure in ("wa", "ua", "wf1") if measure in analysis.results.measures]
    every = [_all_of(analysis, analysis.of("fusion").get(measure, []), 3) for measure in measures]
    verdicts = [verdict for verdict, _ in every]
    if "not tested" in verdicts:
        return next(said for said in every if said[0] == "not tested")
    of = ", ".join(f"{MEASURES[measure]} {verdict}" for measure, verdict in zip(measures, verdicts, strict=True))
    made = [analysis.of("fusion")[measure] for measure in measures]
    rows = [f"{MEASURES[measure]} {_row(of_one)}" for measure, of_one in zip(measures, made, strict=True)]
    numbers = f"By metric: {of}. MIN less each other on test ({_of(made[0])}): {'; '.join(rows)}."
    decisive: tuple[Verdict, ...] = ("contradicted", "confirmed", "equivalent")
    for verdict in decisive:
        if (any if verdict == "contradicted" else all)(one == verdict for one in verdicts):
            return verdict, numbers
    return "undecided", numbers


def _of(made: Sequence[Comparison]) -> str:
    """Return what the numbers of :func:`_row` are."""
    interval = any(pd.notna(c.difference.low) for c in made)
    return f"points, 95% interval, {WHOSE[made[0].decided_by]}" if interval else "points"


def _row(made: Sequence[Comparison]) -> str:
    return ", ".join(f"{LABELS[c.second]} {points(c.difference)}" for c in made)


def _xcbam(analysis: Analysis) -> Said:
    return _all_of(analysis, _ablation(analysis, "no_xcbam"), 1)


def _chgat(analysis: Analysis) -> Said:
    return _all_of(analysis, _ablation(analysis, "no_chgat"), 1)


def _synergy(analysis: Analysis) -> Said:
    made = _ablation(analysis, "no_xcbam", "no_chgat")
    verdict, numbers = _all_of(analysis, made, 2)
    if verdict == "not tested":
        return verdict, numbers
    return verdict, f"{_name(analysis)} on test, CemoBAM less each ablation ({_of(made)}): {_row(made)}."


def _ablation(analysis: Analysis, *variants: str) -> list[Comparison]:
    return [c for c in analysis.of("ablation").get(analysis.metric, []) if c.second in variants]


def _all_of(analysis: Analysis, made: Sequence[Comparison], wanted: int) -> Said:
    """Return whether the first is better than each of the others.

    Where all differences must show, each is tested at the whole level: a false claim takes an error on every one whose
    effect is not there (intersection-union test: Berger, 1982, "Multiparameter hypothesis testing").
    """
    if not made:
        return "not tested", "The block that would tell has not been run at this K pair, or has no trial that is done."
    if any(np.isnan(c.difference.p) for c in made):
        return "not tested", "One seed cannot tell an effect from luck: it takes two at least, five to be of use."
    told = " ".join(_told(c, LABELS[c.first], LABELS[c.second]) for c in made)
    more = more_told([(c, LABELS[c.second]) for c in made if c.verdict == "undecided"], analysis)
    numbers = f"{MEASURES[made[0].metric]} on test. {told}{more}"
    if any(c.verdict == "worse" for c in made):
        return "contradicted", numbers
    if len(made) < wanted:
        return "not tested", f"Only {len(made)} of {wanted} others are there. {numbers}"
    several = wanted > 1
    p_values = [c.p if several else c.p_holm for c in made]
    same = [c.p_equivalent if several else c.p_same for c in made]
    if max(p_values) < LEVEL and all(c.difference.mean > 0 for c in made):
        return "confirmed", numbers
    return ("equivalent" if max(same) < LEVEL else "undecided"), numbers


def _told(comparison: Comparison, first: str, second: str) -> str:
    """Return a difference, its intervals and its probabilities in two sentences."""
    difference = difference_told(
        comparison.difference,
        first,
        second,
        whose=WHOSE[comparison.decided_by],
        p=comparison.p_holm,
        holm=comparison.p_holm > comparison.p,
        other=comparison.other,
    )
    return f"{difference}. {chances_told(comparison)}."


def _xcbam_more(analysis: Analysis) -> Said:
    block = analysis.results.about.block("ablation")
    made = analysis.between(block, "no_chgat", "no_xcbam") if block else None
    if made is None or np.isnan(made.difference.p):
        return "not tested", "It takes both ablations with two seeds at least, five to be of use."
    numbers = f"{_name(analysis)} on test. {_told(made, LABELS['no_chgat'], LABELS['no_xcbam'])}"
    if made.verdict == "worse":
        return "contradicted", numbers
    beyond = _one_sided(made.difference, analysis.results.about.rope / 100)
    if beyond < LEVEL:
        return "confirmed", numbers
    return ("equivalent" if made.verdict == "equivalent" else "undecided"), numbers


def _one_sided(difference: Difference, rope: float) -> float:
    """Return the p-value against a difference of no more than the rope."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.t.sf((difference.mean - rope) / difference.se, difference.df)) if difference.se > 0 else np.nan


def _level(analysis: Analysis) -> Said:
    return _reproduced(analysis, "fusion", ("min",), ("wa", "ua"))


def _level_wf1(analysis: Analysis) -> Said:
    return _reproduced(analysis, "fusion", ("min",), ("wf1",))


def _level_fusions(analysis: Analysis) -> Said:
    return _reproduced(analysis, "fusion", ("cls", "max", "mean"), ("wa", "ua"))


def _level_xcbam(analysis: Analysis) -> Said:
    return _reproduced(analysis, "ablation", ("no_xcbam",), ("wa", "ua"))


def _level_chgat(analysis: Analysis) -> Said:
    return _reproduced(analysis, "ablation", ("no_chgat",), ("wa", "ua"))


def _reproduced(analysis: Analysis, name: str, values: Sequence[str], measures: Sequence[Metric]) -> Said:
    """Return whether published figures are reached: both sides' luck counts, of seeds and of the test split.

    All figures must be equivalent for "confirmed", so each is tested at the whole level (Berger, 1982); any of them may
    differ, so each is tested at its share of it (Bonferroni).
    """
    about = analysis.results.about
    table, column = ("table1", "fusion") if name == "fusion" else ("table2", "modules")
    theirs = published(table, about.dataset)
    if theirs.empty:
        return "not tested", f"The paper reports no figures for {about.title}."
    found = []
    for value in values:
        for measure in measures:
            label = f"{MEASURES[measure]}" + (f" of {LABELS[value]}" if len(values) > 1 else "")
            ours = _our_level(analysis, name, value, measure)
            if isinstance(ours, str):
                return "not tested", f"{label}: {ours}."
            figure = float(theirs.loc[theirs[column] == value, measure].iloc[0])
            found.append((label, reproduced(ours, figure / 100), 100 * ours.mean, figure))
    rope = about.rope / 100
    of = found[0][1]
    told = [f"{label} {ours:.2f}, published {x:.2f}, difference {points(d)}" for label, d, ours, x in found]
    numbers = (
        f"At K {about.at}, {seeds_in_words(of.n)}, {of.utterances} test utterances: {'; '.join(told)} (points; the 95% "
        "intervals count the luck of seeds and of test splits on both sides; WA and UA may be swapped in the paper)."
    )
    if max(equivalence(d, rope) for _, d, _, _ in found) < LEVEL:
        return "confirmed", numbers
    apart = [d for _, d, _, _ in found if d.p * len(found) < LEVEL]
    if any(d.mean < 0 for d in apart):
        return "contradicted", numbers
    if apart:
        return "higher than published", numbers
    widest = max((d.high - d.low) / 2 for _, d, _, _ in found)
    if widest > rope:
        numbers += (
            f" Between two test splits of this size, differences of {100 * widest:.1f} points are luck, so "
            f"{points_of(about.rope)} cannot be told."
        )
    return "undecided", numbers


def _our_level(analysis: Analysis, name: str, value: str, measure: Metric) -> Level | str:
    """Return the level of a configuration of a block, by the value of the block's only column, or why there is none."""
    results, about = analysis.results, analysis.results.about
    block = about.block(name)
    row, seeds = (_row_of(analysis, block, value), block.seeds) if block else (None, ())
    if value == about.fusion == "min":
        row, seeds = about.base, results.own_seeds
    if results.kept is None:
        return _NOT_KEPT
    ours = analysis.level(row, measure, seeds) if row else None
    if ours is None:
        return "it has no trial that is done at the K pair of the study"
    if ours.n < SEEDS_FOR_INTERVAL:
        return f"{seeds_in_words(ours.n)} are too few; it takes {SEEDS_FOR_INTERVAL}"
    return ours


_NOT_KEPT = "the ledger is from before predictions were kept, so the luck of the test split is not known"


def _row_of(analysis: Analysis, block: AboutBlock, value: str) -> tuple[Any, ...] | None:
    """Return a configuration of a block by the value of its only column."""
    keys = [key[0] for key in analysis.results.keys(block)]
    return block.rows[keys.index(value)] if value in keys else None


def _balance(analysis: Analysis) -> Said:
    return "not tested", (
        "One study has one data set, and IEMOCAP and ESD differ in much more than the balance of their classes: acted "
        "or improvised speech, recording, speakers, and sentences that train and test share."
    )


_TESTS: dict[str, Callable[[Analysis], Said]] = {
    "k_matters": _k_matters,
    "best_k": _best_k,
    "min_wins": _min_wins,
    "min_consistent": _min_consistent,
    "xcbam_needed": _xcbam,
    "chgat_needed": _chgat,
    "synergy": _synergy,
    "xcbam_more": _xcbam_more,
    "level": _level,
    "level_wf1": _level_wf1,
    "level_fusions": _level_fusions,
    "level_xcbam": _level_xcbam,
    "level_chgat": _level_chgat,
    "best_system": best_system,
    "balance": _balance,
    "graph_helps": does_a_graph_help,
}


def _no_grid(analysis: Analysis) -> str:
    grid = analysis.grid
    if grid is None:
        return "The grid has not been run, or no seed has all of its pairs."
    if len(grid.seeds) < 2:
        return "The grid has one complete seed: nothing tells K from luck. Run it with --seeds 5."
    return "The grid has one complete pair: there is nothing to compare."


def _name(analysis: Analysis) -> str:
    return MEASURES[analysis.metric]

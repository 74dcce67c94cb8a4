"""The paper's claims, and the finding of a study about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files

import numpy as np
import pandas as pd

from study.design.factors import Pair
from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.statistics import LEVEL, Difference, paired
from study.findings.wording import (
    INTERVALS,
    WHOSE,
    comparison_sentence,
    difference_sentence,
    interval,
    listed,
    more_than,
    needed_sentences,
    not_shown,
    p_value,
    points_of,
    probability_sentence,
    rounds_to_zero,
    seeds_in_words,
    size_in_points,
)
from study.papers.cemobam import levels
from study.papers.cemobam.contests import best_system, does_a_graph_help
from study.papers.cemobam.finding import ONE_SEED, Finding, Verdict, not_tested
from study.papers.cemobam.paper import LABELS
from study.papers.cemobam.published import paper_pairs, published

__all__ = ["OF_SYSTEMS", "Claim", "Verdict", "claims", "scope", "spread_sentences"]

_TITLES = {"iemocap": "IEMOCAP", "esd": "ESD"}

_NAMES = {**LABELS, "full": "CemoBAM", "no_xcbam": "CemoBAM without xCBAM", "no_chgat": "CemoBAM without CH-GAT"}
"""The configurations of the paper's blocks, as sentences name them."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and the finding of the study about it.

    Attributes:
        id: A short name.
        verdict: The verdict of the study.
        answer: One sentence that answers the claim about this study.
        claim: The claim as a sentence.
        numbers: The numbers behind the answer, in sentences.
        where: The place in the paper.
        confirmed: The result that would confirm the claim.
        contradicted: The result that would contradict the claim.
        test: The statistical test.
        intervals: A sentence about the repetitions that the test and its intervals describe. Empty if there are none.
        block: The block whose trials test the claim. Empty if no block of the paper does.
    """

    id: str
    verdict: Verdict
    answer: str
    claim: str
    numbers: tuple[str, ...]
    where: str
    confirmed: str
    contradicted: str
    test: str
    intervals: str
    block: str

    @property
    def record(self) -> dict[str, str]:
        """The row of the claim in a csv file."""
        return {**asdict(self), "numbers": " ".join(self.numbers)}


OF_SYSTEMS = ("best_system", "graph_helps")
"""The claims that a comparison of systems tests, whatever other blocks the study has."""


def scope(dataset: str, title: str) -> str:
    """Return a sentence about the data that the verdicts hold for."""
    if dataset == "demo":
        return "The demo data are synthetic. The answers hold for the demo data alone, not for the paper's data."
    if published("table1", dataset).empty:
        return f"The answers hold for {title}. The paper reports no results on these data."
    return f"The answers hold for {title} with these features and this split."


def claims(analysis: Analysis) -> list[Claim]:
    """Return every claim of ``claims.csv`` with the finding of a study about it."""
    with as_file(files("study.papers.cemobam") / "claims.csv") as path:
        rows = pd.read_csv(path, keep_default_na=False).to_dict("records")
    dataset = analysis.results.about.in_papers
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
        finding = _TESTS[row["id"]](analysis)
        parts = {str(name): str(text).format(**words) for name, text in row.items()}
        made.append(
            Claim(
                **parts,
                verdict=finding.verdict,
                answer=finding.answer,
                numbers=finding.numbers,
                intervals=finding.intervals,
            )
        )
    return made


def _published(dataset: str, table: str, value: str, measure: str) -> float:
    """Return a published figure in percent. The paper must have the row."""
    rows = published(table, dataset)
    column = "fusion" if table == "table1" else "modules"
    return float(rows.loc[rows[column] == value, measure].iloc[0])


def _margins(dataset: str) -> str:
    """Return how far the paper is ahead of the best other system, on this data set or on its own two."""
    margins = {}
    for table, name in (("table3", "iemocap"), ("table4", "esd")):
        rows = published(table, name)
        ours = rows["system"] == "CemoBAM"
        margins[name] = f"{rows.loc[ours, 'wa'].iloc[0] - rows.loc[~ours, 'wa'].max():.2f} points"
    if dataset in margins:
        return f": its WA is {margins[dataset]} above the best"
    return f": its WA is {margins['iemocap']} above the best on IEMOCAP and {margins['esd']} on ESD"


def _named_pairs(analysis: Analysis) -> str:
    """Return the paper's best pair for this data set. If it names none, return the pairs for its own data sets."""
    if pair := analysis.paper_pair:
        return _written_out(pair)
    return " and ".join(f"{_written_out(pair)} on {_TITLES[dataset]}" for dataset, pair in paper_pairs().items())


def _written_out(pair: Pair) -> str:
    return f"K_audio = {pair.k_audio}, K_text = {pair.k_text}"


def _metric(analysis: Analysis) -> str:
    return MEASURES[analysis.metric]


def _k_matters(analysis: Analysis) -> Finding:
    variance = analysis.variance.get(analysis.metric)
    if variance is None:
        return not_tested(_no_grid(analysis))
    effects = ", ".join(f"{effect.name} {effect.omega2:.2f} (p {p_value(effect.p)})" for effect in variance.effects)
    numbers = (
        f"Share of the variance of {_metric(analysis)} (ω²): {effects}.",
        *spread_sentences(analysis),
        *_left_out(analysis),
    )
    p_values = {effect.name: effect.p for effect in variance.effects if effect.name in ("K_audio", "K_text")}
    if len(p_values) < 2:
        return not_tested("The grid varies only one of K_audio and K_text.", *numbers)
    shown = [name for name, p in p_values.items() if p < LEVEL]
    metric = f"{_metric(analysis)} on test"
    if len(shown) == 2:
        verdict, answer = "confirmed", f"{metric} changes with K_audio and with K_text."
    elif shown:
        (other,) = set(p_values) - set(shown)
        verdict, answer = "undecided", f"{metric} changes with {shown[0]}, but an effect of {other} is not shown."
    else:
        verdict, answer = "undecided", f"Neither K_audio nor K_text has an effect on {metric} that this grid can show."
    return Finding(verdict=verdict, answer=answer, numbers=numbers, intervals=INTERVALS["seed"])  # type: ignore[arg-type]


def spread_sentences(analysis: Analysis) -> tuple[str, str]:
    """Return how much of the spread over the grid comes from K and how much from chance, in two sentences."""
    variance, grid = analysis.variance[analysis.metric], analysis.grid
    assert grid
    ends = ""
    if np.isfinite(variance.share_low):
        ends = f" (95% interval {100 * variance.share_low:.0f}% to {100 * variance.share_high:.0f}%)"
    return (
        f"The means of the {len(grid.k_audio) * len(grid.k_text)} pairs over {seeds_in_words(len(grid.seeds))} have a "
        f"standard deviation of {100 * variance.std_of_means:.1f} points. K explains {100 * variance.share:.0f}% of "
        f"their variance{ends}; the rest is chance.",
        f"Single trainings vary around the mean of their pair with a standard deviation of "
        f"{100 * variance.std_of_seeds:.1f} points, not counting the effect of a seed on all pairs.",
    )


def _best_k(analysis: Analysis) -> Finding:
    pair, grid, about = analysis.paper_pair, analysis.grid, analysis.results.about
    if pair is None:
        return not_tested(f"The paper names no best pair for {about.title}.")
    if grid is None or len(grid.seeds) < 2 or len(grid.k_audio) * len(grid.k_text) < 2:
        return not_tested(_no_grid(analysis))
    if (place := grid.index(pair)) is None:
        missing = "is not complete on the grid" if grid.left_out else "is not on the grid"
        return not_tested(f"The paper's pair K {pair} {missing} of this study.", *_left_out(analysis))
    measured = grid.values[f"test_{analysis.metric}"]
    over_grid = paired(measured.reshape(len(measured), -1)[:, place], measured.mean(axis=(1, 2)))
    papers, mean = f"The paper's pair (K {pair})", "the mean of the grid"
    others, against = f"{'the given pair' if about.given else 'the pair chosen here'} (K {about.at})", None
    numbers = [difference_sentence(over_grid, papers, mean, p=over_grid.p, whose=WHOSE["seed"])]
    if about.at == pair:
        numbers.append(f"K {pair} is also the pair that is {'given' if about.given else 'chosen'} here.")
    else:
        against = next(iter(analysis.of("confirm").get(analysis.metric, [])), None)
        if against is None or np.isnan(against.difference.p):
            return not_tested(
                f"{_capital(others)} was not measured beside the paper's with fresh seeds. Run the block confirm.",
                *numbers,
            )
        said = comparison_sentence(against, _capital(others), f"K {pair}", whose=WHOSE[against.decided_by])
        numbers.append(f"{said} {probability_sentence(against, f'K {about.at}')}")
    numbers = [*numbers, f"Differences are in points of {_metric(analysis)} on test.", *_left_out(analysis)]
    over_it, below = over_grid.p < LEVEL and over_grid.mean > 0, over_grid.p < LEVEL and over_grid.mean < 0
    # Failing to find a better pair does not show that there is none: the interval must show it.
    none_better = against is None or 100 * against.difference.high <= about.rope
    than_mean = f"{papers} scores {more_than(over_grid.mean, mean)}"
    verdict: Verdict = "undecided"
    if against is not None and against.verdict == "better":
        by = more_than(against.difference.mean, f"the paper's (K {pair})")
        verdict, answer = "contradicted", f"{_capital(others)} scores {by}."
    elif below:
        verdict, answer = "contradicted", f"{than_mean}."
    elif over_it and none_better:
        then = "is also the best pair here" if not about.given else "is the pair given here"
        verdict, answer = "confirmed", f"{papers} {then} and scores {more_than(over_grid.mean, mean)}."
        if against is not None:
            answer = f"{than_mean}, and {others} is at most {points_of(about.rope)} better."
    elif over_it:
        answer = f"{than_mean}, but {others} may be more than {points_of(about.rope)} better."
    else:
        answer = f"{than_mean}, {not_shown(over_grid)}"
    return Finding(verdict=verdict, answer=answer, numbers=tuple(numbers))


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _left_out(analysis: Analysis) -> tuple[str, ...]:
    """Return a sentence about what the numbers leave out of the grid. Empty if it is complete."""
    grid = analysis.grid
    return (f"Left out of the grid because it is not complete: {grid.left_out}.",) if grid and grid.left_out else ()


def _no_grid(analysis: Analysis) -> str:
    grid = analysis.grid
    if grid is None:
        return "The grid has not been run, or no seed has all of its pairs."
    if len(grid.seeds) < 2:
        return "The grid has one complete seed, which cannot separate K from chance. Run it with --seeds 5."
    return "The grid has one complete pair, so there is nothing to compare."


def _min_wins(analysis: Analysis) -> Finding:
    return _better_than_each(analysis, analysis.of("fusion").get(analysis.metric, []), 3)


def _min_consistent(analysis: Analysis) -> Finding:
    measures = [measure for measure in ("wa", "ua", "wf1") if measure in analysis.results.measures]
    made = {measure: analysis.of("fusion").get(measure, []) for measure in measures}
    each = {measure: _better_than_each(analysis, made[measure], 3) for measure in measures}
    for finding in each.values():
        if finding.verdict == "not tested":
            return finding
    numbers = tuple(
        f"{MEASURES[measure]} ({each[measure].verdict}): MIN scores {_compact(made[measure])}." for measure in measures
    )
    labels = {measure: MEASURES[measure] for measure in measures}
    every = listed(list(labels.values()))
    of = {
        verdict: [label for measure, label in labels.items() if each[measure].verdict == verdict]
        for verdict in ("confirmed", "contradicted", "equivalent")
    }
    verdict: Verdict = "undecided"
    if of["contradicted"]:
        verdict, answer = "contradicted", f"Another strategy scores more than MIN on {listed(of['contradicted'])}."
    elif len(of["confirmed"]) == len(labels):
        verdict, answer = "confirmed", f"MIN scores more than each of the other three on {every}."
    elif len(of["equivalent"]) == len(labels):
        verdict, answer = "equivalent", f"MIN scores practically the same as each of the other three on {every}."
    elif of["confirmed"]:
        rest = [label for label in labels.values() if label not in of["confirmed"]]
        answer = f"MIN is shown to be the best on {listed(of['confirmed'])}, but not on {listed(rest)}."
    else:
        answer = f"MIN is not shown to be the best on any of {every}."
    return Finding(verdict=verdict, answer=answer, numbers=numbers, intervals=each[measures[0]].intervals)


def _compact(made: Sequence[Comparison]) -> str:
    """Return how much more the first scores than each of the others, with the intervals."""
    return listed([f"{more_than(c.difference.mean, _NAMES[c.second])}{_in_brackets(c)}" for c in made])


def _in_brackets(comparison: Comparison) -> str:
    ends = interval(comparison.difference)
    return f" (95% interval {ends})" if ends else ""


def _xcbam(analysis: Analysis) -> Finding:
    return _needed(analysis, "no_xcbam", "xCBAM")


def _chgat(analysis: Analysis) -> Finding:
    return _needed(analysis, "no_chgat", "CH-GAT")


def _needed(analysis: Analysis, variant: str, module: str) -> Finding:
    """Return whether the full model scores more than the model without a module."""
    made = _ablation(analysis, variant)
    finding = _better_than_each(analysis, made, 1)
    if finding.verdict == "not tested":
        return finding
    mean, metric = made[0].difference.mean, f"{_metric(analysis)} on test"
    by = f"by {size_in_points(mean)}"
    change = "stays the same" if rounds_to_zero(mean) else f"{'falls' if mean > 0 else 'rises'} {by}"
    answer = f"Without {module}, {metric} {change}."
    if finding.verdict == "equivalent":
        answer = f"Without {module}, {metric} changes by less than {points_of(made[0].rope)}."
    elif finding.verdict == "undecided":
        answer = f"{answer[:-1]}, {not_shown(made[0].difference)}"
    return Finding(verdict=finding.verdict, answer=answer, numbers=finding.numbers, intervals=finding.intervals)


def _synergy(analysis: Analysis) -> Finding:
    return _better_than_each(analysis, _ablation(analysis, "no_xcbam", "no_chgat"), 2)


def _ablation(analysis: Analysis, *variants: str) -> list[Comparison]:
    return [c for c in analysis.of("ablation").get(analysis.metric, []) if c.second in variants]


def _better_than_each(analysis: Analysis, made: Sequence[Comparison], wanted: int) -> Finding:
    """Return whether the first is better than each of the others.

    If all differences must be significant, each is tested at the whole level, because a false claim needs an error on
    every difference without an effect (intersection-union test: Berger, 1982, "Multiparameter hypothesis testing").
    """
    if not made:
        return not_tested("The block that tests this has no finished trial at the K pair of the study.")
    if any(np.isnan(c.difference.p) for c in made):
        return not_tested(ONE_SEED)
    first = _NAMES[made[0].first]
    numbers = [_sentences(c, first, _NAMES[c.second]) for c in made]
    numbers += needed_sentences([(c, _NAMES[c.second]) for c in made if c.verdict == "undecided"], analysis)
    numbers.append(f"Differences are in points of {MEASURES[made[0].metric]} on test.")
    worse = [c for c in made if c.verdict == "worse"]
    if not worse and len(made) < wanted:
        return not_tested(f"Only {len(made)} of {wanted} other configurations are finished.", *numbers)
    several = wanted > 1
    p_values = [c.p if several else c.p_holm for c in made]
    same = [c.p_equivalent if several else c.p_same for c in made]
    verdict: Verdict
    if worse:
        verdict, answer = "contradicted", _contradiction(worse, first)
    elif max(p_values) < LEVEL and all(c.difference.mean > 0 for c in made):
        verdict, answer = "confirmed", f"{first} scores {_each(made)}."
    elif max(same) < LEVEL:
        others = listed([_NAMES[c.second] for c in made])
        verdict, answer = "equivalent", f"{first} scores the same as {others} within {points_of(made[0].rope)}."
    else:
        verdict, answer = "undecided", _undecided(made, first)
    return Finding(verdict=verdict, answer=answer, numbers=tuple(numbers), intervals=INTERVALS[made[0].decided_by])


def _each(made: Sequence[Comparison]) -> str:
    """Return how much more the first scores than each of the others."""
    return listed([more_than(c.difference.mean, _NAMES[c.second]) for c in made])


def _contradiction(worse: Sequence[Comparison], first: str) -> str:
    """Return which of the others score more than the first."""
    by = [(_NAMES[c.second], size_in_points(c.difference.mean)) for c in worse]
    if len(by) == 1:
        return f"{by[0][0]} scores {by[0][1]} more than {first}."
    return f"{listed([f'{name} ({size} more)' for name, size in by])} score more than {first}."


def _undecided(made: Sequence[Comparison], first: str) -> str:
    """Return which differences are decided and which are not."""
    parts = []
    if better := [c for c in made if c.verdict == "better"]:
        parts.append(f"{first} scores {_each(better)}.")
    if same := [c for c in made if c.verdict == "equivalent"]:
        others = listed([_NAMES[c.second] for c in same])
        parts.append(f"{first} scores the same as {others} within {points_of(made[0].rope)}.")
    if rest := [c for c in made if c.verdict == "undecided"]:
        parts.append(f"{first} scores {_each(rest)}, {not_shown(*(c.difference for c in rest))}")
    return " ".join(parts)


def _sentences(comparison: Comparison, first: str, second: str) -> str:
    """Return a difference and its probabilities."""
    return f"{comparison_sentence(comparison, first, second)} {probability_sentence(comparison, first)}"


def _xcbam_more(analysis: Analysis) -> Finding:
    block = analysis.results.about.block("ablation")
    made = analysis.between(block, "no_chgat", "no_xcbam") if block else None
    if made is None or np.isnan(made.difference.p):
        return not_tested("The test needs both ablations with at least two seeds, and five to be useful.")
    rope, mean = points_of(made.rope), made.difference.mean
    numbers = (
        _sentences(made, _NAMES["no_chgat"], _NAMES["no_xcbam"]),
        f"Differences are in points of {_metric(analysis)} on test.",
    )
    modules = ("xCBAM", "CH-GAT") if mean > 0 else ("CH-GAT", "xCBAM")
    costs = f"Leaving out {modules[0]} costs {more_than(abs(mean), f'leaving out {modules[1]}')}"
    beyond = _one_sided(made.difference, analysis.results.about.rope / 100)
    verdict: Verdict = "undecided"
    if made.verdict == "worse":
        verdict, answer = "contradicted", f"{costs}."
    elif beyond < LEVEL:
        verdict, answer = "confirmed", f"{costs}."
    elif made.verdict == "equivalent":
        verdict, answer = "equivalent", f"Leaving out xCBAM or CH-GAT costs the same within {rope}."
    elif made.verdict == "better":
        answer = f"{costs}, but this is not clearly more than {rope}."
    else:
        answer = f"{costs}, {not_shown(made.difference)}"
    return Finding(verdict=verdict, answer=answer, numbers=numbers, intervals=INTERVALS[made.decided_by])


def _one_sided(difference: Difference, rope: float) -> float:
    """Return the p-value against a difference of no more than the rope."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.t.sf((difference.mean - rope) / difference.se, difference.df)) if difference.se > 0 else np.nan


def _balance(analysis: Analysis) -> Finding:
    return not_tested(
        "A study of one data set cannot test this.",
        "IEMOCAP and ESD also differ in acted or improvised speech, recording conditions, speakers, and sentences that "
        "train and test share.",
    )


_TESTS: dict[str, Callable[[Analysis], Finding]] = {
    "k_matters": _k_matters,
    "best_k": _best_k,
    "min_wins": _min_wins,
    "min_consistent": _min_consistent,
    "xcbam_needed": _xcbam,
    "chgat_needed": _chgat,
    "synergy": _synergy,
    "xcbam_more": _xcbam_more,
    **levels.TESTS,
    "best_system": best_system,
    "balance": _balance,
    "graph_helps": does_a_graph_help,
}

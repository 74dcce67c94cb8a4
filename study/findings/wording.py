"""Sentences about numbers: differences in points, intervals, p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor, isnan
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from study.design.factors import displayed
from study.design.seeds import MANY_SEEDS
from study.findings.statistics import Difference

if TYPE_CHECKING:
    from study.findings.analysis import Analysis, Comparison

WHOSE: dict[Literal["seed", "utterances"], str] = {
    "seed": "another seed",
    "utterances": "another seed and other utterances",
}
"""The repetition of an experiment that an interval describes."""

INTERVALS: dict[Literal["seed", "utterances"], str] = {
    "seed": "Tests and 95% intervals hold for another seed on the same test utterances.",
    "utterances": "Tests and 95% intervals hold for another seed and other test utterances.",
}
"""A sentence about tests and intervals that :data:`WHOSE` describes."""

TRANSDUCTIVE = (
    "the evaluated utterances and the training utterances form one graph. This is transductive: the evaluated "
    "utterances change the graph of the training utterances, so the results do not hold for new utterances"
)
"""The meaning of a joint evaluation graph."""


def evaluation_graph_notes(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the graph of validation and test. Empty if each split has its own whole graph."""
    size, graph = settings.get("evaluation_size", 0), settings.get("evaluation_graph", "own")
    if graph == "joint":
        return [f"Evaluation graph joint: {TRANSDUCTIVE}."]
    if graph == "anchored":
        return ["Evaluation graph anchored: each test utterance is linked to its nearest training utterances."]
    if size:
        return [
            f"Evaluation graph own, in parts: validation and test are evaluated in parts of {size} utterances or more."
        ]
    return []


def index_notes(settings: Mapping[str, Any], recall: Mapping[str, float]) -> list[str]:
    """Return a sentence about the neighbours that an approximate index finds. Empty if no such index was asked for.

    Args:
        settings: Settings that all trials share.
        recall: Recall of the index by modality and K. Empty if all neighbours are exact.
    """
    if recall:
        shares = [f"{floor(1000 * share) / 10:.1f}% by {name}" for name, share in recall.items()]  # never up to 100%
        return [
            f"The neighbours are approximate (index hnsw): it found {listed(shares)} of the nearest, measured on 1,000 "
            "random utterances of each ranked split, of which the worst counts."
        ]
    if settings.get("index", "exact") != "exact":
        return ["Index hnsw: no split is large enough for it, so all neighbours are exact."]
    return []


def in_words(setting: str) -> str:
    """Return a setting's name for a sentence: ``hidden_dim``, ``learning rate``, ``K_audio``."""
    name = displayed(setting)
    return name if name.startswith("K_") else name.lower()


def listed(words: Sequence[str]) -> str:
    """Return words as a list: pairs, fusion and ablation."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def seeds_in_words(n: int) -> str:
    """Return a number of seeds: 1 seed, 5 seeds."""
    return f"{n} seed{'' if n == 1 else 's'}"


def cut(name: str, longest: int = 30) -> str:
    """Return a name, cut to ``longest`` characters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def sentence(text: str) -> str:
    """Return a text with a capital first letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def points_of(value: float) -> str:
    """Return a number of percentage points: 1 point, 0.5 points."""
    return f"{value:g} point{'' if value == 1 else 's'}"


def size_in_points(fraction: float) -> str:
    """Return the size of a difference of fractions: 4.0 points, 1.0 point."""
    size = f"{abs(100 * fraction):.1f}"
    return f"{size} {'point' if size == '1.0' else 'points'}"


def rounds_to_zero(fraction: float) -> bool:
    """Return whether a difference of fractions is shown as 0.0 points."""
    return size_in_points(fraction) == "0.0 points"


def more_or_less(fraction: float) -> str:
    """Return a difference of fractions as "4.0 points more" or "0.3 points less"."""
    if rounds_to_zero(fraction):
        return "0.0 points"
    return f"{size_in_points(fraction)} {'more' if fraction > 0 else 'less'}"


def more_than(fraction: float, other: str) -> str:
    """Return how a score relates to another one: "4.0 points more than CLS", "as much as CLS"."""
    return f"as much as {other}" if rounds_to_zero(fraction) else f"{more_or_less(fraction)} than {other}"


def reverse(difference: Difference) -> Difference:
    """Return the difference of the second less the first."""
    low, high = -difference.high, -difference.low
    return replace(difference, mean=-difference.mean, low=low, high=high, d_z=-difference.d_z)


def interval(difference: Difference) -> str:
    """Return a difference's interval in points for a sentence, "−3.1 to +6.2". Empty without an interval."""
    low, high = difference.low, difference.high
    return f"{signed(100 * low)} to {signed(100 * high)}" if pd.notna(low) else ""


def interval_cell(difference: Difference) -> str:
    """Return a difference's interval in points for a table, "[−3.1, +6.2]". Empty without an interval."""
    low, high = difference.low, difference.high
    return f"[{signed(100 * low)}, {signed(100 * high)}]" if pd.notna(low) else ""


def difference_sentence(
    difference: Difference, first: str, second: str, *, p: float, holm: bool = False, whose: str = ""
) -> str:
    """Return a difference as a sentence.

    For example: "A scores 1.6 points more than B (95% interval −3.1 to +6.2; p 0.320; 5 seeds)."

    Args:
        difference: The first less the second.
        first: The subject of the sentence.
        second: The configuration that the first is compared with.
        p: The p-value of the difference.
        holm: Whether the p-value is after Holm's correction.
        whose: A value of :data:`WHOSE`, or empty if another sentence says it.
    """
    ends = interval(difference)
    parts = [f"95% interval {ends}{f' over {whose}' if whose else ''}"] if ends else []
    if pd.notna(p):
        corrected = " after Holm's correction" if holm else ""
        parts.append(f"p {p_value(p)}{corrected}")
    parts.append(seeds_in_words(difference.n))
    return f"{first} scores {more_than(difference.mean, second)} ({'; '.join(parts)})."


def comparison_sentence(comparison: Comparison, first: str, second: str, *, turn: bool = False, whose: str = "") -> str:
    """Return the deciding difference of a comparison as a sentence.

    Args:
        comparison: The comparison.
        first: The subject of the sentence.
        second: The configuration that the first is compared with.
        turn: Whether the subject is the second configuration of the comparison.
        whose: As in :func:`difference_sentence`.
    """
    difference = reverse(comparison.difference) if turn else comparison.difference
    holm = comparison.p_holm > comparison.p
    return difference_sentence(difference, first, second, p=comparison.p_holm, holm=holm, whose=whose)


def probability_sentence(comparison: Comparison, first: str, *, turn: bool = False) -> str:
    """Return the probabilities that the first is better, practically the same and worse, as a sentence.

    Args:
        comparison: The comparison.
        first: The subject of the sentence.
        turn: Whether the subject is the second configuration of the comparison.
    """
    better, same, worse = reversed(comparison.chances) if turn else comparison.chances
    by = points_of(comparison.rope)
    return (
        f"Probability that {first} is better by more than {by}: {_probability(better)}; practically the same: "
        f"{_probability(same)}; worse by more than {by}: {_probability(worse)}."
    )


def _probability(value: float) -> str:
    """Return a probability with two decimals, never as 0 or 1: no finite number of seeds shows that."""
    if isnan(value):
        return "–"
    return "< 0.01" if value < 0.005 else "> 0.99" if value > 0.995 else f"{value:.2f}"


def needed_sentences(undecided: Sequence[tuple[Comparison, str]], analysis: Analysis) -> list[str]:
    """Return sentences on how many seeds or utterances would decide the undecided comparisons.

    Args:
        undecided: The comparisons, each with the name of the configuration that the reference is compared with.
        analysis: The analysis of the study.
    """
    if not undecided:
        return []
    seeds = {name: analysis.seeds_needed(comparison) for comparison, name in undecided}
    never = {name: analysis.utterances_needed(c) for c, name in undecided if seeds[name] is None}
    made = []
    if needed := [_for(f"{n}", name, undecided) for name, n in seeds.items() if n]:
        stays = "the difference stays as it is" if len(undecided) == 1 else "the differences stay as they are"
        more = "More seeds than the last look has are needed" if analysis.results.about.looks else "Seeds needed"
        made.append(f"{more} to decide, if {stays}: {'; '.join(needed)}.")
    if never:
        utterances = undecided[0][0].difference.utterances
        here = f" on these {utterances} test utterances" if utterances else ""
        about = "" if len(never) == len(undecided) else f" about {listed(list(never))}"
        made.append(f"Even {MANY_SEEDS} seeds would not decide{about}{here}.")
    if enough := [_for(f"about {float(f'{n:.2g}'):,.0f}", name, undecided) for name, n in never.items() if n]:
        made.append(f"Test utterances needed to decide: {'; '.join(enough)}.")
    return made


def _for(n: str, name: str, undecided: Sequence[object]) -> str:
    """Return a needed number, with a configuration's name where there are several."""
    return n if len(undecided) == 1 else f"{n} for {name}"


def evidence_of(difference: Difference) -> str:
    """Return the data behind a difference: 5 seeds, or 5 seeds and 90 test utterances."""
    utterances = f" and {difference.utterances} test utterances" if difference.utterances else ""
    return f"{seeds_in_words(difference.n)}{utterances}"


def not_shown(*differences: Difference) -> str:
    """Return that the data do not decide on differences, as the end of a sentence."""
    data = evidence_of(differences[0])
    if all(rounds_to_zero(difference.mean) for difference in differences):
        return f"but {data} cannot rule out a difference."
    return f"but {data} cannot distinguish {'this' if len(differences) == 1 else 'these'} from chance."


def signed(value: float) -> str:
    """Return a number with one decimal and a sign, or a dash if it is missing."""
    # the zero added makes a rounded -0.0 a plain zero
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") if pd.notna(value) else "–"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or a dash if it is missing."""
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"

"""Numbers in words: differences in points, intervals, p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
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
"""What an interval holds for."""

TRANSDUCTIVE = (
    "the utterances that are measured and the training utterances are ranked together. That is transductive: the graph "
    "of the training utterances changes with those that are measured, so the figures are not those of new utterances"
)
"""What a joint evaluation graph is."""


def measured_in(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the graph that validation and test are measured in; none if each has its own, whole."""
    size, graph = settings.get("evaluation_size", 0), settings.get("evaluation_graph", "own")
    if graph == "joint":
        return [f"Evaluation graph joint: {TRANSDUCTIVE}."]
    if graph == "anchored":
        return [
            "Evaluation graph anchored: each utterance that is measured is linked to its nearest training utterances."
        ]
    if size:
        return [
            f"Evaluation graph own, in parts: validation and test are measured in parts of {size} utterances or more."
        ]
    return []


def in_words(setting: str) -> str:
    """Return a setting's name as a sentence has it: ``hidden_dim``, ``learning rate``, ``K_audio``."""
    name = displayed(setting)
    return name if name.startswith("K_") else name.lower()


def listed(words: Sequence[str]) -> str:
    """Return words in a row: pairs, fusion and ablation."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def seeds_in_words(n: int) -> str:
    """Return a number of seeds: 1 seed, 5 seeds."""
    return f"{n} seed{'' if n == 1 else 's'}"


def cut(name: str, longest: int = 30) -> str:
    """Return a name that may be of any length, cut to so many characters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def points_of(value: float) -> str:
    """Return a number of percentage points: 1 point, 0.5 points."""
    return f"{value:g} point{'' if value == 1 else 's'}"


def turned(difference: Difference) -> Difference:
    """Return the difference the other way round: the second less the first."""
    low, high = -difference.high, -difference.low
    return replace(difference, mean=-difference.mean, low=low, high=high, d_z=-difference.d_z)


def points(difference: Difference) -> str:
    """Return a difference of fractions in percentage points, with its interval where it has one."""
    return f"{signed(100 * difference.mean)} {ends(difference)}".rstrip()


def ends(difference: Difference) -> str:
    """Return both ends of a difference's interval in points; empty: it has none."""
    low, high = difference.low, difference.high
    return f"[{signed(100 * low)}, {signed(100 * high)}]" if pd.notna(low) else ""


def difference_told(
    difference: Difference,
    first: str,
    second: str,
    *,
    whose: str,
    p: float,
    holm: bool = False,
    other: Difference | None = None,
) -> str:
    """Return a difference as a sentence without its full stop.

    Args:
        difference: of the first less the second, that decides.
        first: what the sentence is about.
        second: what it is compared with.
        whose: luck the interval holds for, as :data:`WHOSE` has it.
        p: its p-value.
        holm: whether that is after Holm's correction.
        other: the same difference with the other kind of interval; None: there is none.
    """
    size = f"{abs(100 * difference.mean):.1f}"
    if float(size) == 0:
        said = f"{first} scores as much as {second}"
    else:
        unit = "point" if size == "1.0" else "points"
        said = f"{first} scores {size} {unit} {'more' if difference.mean > 0 else 'less'} than {second}"
    parts = [f"95% interval {both}, {whose}" for both in [ends(difference)] if both]
    if other is not None and (both := ends(other)):
        alone = WHOSE["seed" if difference.utterances else "utterances"]
        parts.append(f"{both}, {alone}{' alone' if difference.utterances else ''}")
    corrected = " after Holm's correction" if holm else ""
    parts.append(f"p {p_value(p)}{corrected}, {seeds_in_words(difference.n)}")
    return f"{said} ({'; '.join(parts)})"


def chances_told(comparison: Comparison, *, turned: bool = False) -> str:
    """Return the probabilities that the first is better, practically the same and worse, without a full stop.

    Args:
        comparison: of the first with the second.
        turned: whether the sentence is about the second.
    """
    better, same, worse = comparison.chances
    if turned:
        better, worse = worse, better
    by = points_of(comparison.rope)
    return (
        f"Probability that it is better by more than {by} {_chance(better)}, practically the same {_chance(same)}, "
        f"worse by more than {by} {_chance(worse)}"
    )


def _chance(probability: float) -> str:
    """Return a probability with two decimals, never as 0 or 1, which no finite number of seeds can say."""
    if isnan(probability):
        return "–"
    return "< 0.01" if probability < 0.005 else "> 0.99" if probability > 0.995 else f"{probability:.2f}"


def more_told(undecided: Sequence[tuple[Comparison, str]], analysis: Analysis) -> str:
    """Return how many seeds would tell undecided differences, in sentences; empty: none is undecided.

    Args:
        undecided: with the name of what the reference is compared with.
        analysis: of the study.
    """
    about = analysis.results.about
    enough = {name: analysis.seeds_needed(comparison) for comparison, name in undecided}
    needed = [f"{n} for {name}" for name, n in enough.items() if n]
    never = [_with_utterances(c, name, analysis) for c, name in undecided if enough[name] is None]
    told = ""
    if needed and about.looks:
        told += f" It would take more seeds than the last look has: {'; '.join(needed)}."
    elif needed:
        told += f" If differences stay as they are, so many seeds would tell them: {'; '.join(needed)}."
    if never:
        of = undecided[0][0].difference
        why = f" on these {of.utterances} test utterances" if of.utterances else ""
        told += f" No number of seeds up to {MANY_SEEDS} would tell the difference to {listed(never)}{why}."
    return told


def _with_utterances(comparison: Comparison, name: str, analysis: Analysis) -> str:
    """Return the name of what the reference is compared with, and how many test utterances would tell the two apart."""
    n = analysis.utterances_needed(comparison)
    return f"{name} (some {float(f'{n:.2g}'):,.0f} utterances would)" if n else name


def signed(value: float) -> str:
    """Return a number with one decimal, always with a sign; a dash for what is not known."""
    # the zero added makes a rounded -0.0 a plain zero
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") if pd.notna(value) else "–"


def p_value(value: float) -> str:
    """Return a p-value with three decimals; a dash for what is not known."""
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"

"""Numbers in words: differences in points, intervals, p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.design.factors import displayed
from study.findings.statistics import Difference

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


def points(difference: Difference, *, turned: bool = False) -> str:
    """Return a difference of fractions in percentage points, with its interval where it has one.

    Args:
        difference: first less second.
        turned: whether to say second less first.
    """
    mean = -difference.mean if turned else difference.mean
    return f"{signed(100 * mean)} {ends(difference, turned=turned)}".rstrip()


def ends(difference: Difference, *, turned: bool = False) -> str:
    """Return both ends of a difference's interval in points; empty: it has none."""
    low, high = (-difference.high, -difference.low) if turned else (difference.low, difference.high)
    return f"[{signed(100 * low)}, {signed(100 * high)}]" if pd.notna(low) else ""


def signed(value: float) -> str:
    """Return a number with one decimal, always with a sign; a dash for what is not known."""
    # the zero added makes a rounded -0.0 a plain zero
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−") if pd.notna(value) else "–"


def p_value(value: float) -> str:
    """Return a p-value with three decimals; a dash for what is not known."""
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"

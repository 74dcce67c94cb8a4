"""What a block says to its question, in words: its best configuration, and every difference with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.results import AboutBlock, plain_value
from study.findings.wording import (
    TRANSDUCTIVE,
    WHOSE,
    chances_told,
    difference_told,
    in_words,
    listed,
    more_told,
    p_value,
    points,
    points_of,
    seeds_in_words,
    turned,
)

_MANY = 10
"""Differences of one verdict that are named; more are counted, and the table has them."""


@dataclass(frozen=True)
class Answer:
    """A block's question and what the study says to it.

    Attributes:
        block: its name.
        question: of the block.
        lines: the answer, in sentences.
    """

    block: str
    question: str
    lines: tuple[str, ...]


def answers(analysis: Analysis) -> list[Answer]:
    """Return the answer of every block whose configurations are compared and about which no paper claims anything.

    Args:
        analysis: of the study.
    """
    from study.papers.cemobam import paper  # noqa: PLC0415

    claimed = {block.name for block in paper.blocks}
    blocks = analysis.results.about.blocks
    return [
        Answer(block.name, block.question or _question(block), tuple(_lines(analysis, block)))
        for block in blocks
        if block.compared and block.name not in claimed
    ]


def _question(block: AboutBlock) -> str:
    """Return the question of a block that has none."""
    if block.columns == ("profile",):
        return f"{block.title}: which configuration is best?"
    return f"Which {listed(list(map(in_words, block.columns)))} {'is' if len(block.columns) == 1 else 'are'} best?"


def _lines(analysis: Analysis, block: AboutBlock) -> list[str]:
    results, metric = analysis.results, analysis.metric
    frame = results.block(block.name)
    if frame.empty:
        pair = results.about.at if block.needs_pair else None
        where = f" at K {pair}, the study's pair: run it with --blocks {block.name}, or give --at" if pair else ""
        return [f"No configuration is done with a seed yet{where}."]
    if len(frame) == 1:
        row = frame.iloc[0]
        there = "there is nothing to compare it with" if len(block.rows) == 1 else "the others are not done yet"
        return [f"{_told(block, row)}: {_on_test(analysis, row)}; {there}."]
    lines = [_best(analysis, block, frame), *_transductive(analysis, block)]
    made = analysis.of(block.name).get(metric, [])
    if not made:
        return [*lines, f"{_name(block, results.keys(block)[block.reference])}, the reference, is not done yet."]
    names = {block.name_of(key): _name(block, key) for key in results.keys(block)}
    short = {block.name_of(key): block.brief(key) for key in results.keys(block)}
    first, rope = names[made[0].first], points_of(results.about.rope)
    lines += [_differs(c, names) for c in made if c.verdict in ("better", "worse")]
    corrected = f", p after Holm's correction over {len(made)}" if len(made) > 1 else ""
    known = any(pd.notna(c.difference.low) for c in made)
    interval = f", 95% interval for {WHOSE[made[0].decided_by]}" if known else ""
    of = f"points of {MEASURES[metric]}{interval}{corrected}"
    if same := [c for c in made if c.verdict == "equivalent"]:
        lines.append(f"Practically the same as {first}, within {rope} ({of}): {_row(same, short)}.")
    if undecided := [c for c in made if c.verdict == "undecided"]:
        more = more_told([(c, short[c.second]) for c in undecided], analysis)
        lines.append(f"Undecided beside {first} ({of}): {_row(undecided, short)}.{more}")
    if untested := [c for c in made if c.verdict == "not tested"]:
        lines.append(
            f"Beside {first} (points of {MEASURES[metric]}): {_row(untested, short)}. One seed cannot tell a "
            "difference from luck."
        )
    return lines


def _transductive(analysis: Analysis, block: AboutBlock) -> list[str]:
    """Return a sentence about the configurations that are transductive beside others; none if no one is."""
    of = zip(analysis.results.keys(block), analysis.results.marked(block), strict=True)
    if not (names := [_name(block, key) for key, marked in of if marked]):
        return []
    return [f"Transductive, with the evaluation graph joint: {listed(names)}. There {TRANSDUCTIVE}."]


def _name(block: AboutBlock, key: Sequence[Any]) -> str:
    """Return the name of a configuration in a sentence; one that may be a sentence itself stands in quotes."""
    return f"“{block.told(key)}”" if block.columns == ("profile",) else block.told(key)


def _best(analysis: Analysis, block: AboutBlock, frame: pd.DataFrame) -> str:
    """Return which configuration the split that chooses says is best, and how the test split sees it."""
    about, metric = analysis.results.about, analysis.metric
    fewest = min(block.n_seeds) if about.looks else frame["n_seeds"].max()
    full = frame[frame["n_seeds"] >= fewest]  # none is best by having fewer seeds
    best, highest = (
        full.iloc[int(full[f"{on}_{metric}_mean"].to_numpy().round(12).argmax())] for on in (about.select_on, "test")
    )
    split = "validation" if about.select_on == "val" else "test"
    line = f"By {split} {MEASURES[metric]}, {_told(block, best)} is best: {_on_test(analysis, best)}."
    if highest[f"test_{metric}_mean"] > best[f"test_{metric}_mean"] + 5e-4:
        line += (
            f" On test, {_told(block, highest)} has the highest mean, {100 * highest[f'test_{metric}_mean']:.1f}, "
            "but the test split must not choose."
        )
    return line


def _told(block: AboutBlock, row: pd.Series) -> str:
    """Return the name of the configuration of a row of a block's frame."""
    return _name(block, [plain_value(row[column]) for column in block.columns])


def _on_test(analysis: Analysis, row: pd.Series) -> str:
    metric = analysis.metric
    return (
        f"{MEASURES[metric]} {100 * row[f'test_{metric}_mean']:.1f} on test over {seeds_in_words(int(row['n_seeds']))}"
    )


def _differs(comparison: Comparison, names: dict[str, str]) -> str:
    said = difference_told(
        turned(comparison.difference),
        names[comparison.second],
        names[comparison.first],
        whose=WHOSE[comparison.decided_by],
        p=comparison.p_holm,
        holm=comparison.p_holm > comparison.p,
        other=turned(comparison.other) if comparison.other else None,
    )
    return f"{said}. {chances_told(comparison, turned=True)}."


def _row(comparisons: list[Comparison], names: dict[str, str]) -> str:
    told = [
        f"{names[c.second]} ({points(turned(c.difference))}{'' if np.isnan(c.p_holm) else f', p {p_value(c.p_holm)}'})"
        for c in comparisons[:_MANY]
    ]
    more = [f"and {len(comparisons) - _MANY} more"] if len(comparisons) > _MANY else []
    return "; ".join([*told, *more])

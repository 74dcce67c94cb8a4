"""What a block says to its question, in words: its best configuration, and every difference with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.results import AboutBlock, plain_value
from study.findings.statistics import LEVEL
from study.findings.wording import ends, in_words, listed, p_value, points, seeds_in_words, signed

_MANY = 10
"""Differences within noise that are named; more are counted, and the table has them."""


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
    lines = [_best(analysis, block, frame)]
    made = analysis.of(block.name).get(metric, [])
    if not made:
        return [*lines, f"{_name(block, results.keys(block)[block.reference])}, the reference, is not done yet."]
    names = {block.name_of(key): _name(block, key) for key in results.keys(block)}
    short = {block.name_of(key): block.brief(key) for key in results.keys(block)}
    first = names[made[0].first]
    lines += [_differs(c, names) for c in made if c.p_holm < LEVEL]
    if unsure := [c for c in made if c.p_holm >= LEVEL]:
        holm = f", p after Holm's correction over {len(made)}" if len(made) > 1 else ""
        lines.append(f"Within noise of {first} (points of {MEASURES[metric]}{holm}): {_row(unsure, short)}.")
    if untested := [c for c in made if np.isnan(c.p_holm)]:
        lines.append(
            f"Beside {first} (points of {MEASURES[metric]}): {_row(untested, short)}. One seed cannot tell a "
            "difference from luck."
        )
    return lines


def _name(block: AboutBlock, key: Sequence[Any]) -> str:
    """Return the name of a configuration in a sentence; one that may be a sentence itself stands in quotes."""
    return f"“{block.told(key)}”" if block.columns == ("profile",) else block.told(key)


def _best(analysis: Analysis, block: AboutBlock, frame: pd.DataFrame) -> str:
    """Return which configuration the split that chooses says is best, and how the test split sees it."""
    about, metric = analysis.results.about, analysis.metric
    full = frame[frame["n_seeds"] == frame["n_seeds"].max()]  # none is best by having fewer seeds
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
    more = "more" if comparison.difference.mean < 0 else "less"
    both = ends(comparison.difference, turned=True)
    size = signed(-100 * comparison.difference.mean)
    return (
        f"{names[comparison.second]} scores {more} than {names[comparison.first]}: {size} points"
        f"{f', 95% interval {both}' if both else ''} (p {p_value(comparison.p_holm)}, "
        f"{seeds_in_words(comparison.difference.n)}{_corrected(comparison)})."
    )


def _row(comparisons: list[Comparison], names: dict[str, str]) -> str:
    told = [
        f"{names[c.second]} ({points(c.difference, turned=True)}"
        f"{'' if np.isnan(c.p_holm) else f', p {p_value(c.p_holm)}'}{_corrected(c)})"
        for c in comparisons[:_MANY]
    ]
    more = [f"and {len(comparisons) - _MANY} more"] if len(comparisons) > _MANY else []
    return "; ".join([*told, *more])


def _corrected(comparison: Comparison) -> str:
    """Return what a reader must know of a difference that is not the table's."""
    if not comparison.corrected:
        return ""
    return f"; corrected for having chosen K, {signed(-100 * comparison.raw)} in the table"

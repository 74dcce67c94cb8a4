"""The answer of a block to its question: its best configuration, and every difference with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.results import AboutBlock, plain_value
from study.findings.wording import (
    INTERVALS,
    TRANSDUCTIVE,
    comparison_sentence,
    in_words,
    interval,
    listed,
    more_or_less,
    needed_sentences,
    p_value,
    points_of,
    probability_sentence,
    reverse,
    seeds_in_words,
)

_MANY = 10
"""Differences of one verdict that an answer names. It counts the others, which are in the table."""


@dataclass(frozen=True)
class Answer:
    """A block's question and the answer of the study.

    Attributes:
        block: The block's name.
        question: The block's question.
        lines: The answer, in sentences.
        method: Sentences about tests and intervals. Empty if nothing is tested.
    """

    block: str
    question: str
    lines: tuple[str, ...]
    method: str


def answers(analysis: Analysis) -> list[Answer]:
    """Return the answer of every compared block that no claim of a paper is about.

    Args:
        analysis: The analysis of the study.
    """
    from study.papers.cemobam import paper  # noqa: PLC0415

    claimed = {block.name for block in paper.blocks}
    return [
        Answer(block.name, block.question or _question(block), tuple(_lines(analysis, block)), _method(analysis, block))
        for block in analysis.results.about.blocks
        if block.compared and block.name not in claimed
    ]


def _question(block: AboutBlock) -> str:
    """Return the question of a block that has none."""
    if block.columns == ("profile",):
        return f"{block.title}: which configuration is best?"
    return f"Which {listed(list(map(in_words, block.columns)))} {'is' if len(block.columns) == 1 else 'are'} best?"


def _lines(analysis: Analysis, block: AboutBlock) -> list[str]:
    results = analysis.results
    frame = results.block(block.name)
    if frame.empty:
        pair = results.about.at if block.needs_pair else None
        at = f" at K {pair}, the pair of the study. Run it with --blocks {block.name}, or give --at" if pair else ""
        return [f"No configuration has a finished seed{at}."]
    if len(frame) == 1:
        row = frame.iloc[0]
        rest = "There is no other to compare it with" if len(block.rows) == 1 else "The others are not finished"
        return [f"{_row_name(block, row)} reaches {_on_test(analysis, row)}. {rest}."]
    lines = [*_best(analysis, block, frame), *_transductive(analysis, block)]
    made = analysis.of(block.name).get(analysis.metric, [])
    if not made:
        return [*lines, f"The reference, {_name(block, results.keys(block)[block.reference])}, is not finished."]
    names = {block.name_of(key): _name(block, key) for key in results.keys(block)}
    for c in made:
        if c.verdict in ("better", "worse"):
            second = names[c.second]
            sentence = comparison_sentence(c, second, names[c.first], turn=True)
            lines.append(f"{sentence} {probability_sentence(c, second, turn=True)}")
    short = {block.name_of(key): block.brief(key) for key in results.keys(block)}
    return [*lines, *_not_decided(analysis, made, names[made[0].first], short)]


def _not_decided(analysis: Analysis, made: Sequence[Comparison], first: str, names: dict[str, str]) -> list[str]:
    """Return the configurations that are not better or worse than the first, by verdict."""
    lines = []
    if same := [c for c in made if c.verdict == "equivalent"]:
        within = points_of(analysis.results.about.rope)
        lines.append(f"The same as {first} within {within}: {_differences(same, names)}.")
    if undecided := [c for c in made if c.verdict == "undecided"]:
        needed = needed_sentences([(c, names[c.second]) for c in undecided], analysis)
        lines.append(" ".join([f"Undecided, compared with {first}: {_differences(undecided, names)}.", *needed]))
    if untested := [c for c in made if c.verdict == "not tested"]:
        lines.append(
            f"Not tested, compared with {first}: {_differences(untested, names)}. One seed cannot show a difference."
        )
    return lines


def _method(analysis: Analysis, block: AboutBlock) -> str:
    """Return sentences on how the differences of a block are tested. Empty if they are not."""
    made = analysis.of(block.name).get(analysis.metric, [])
    if not made or all(np.isnan(c.difference.p) for c in made):
        return ""
    corrected = f", with Holm's correction over the {len(made)} comparisons of the block" if len(made) > 1 else ""
    return (
        f"Differences are in points of {MEASURES[analysis.metric]} on test, paired by seed{corrected}. "
        f"{INTERVALS[made[0].decided_by]}"
    )


def _transductive(analysis: Analysis, block: AboutBlock) -> list[str]:
    """Return a sentence about the transductive configurations among others. Empty if there are none."""
    of = zip(analysis.results.keys(block), analysis.results.marked(block), strict=True)
    names = [_name(block, key) for key, marked in of if marked]
    return [f"Evaluation graph joint: {listed(names)}. There, {TRANSDUCTIVE}."] if names else []


def _name(block: AboutBlock, key: Sequence[Any]) -> str:
    """Return a configuration's name in a sentence. A name that may itself be a sentence is quoted."""
    return f"“{block.told(key)}”" if block.columns == ("profile",) else block.told(key)


def _best(analysis: Analysis, block: AboutBlock, frame: pd.DataFrame) -> list[str]:
    """Return the best configuration on the split that chooses, and its score on test."""
    about, metric = analysis.results.about, analysis.metric
    fewest = min(block.n_seeds) if about.looks else frame["n_seeds"].max()
    full = frame[frame["n_seeds"] >= fewest]  # fewer seeds must not win
    best, highest = (
        full.iloc[int(full[f"{on}_{metric}_mean"].to_numpy().round(12).argmax())] for on in (about.select_on, "test")
    )
    split = "validation" if about.select_on == "val" else "test"
    lines = [f"{_row_name(block, best)} is best by {split} {MEASURES[metric]}. It reaches {_on_test(analysis, best)}."]
    if highest[f"test_{metric}_mean"] > best[f"test_{metric}_mean"] + 5e-4:
        mean = f"{100 * highest[f'test_{metric}_mean']:.1f}"
        lines.append(
            f"{_row_name(block, highest)} has the highest mean on test ({mean}), but the test split must not choose."
        )
    return [" ".join(lines)]


def _row_name(block: AboutBlock, row: pd.Series) -> str:
    """Return the name of the configuration in a row of a block's frame."""
    return _name(block, [plain_value(row[column]) for column in block.columns])


def _on_test(analysis: Analysis, row: pd.Series) -> str:
    metric, n = analysis.metric, int(row["n_seeds"])
    over = f"mean over {seeds_in_words(n)}" if n > 1 else "1 seed"
    return f"{MEASURES[metric]} {100 * row[f'test_{metric}_mean']:.1f} on test ({over})"


def _differences(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    """Return how much more or less than the first each second scores, with intervals and p-values."""
    made = []
    for c in comparisons[:_MANY]:
        ends, parts = interval(reverse(c.difference)), [more_or_less(-c.difference.mean)]
        if ends:
            parts.append(f"95% interval {ends}")
        if not np.isnan(c.p_holm):
            parts.append(f"p {p_value(c.p_holm)}")
        made.append(f"{names[c.second]} ({'; '.join(parts)})")
    rest = len(comparisons) - _MANY
    return f"{', '.join(made)}{f', and {rest} more' if rest > 0 else ''}"

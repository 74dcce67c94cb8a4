"""The printed form of a study's results: a few lines, and a row for each block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from study.findings.wording import cut, seeds_in_words

if TYPE_CHECKING:
    from study.findings.results import AboutBlock, Results


def overview(results: Results) -> tuple[list[str], pd.DataFrame, str]:
    """Return lines on the whole study, a table with a row for each block, and a line on where the numbers are."""
    about = results.about
    table = pd.DataFrame(
        [
            {
                "block": block.name,
                "varies": block.head,
                "configurations": len(block.rows),
                "seeds": len(block.seeds),
                "trials done": f"{_done(results, block)} of {sum(block.n_seeds) * about.folds}",
                "reference": cut(block.told(results.keys(block)[block.reference])),
                "its test WA": _reference(results, block),
            }
            for block in about.blocks
        ]
    )
    frames = "Frames: .trials has a row per trial; .block(NAME) has the means of a block. Metrics are fractions."
    return [_counts(results), *_own(results)], table, frames


def _counts(results: Results) -> str:
    failed = results.trials[results.trials["status"] == "failed"]
    line = f"{results.about.title}, profile {results.about.profile}: {len(results.trials) - len(failed)} trials done"
    if failed.empty:
        return line
    most = failed["reason"].value_counts().index[0]
    return f"{line}, {len(failed)} failed ({most}); run the study again to try them again"


def _own(results: Results) -> list[str]:
    """Return the pair and the scores of the study's own configuration at it. Empty if there is no pair."""
    about = results.about
    if about.at is None:
        return []
    line = f"K_audio = {about.at.k_audio}, K_text = {about.at.k_text} ({about.how})"
    if results.own.empty:
        return [line]
    row = results.own.iloc[0]
    scores = ", ".join(
        f"{label} {_percent(row[f'test_{name}_mean'], row[f'test_{name}_std'])}"
        for name, label in results.measures.items()
    )
    return [f"{line}: test {scores} over {seeds_in_words(int(row['n_seeds']))}"]


def _done(results: Results, block: AboutBlock) -> int:
    return int((results.trials_of(block.name)["status"] == "done").sum())


def _reference(results: Results, block: AboutBlock) -> str:
    """Return the test WA of a block's reference, over the block's seeds."""
    known = results.by_seed(block, "test_wa")[block.reference].dropna()
    return _percent(known.mean(), known.std()) if len(known) else ""


def _percent(mean: float, deviation: float) -> str:
    """Return a mean and its standard deviation over seeds in percent. One seed has no deviation."""
    return f"{100 * mean:.1f}" + ("" if pd.isna(deviation) else f" ± {100 * deviation:.1f}")

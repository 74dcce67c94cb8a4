"""What comes out of a study: files made from the ledger alone, and a summary to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cemobam_core.config import FUSIONS, MODULES
from cemobam_core.files import written_atomically
from study import figures
from study.aggregate import aggregate, aggregate_grid, trials_frame
from study.design import BLOCKS, Pair, Trial, distinct
from study.driver import StudyRun
from study.tables import MEASURES, Table, comparison, gaps_table


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """All that a study has to show so far; whatever block has no trial yet is absent.

    Attributes:
        title: the data set, as tables show it.
        trials: a row per trial.
        grid: a row per K pair; None: no trial of the grid is done.
        tables: Table I, Table II, the gaps.
        chosen: the pair of the blocks after the grid; None: not chosen yet.
        how: how it was chosen.
        summary: what to print, paragraph by paragraph.
        seeds: how many each configuration should have.
    """

    title: str
    trials: pd.DataFrame
    grid: pd.DataFrame | None
    tables: tuple[Table, ...]
    chosen: Pair | None
    how: str
    summary: tuple[str, ...]
    seeds: int

    def write(self, results: Path, plots: Path) -> list[Path]:
        """Write every file, each as a whole: trials, grid and tables into ``results``, figures into ``plots``.

        Raises:
            OSError: a folder that cannot be written to, a full disk; files already written stay.
        """
        written = [_write_csv(self.trials, results / "trials.csv")]
        if self.grid is not None:
            written.append(_write_csv(self.grid, results / "grid.csv"))
            figure = figures.topk_heatmap(self.grid, self.chosen, title=self.title, seeds=self.seeds, how=self.how)
            written += figures.save(figure, plots / "fig2_topk")
        for table in self.tables:
            written += table.write(results)
            if table.name == "gaps":
                written += figures.save(figures.gaps_figure(table.frame, title=self.title), plots / "gaps")
        return written


def make_report(run: StudyRun) -> Report:
    """Put together what the ledger knows of a plan's design, whatever blocks the plan runs."""
    facts, plan, pair = run.facts, run.plan, run.pair()
    outcomes, seeds = run.outcomes, len(run.plan.design.seeds)

    def frame(trials: Sequence[Trial]) -> pd.DataFrame:
        return trials_frame(trials, outcomes, facts)

    trials = frame(distinct(trial for block in BLOCKS for trial in run.trials(block)))
    grid = aggregate_grid(frame(run.trials("grid")), facts.folds)
    tables = []
    where = f"{facts.title}, K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else ""
    over = f"test split, percent, mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}"
    for block, name, key, variants, what in (
        ("fusion", "table1", "fusion", FUSIONS, "Fusion strategies"),
        ("ablation", "table2", "modules", MODULES, "Ablation"),
    ):
        summary = aggregate(frame(run.trials(block)), [key], facts.folds)
        if summary.empty or not run.concerns(block):
            continue
        caption = f"{what} ({where}): {over}"
        tables.append(
            comparison(summary, key, variants, name=name, caption=caption, dataset=facts.dataset, seeds=seeds)
        )
    between = frame(run.trials("gaps"))
    if run.concerns("gaps") and (between["status"] == "done").any():
        caption = f"What each gap between text and code costs ({where}): {over}"
        tables.append(gaps_table(between, caption=caption, seeds=seeds, folds=facts.folds))
    on = "validation" if plan.select_on == "val" else "the test split, as the released code does"
    how = "given" if plan.at else f"chosen on {on}"
    return Report(
        title=facts.title,
        trials=trials,
        grid=None if grid.empty else grid,
        tables=tuple(tables),
        chosen=pair,
        how=how,
        summary=(
            *_counts(run),
            *_chosen(grid, pair, how if plan.at else f"{how} by {MEASURES[plan.select_by]}"),
            *(table.markdown().rstrip() for table in tables),
        ),
        seeds=seeds,
    )


def _counts(run: StudyRun) -> list[str]:
    asked, done = run.counts()
    outcomes = run.outcomes
    known = [
        outcomes.get(trial.signature(run.facts.fingerprint))
        for trial in distinct(trial for block in run.plan.blocks for trial in run.trials(block))
    ]
    failed = [outcome for outcome in known if outcome and outcome.status == "failed"]
    line = f"{run.facts.title}: {done} of {asked} trials done"
    if failed:
        line += f", {len(failed)} failed (the next run tries them again)"
    if waiting := asked - done - len(failed):
        line += f", {waiting} not run yet"
    reasons = Counter(outcome.reason for outcome in failed)
    return [line, *(f"failed {times} times: {reason}" for reason, times in reasons.most_common(10))]


def _chosen(grid: pd.DataFrame, pair: Pair | None, how: str) -> list[str]:
    if pair is None:
        return ["No K pair is chosen yet: that takes every seed of at least one pair, and all of the grid run."]
    line = f"K_audio = {pair.k_audio}, K_text = {pair.k_text} ({how})"
    row = grid[(grid["k_audio"] == pair.k_audio) & (grid["k_text"] == pair.k_text)]
    if row.empty:
        return [line]
    record = row.iloc[0]
    figures_ = ", ".join(_figure(record, f"test_{measure}", label) for measure, label in MEASURES.items())
    return [f"{line}: test {figures_} over {int(record['n_seeds'])} seeds"]


def _figure(record: pd.Series, metric: str, label: str) -> str:
    mean, std = 100 * record[f"{metric}_mean"], 100 * record[f"{metric}_std"]
    return f"{label} {mean:.2f}" + (f" ± {std:.2f}" if pd.notna(std) else "")


def _write_csv(frame: pd.DataFrame, path: Path) -> Path:
    with written_atomically(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path

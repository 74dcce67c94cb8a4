"""What comes out of a study: files made from the ledger alone, and a summary to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cemobam_core.config import FUSIONS, MODULES
from cemobam_core.files import written_atomically
from study import figures
from study.aggregate import aggregate, aggregate_grid, trials_frame
from study.design import BLOCKS, Pair, Trial, distinct
from study.driver import StudyRun
from study.tables import MEASURES, TABLE_FORMS, Table, comparison, gaps_table

TABLES = ("table1", "table2", "gaps")
FIGURES = ("fig2_topk", "gaps")


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """All that a study has to show so far; whatever block has no trial yet is absent.

    Attributes:
        trials: a row per trial.
        grid: a row per K pair; None: no trial of the grid is done.
        tables: by name, of :data:`TABLES`.
        figures: by name, of :data:`FIGURES`.
        summary: what to print, paragraph by paragraph.
    """

    trials: pd.DataFrame
    grid: pd.DataFrame | None
    tables: dict[str, Table]
    figures: dict[str, Figure]
    summary: tuple[str, ...]

    def write(self, results: Path, plots: Path) -> list[Path]:
        """Write every file, each as a whole: trials, grid and tables into ``results``, figures into ``plots``.

        What an earlier report left there and this one does not have is removed: it would be of other trials.

        Raises:
            OSError: a folder that cannot be written to, a full disk; files already written stay.
        """
        written = [_write_csv(self.trials, results / "trials.csv")]
        if self.grid is not None:
            written.append(_write_csv(self.grid, results / "grid.csv"))
        for table in self.tables.values():
            written += table.write(results)
        for name, figure in self.figures.items():
            written += figures.save(figure, plots / name)
        possible = [results / "grid.csv"]
        possible += [results / f"{name}.{form}" for name in TABLES for form in TABLE_FORMS]
        possible += [plots / f"{name}.{form}" for name in FIGURES for form in figures.FORMS]
        for path in set(possible) - set(written):
            path.unlink(missing_ok=True)
        return written


def make_report(run: StudyRun) -> Report:
    """Put together what the ledger knows of a plan's design, whatever blocks the plan runs."""
    facts, plan, pair = run.facts, run.plan, run.pair()
    outcomes, seeds = run.outcomes, len(run.plan.design.seeds)

    def frame(trials: Sequence[Trial]) -> pd.DataFrame:
        return trials_frame(trials, outcomes, facts)

    trials = frame(distinct(trial for block in BLOCKS for trial in run.trials(block)))
    grid = aggregate_grid(frame(run.trials("grid")), facts.folds)
    tables, drawn = {}, {}
    where = f"{facts.title}, K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else ""
    over = f"test split, percent, mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}"
    for block, name, key, variants, what in (
        ("fusion", "table1", "fusion", FUSIONS, "Fusion strategies"),
        ("ablation", "table2", "modules", MODULES, "Ablation"),
    ):
        summary = aggregate(frame(run.trials(block)), [key], facts.folds)
        if run.concerns(block) and not summary.empty:
            caption = f"{what} ({where}): {over}"
            tables[name] = comparison(
                summary, key, variants, name=name, caption=caption, dataset=facts.dataset, seeds=seeds
            )
    between = frame(run.trials("gaps"))
    if run.concerns("gaps") and (between["status"] == "done").any():
        caption = f"What each gap between text and code costs ({where}): {over}"
        tables["gaps"] = gaps_table(between, caption=caption, seeds=seeds, folds=facts.folds)
        drawn["gaps"] = figures.gaps_figure(tables["gaps"].frame, title=facts.title)
    on = "validation" if plan.select_on == "val" else "the test split, as the released code does"
    how = "given" if plan.at else f"chosen on {on}"
    shows_grid = run.concerns("grid") and not grid.empty
    if shows_grid:
        drawn["fig2_topk"] = figures.topk_heatmap(
            grid,
            pair,
            title=facts.title,
            seeds=seeds,
            k_audio=plan.design.k_audio,
            k_text=plan.design.k_text,
            how=how,
        )
    return Report(
        trials=trials,
        grid=grid if shows_grid else None,
        tables=tables,
        figures=drawn,
        summary=(
            *_counts(run),
            *_chosen(grid, pair, how if plan.at else f"{how} by {MEASURES[plan.select_by]}"),
            *(table.markdown().rstrip() for table in tables.values()),
        ),
    )


def _counts(run: StudyRun) -> list[str]:
    asked, done = run.counts()
    known = run.known(trial for block in run.plan.blocks for trial in run.trials(block))
    failed = [outcome for outcome in known.values() if outcome.status == "failed"]
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

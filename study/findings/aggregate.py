"""From trials to means over seeds: the frames that tables and figures are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from cemobam_core.config import Metric, Split
from study.design import Pair, Trial
from study.findings.statistics import SHARES, Range, interval_ends
from study.ledger.outcomes import METRICS, Outcome, StudyFacts

COLUMNS = (
    *("dataset", "profile", "k_audio", "k_text", "fusion", "modules", "fold", "seed"),
    *("status", "epochs", "seconds", "device"),
    *METRICS,
    "reason",
    "log",
)
PAIR = ["k_audio", "k_text"]

_LOSSES: Range = (0.0, float("inf"))


def trials_frame(trials: Iterable[Trial], outcomes: Mapping[str, Outcome], facts: StudyFacts) -> pd.DataFrame:
    """One row per trial that the ledger knows, in the order of the trials' settings.

    Args:
        trials: the trials asked for; those without an outcome have no row.
        outcomes: by signature.
        facts: of the study, as the ledger keeps them.

    Returns:
        A frame with :data:`COLUMNS`; metrics are fractions, and missing where a trial failed.
    """
    rows = [
        {
            "dataset": facts.dataset,
            "profile": trial.configuration.profile,
            **trial.parameters,
            "status": outcome.status,
            "epochs": trial.configuration.training.epochs,
            "seconds": outcome.seconds,
            "device": outcome.device,
            **outcome.metrics,
            "reason": outcome.reason,
            "log": outcome.log,
        }
        for trial in trials
        if (outcome := outcomes.get(trial.signature(facts.fingerprint)))
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values([*PAIR, "fusion", "modules", "fold", "seed"], ignore_index=True)


def aggregate(trials: pd.DataFrame, by: Sequence[str], folds: int) -> pd.DataFrame:
    """Mean, sample standard deviation and 95% interval over seeds of every metric.

    With several folds a seed's figure is its mean over all folds, so the deviation is that between seeds; a seed that
    has not finished on every fold does not count.

    Args:
        trials: as :func:`trials_frame` gives them.
        by: the columns that tell configurations apart.
        folds: how many folds a complete seed has.

    Returns:
        One row per configuration: ``by``, ``n_seeds``, ``<metric>_mean``, ``<metric>_std``, then ``<metric>_low`` and
        ``<metric>_high`` of the interval by Student's t, within 0 and 1 where the metric is a share. One seed has no
        deviation, and fewer than three have no interval.
    """
    grouped = per_seed(trials, by, folds).groupby(list(by))[list(METRICS)]
    mean, std, n_seeds = grouped.mean(), grouped.std(ddof=1), grouped.size()
    low, high = mean.copy(), mean.copy()
    for metric in METRICS:
        within = _LOSSES if metric.endswith("_loss") else SHARES
        low[metric], high[metric] = interval_ends(mean[metric], std[metric], n_seeds, within)
    figures = {"mean": mean, "std": std, "low": low, "high": high}
    columns = [f"{metric}_{x}" for pair in (("mean", "std"), ("low", "high")) for metric in METRICS for x in pair]
    frame = pd.concat([values.add_suffix(f"_{figure}") for figure, values in figures.items()], axis=1)[columns]
    frame.insert(0, "n_seeds", n_seeds)
    return frame.reset_index()


def per_seed(trials: pd.DataFrame, by: Sequence[str], folds: int) -> pd.DataFrame:
    """Every seed's figures, its mean over folds; without the seeds that have not finished on every fold.

    Args:
        trials: as :func:`trials_frame` gives them.
        by: the columns that tell configurations apart.
        folds: how many folds a complete seed has.

    Returns:
        One row per configuration and seed: ``by``, ``seed``, the metrics.
    """
    done = trials[trials["status"] == "done"]
    grouped = done.groupby([*by, "seed"])
    means = grouped[list(METRICS)].mean()
    return means[grouped.size() == folds].reset_index()


def aggregate_grid(trials: pd.DataFrame, folds: int) -> pd.DataFrame:
    """The grid's trials by pair: what ``grid.csv`` holds."""
    return aggregate(trials, PAIR, folds)


def chosen_pair(grid: pd.DataFrame, *, select_by: Metric, seeds: int, select_on: Split = "val") -> Pair | None:
    """The pair with the highest mean; the smaller K where means are equal.

    Args:
        grid: aggregated by pair.
        select_by: the metric.
        seeds: how many seeds a pair must have to be chosen, so that no pair wins by having fewer.
        select_on: the split; ``test`` is what the released code does, and optimistic.

    Returns:
        None when no pair has all its seeds.
    """
    complete = grid[grid["n_seeds"] == seeds]
    if complete.empty:
        return None
    # Rounding lets equal counts of right utterances be equal means, whatever the order of the sum.
    ranked = complete.assign(score=complete[f"{select_on}_{select_by}_mean"].round(12))
    best = ranked.sort_values(["score", *PAIR], ascending=[False, True, True]).iloc[0]
    return Pair(int(best["k_audio"]), int(best["k_text"]))

"""Means over seeds: the frames that tables and figures are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from study.design.factors import Pair
from study.findings.statistics import SHARES, Range, interval_ends
from study.ledger.outcomes import METRICS, Metric, Outcome, Split, StudyFacts

if TYPE_CHECKING:
    from study.design.configuration import Configuration, Trial

PAIR = ["k_audio", "k_text"]

IDENTITY = ("profile", "system", *PAIR, "fusion", "modules")
"""The columns that distinguish configurations, beside the settings that a block of the study varies."""

_LOSSES: Range = (0.0, float("inf"))


def columns(factors: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the columns of ``trials.csv``.

    Args:
        factors: Settings that blocks vary beside :data:`IDENTITY`.
    """
    outcome = ("status", "epochs", "seconds", "device", "parameters", *METRICS, "reason", "log")
    return tuple(dict.fromkeys(("dataset", *IDENTITY, *factors, "fold", "seed", *outcome)))


def trials_frame(
    trials: Iterable[Trial], outcomes: Mapping[str, Outcome], facts: StudyFacts, factors: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row per trial that has an outcome, in the order of the trials' settings.

    Args:
        trials: Trials that were asked for. Those without an outcome have no row.
        outcomes: Outcomes by signature.
        facts: Facts that the ledger keeps about the study.
        factors: Settings that blocks vary beside :data:`IDENTITY`.

    Returns:
        A frame with :func:`columns`. Metrics are fractions, and missing if the trial failed. A setting is missing if
        the trial's system does not have it.
    """
    return trials_and_outcomes(trials, outcomes, facts, factors)[0]


def trials_and_outcomes(
    trials: Iterable[Trial], outcomes: Mapping[str, Outcome], facts: StudyFacts, factors: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Outcome]]:
    """Return the frame of :func:`trials_frame`, and the outcome of each of its rows."""
    names = (*IDENTITY, *factors, "epochs")

    @cache  # many trials have the same configuration
    def settings(configuration: Configuration) -> dict[str, Any]:
        return {name: configuration.get(name) for name in names}

    known = [(trial, outcome) for trial in trials if (outcome := outcomes.get(trial.signature(facts.fingerprint)))]
    rows = [
        {
            "dataset": facts.dataset,
            **settings(trial.configuration),
            "fold": trial.fold,
            "seed": trial.seed,
            "status": outcome.status,
            "seconds": outcome.seconds,
            "device": outcome.device,
            "parameters": outcome.parameters,
            **outcome.metrics,
            "reason": outcome.reason,
            "log": outcome.log,
        }
        for trial, outcome in known
    ]
    frame = whole_numbers(pd.DataFrame(rows, columns=list(columns(factors))))
    order = ["system", *PAIR, "fusion", "modules", *factors, "fold", "seed"]
    frame = frame.sort_values(order, kind="stable")
    return frame.reset_index(drop=True), [known[place][1] for place in frame.index]


def whole_numbers(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its whole numbers as integers, also in columns with missing values."""
    for name in set(trials.columns) - {*METRICS, "seconds"}:
        known = trials[name].dropna()
        if known.dtype == object:
            whole = len(known) > 0 and all(type(value) is int for value in known)
        else:
            whole = known.dtype == float and 0 < len(known) < len(trials) and bool((known % 1 == 0).all())
        if whole or (name == "parameters" and known.empty):  # integers even if no trial of the study has a value
            trials[name] = trials[name].astype("Int64")
    return trials


def aggregate(trials: pd.DataFrame, by: Sequence[str], folds: int) -> pd.DataFrame:
    """Return the mean, sample standard deviation and 95% interval over seeds of every metric.

    With several folds, the value of a seed is its mean over all folds, so the deviation is between seeds. A seed that
    is not done on every fold does not count.

    Args:
        trials: Frame of :func:`trials_frame`.
        by: Columns that distinguish configurations.
        folds: Number of folds of a complete seed.

    Returns:
        One row per configuration: ``by``, ``n_seeds``, ``<metric>_mean``, ``<metric>_std``, then ``<metric>_low`` and
        ``<metric>_high`` of the interval by Student's t. The interval is cut to 0 and 1 if the metric is a share. One
        seed has no deviation, and fewer than three seeds have no interval.
    """
    grouped = per_seed(trials, by, folds).groupby(list(by), dropna=False)[list(METRICS)]
    mean, std, n_seeds = grouped.mean(), grouped.std(ddof=1), grouped.size()
    mean = mean.where(grouped.count().eq(n_seeds, axis=0))  # earlier seeds lack a metric that was added later
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
    """Return the metrics of every seed, as means over folds. Seeds that are not done on every fold are left out.

    Args:
        trials: Frame of :func:`trials_frame`.
        by: Columns that distinguish configurations.
        folds: Number of folds of a complete seed.

    Returns:
        One row per configuration and seed: ``by``, ``seed``, and the metrics.
    """
    done = trials[trials["status"] == "done"]
    grouped = done.groupby([*by, "seed"], dropna=False)
    means = grouped[list(METRICS)].mean()
    return means[grouped.size() == folds].reset_index()


def chosen_pair(grid: pd.DataFrame, *, select_by: Metric, seeds: int, select_on: Split = "val") -> Pair | None:
    """Return the pair with the highest mean. If means are equal, the smaller K wins.

    Args:
        grid: Frame of :func:`aggregate` by pair.
        select_by: Metric that chooses.
        seeds: Number of seeds that a pair must have to be chosen, so that no pair wins by having fewer.
        select_on: Split that chooses. The released code uses ``test``, which is optimistic.

    Returns:
        The pair, or `None` if no pair has all its seeds.
    """
    complete = grid[(grid["n_seeds"] == seeds) & grid[PAIR].notna().all(axis=1)]
    if complete.empty:
        return None
    # Rounded, so that equal counts of correct utterances give equal means in any order of summation.
    ranked = complete.assign(score=complete[f"{select_on}_{select_by}_mean"].round(12))
    best = ranked.sort_values(["score", *PAIR], ascending=[False, True, True]).iloc[0]
    return Pair(int(best["k_audio"]), int(best["k_text"]))

"""From trials to means over seeds: the frames that tables and figures are made of."""

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
"""The columns that tell configurations apart, beside what a block of the study varies."""

_LOSSES: Range = (0.0, float("inf"))


def columns(factors: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the columns of ``trials.csv``.

    Args:
        factors: what blocks vary beside :data:`IDENTITY`.
    """
    outcome = ("status", "epochs", "seconds", "device", "parameters", *METRICS, "reason", "log")
    return tuple(dict.fromkeys(("dataset", *IDENTITY, *factors, "fold", "seed", *outcome)))


def trials_frame(
    trials: Iterable[Trial], outcomes: Mapping[str, Outcome], facts: StudyFacts, factors: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row per trial that the ledger knows, in the order of the trials' settings.

    Args:
        trials: the trials asked for; those without an outcome have no row.
        outcomes: by signature.
        facts: of the study, as the ledger keeps them.
        factors: what blocks vary beside :data:`IDENTITY`.

    Returns:
        A frame with :func:`columns`; metrics are fractions, and missing where a trial failed; a setting is missing
        where its system has no such choice.
    """
    return trials_and_outcomes(trials, outcomes, facts, factors)[0]


def trials_and_outcomes(
    trials: Iterable[Trial], outcomes: Mapping[str, Outcome], facts: StudyFacts, factors: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Outcome]]:
    """Return what :func:`trials_frame` does, and the outcome of each row."""
    names = (*IDENTITY, *factors, "epochs")

    @cache  # many trials have the same configuration
    def told(configuration: Configuration) -> dict[str, Any]:
        return {name: configuration.get(name) for name in names}

    known = [(trial, outcome) for trial in trials if (outcome := outcomes.get(trial.signature(facts.fingerprint)))]
    rows = [
        {
            "dataset": facts.dataset,
            **told(trial.configuration),
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
    """Return the frame with whole numbers as such, also where some rows have none."""
    for name in set(trials.columns) - {*METRICS, "seconds"}:
        known = trials[name].dropna()
        if known.dtype == object:
            whole = len(known) > 0 and all(type(value) is int for value in known)
        else:
            whole = known.dtype == float and 0 < len(known) < len(trials) and bool((known % 1 == 0).all())
        if whole or (name == "parameters" and known.empty):  # a study may have none, and has them all the same
            trials[name] = trials[name].astype("Int64")
    return trials


def aggregate(trials: pd.DataFrame, by: Sequence[str], folds: int) -> pd.DataFrame:
    """Return mean, sample standard deviation and 95% interval over seeds of every metric.

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
    grouped = per_seed(trials, by, folds).groupby(list(by), dropna=False)[list(METRICS)]
    mean, std, n_seeds = grouped.mean(), grouped.std(ddof=1), grouped.size()
    mean = mean.where(grouped.count().eq(n_seeds, axis=0))  # a metric that was added since has no mean over all seeds
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
    """Return every seed's figures, its mean over folds, without the seeds that have not finished on every fold.

    Args:
        trials: as :func:`trials_frame` gives them.
        by: the columns that tell configurations apart.
        folds: how many folds a complete seed has.

    Returns:
        One row per configuration and seed: ``by``, ``seed``, the metrics.
    """
    done = trials[trials["status"] == "done"]
    grouped = done.groupby([*by, "seed"], dropna=False)
    means = grouped[list(METRICS)].mean()
    return means[grouped.size() == folds].reset_index()


def chosen_pair(grid: pd.DataFrame, *, select_by: Metric, seeds: int, select_on: Split = "val") -> Pair | None:
    """Return the pair with the highest mean; the smaller K where means are equal.

    Args:
        grid: aggregated by pair.
        select_by: the metric.
        seeds: how many seeds a pair must have to be chosen, so that no pair wins by having fewer.
        select_on: the split; ``test`` is what the released code does, and optimistic.

    Returns:
        None when no pair has all its seeds.
    """
    complete = grid[(grid["n_seeds"] == seeds) & grid[PAIR].notna().all(axis=1)]
    if complete.empty:
        return None
    # Rounding lets equal counts of right utterances be equal means, whatever the order of the sum.
    ranked = complete.assign(score=complete[f"{select_on}_{select_by}_mean"].round(12))
    best = ranked.sort_values(["score", *PAIR], ascending=[False, True, True]).iloc[0]
    return Pair(int(best["k_audio"]), int(best["k_text"]))

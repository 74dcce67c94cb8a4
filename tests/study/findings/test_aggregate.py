from __future__ import annotations

import math

import pandas as pd
import pytest
from invented import invented

from study.design.design import ANY_PAIR
from study.design.factors import Pair
from study.driver import Plan
from study.findings.aggregate import PAIR, aggregate, chosen_pair, columns, trials_frame, whole_numbers
from study.ledger.outcomes import METRICS, Outcome, StudyFacts


def frame(rows: list[tuple[int, int, int, int, float]], status: str = "done") -> pd.DataFrame:
    """Return trials from rows of k_audio, k_text, seed, fold, and one value for all metrics."""
    return pd.DataFrame(
        [
            {"k_audio": a, "k_text": t, "seed": s, "fold": f, "status": status, **dict.fromkeys(METRICS, x)}
            for a, t, s, f, x in rows
        ]
    )


def test_mean_and_sample_deviation_by_hand() -> None:
    grid = aggregate(frame([(1, 1, 0, 0, 0.5), (1, 1, 1, 0, 0.7), (1, 1, 2, 0, 0.9), (1, 2, 0, 0, 0.4)]), PAIR, 1)
    assert grid["n_seeds"].tolist() == [3, 1]
    assert grid["test_wa_mean"].tolist() == pytest.approx([0.7, 0.4])
    assert grid.at[0, "val_loss_std"] == pytest.approx(0.2)
    assert pd.isna(grid.at[1, "val_loss_std"])
    assert list(grid.columns[:4]) == ["k_audio", "k_text", "n_seeds", "train_loss_mean"]


def test_intervals_stay_where_a_metric_can_be() -> None:
    grid = aggregate(frame([(1, 1, seed, 0, x) for seed, x in enumerate((1.0, 1.0, 0.9))]), PAIR, 1)
    assert grid.at[0, "test_wa_high"] == 1.0
    assert grid.at[0, "test_wa_low"] == pytest.approx(0.9667 - 4.3027 * 0.05774 / 3**0.5, abs=1e-3)
    assert grid.at[0, "test_loss_high"] > 1.0  # a loss is not a share
    low = aggregate(frame([(1, 1, seed, 0, x) for seed, x in enumerate((0.0, 0.0, 0.1))]), PAIR, 1)
    assert low.at[0, "test_wa_low"] == low.at[0, "test_loss_low"] == 0.0


def test_two_seeds_have_a_deviation_and_no_interval() -> None:
    grid = aggregate(frame([(1, 1, 0, 0, 0.5), (1, 1, 1, 0, 0.9)]), PAIR, 1)
    assert grid.at[0, "test_wa_std"] > 0
    ends = [column for column in grid if column.endswith(("_low", "_high"))]
    assert len(ends) == 2 * len(METRICS)
    assert grid[ends].isna().all(axis=None)


def test_folds_are_averaged_first_and_a_seed_counts_when_it_has_all() -> None:
    rows = [(1, 1, 0, 0, 0.4), (1, 1, 0, 1, 0.6), (1, 1, 1, 0, 0.8), (1, 1, 1, 1, 1.0), (1, 1, 2, 0, 0.1)]
    grid = aggregate(frame(rows), PAIR, 2)
    assert grid["n_seeds"].tolist() == [2]
    assert grid.at[0, "test_wa_mean"] == pytest.approx(0.7)
    assert grid.at[0, "test_wa_std"] == pytest.approx(0.4 / 2**0.5)


def test_failed_trials_do_not_count() -> None:
    both = pd.concat([frame([(1, 1, 0, 0, 0.5)]), frame([(1, 1, 1, 0, 0.9)], status="failed")])
    assert aggregate(both, PAIR, 1)["n_seeds"].tolist() == [1]
    assert aggregate(both[both["status"] == "failed"], ["k_audio"], 1).empty


def test_the_highest_validation_mean_is_chosen_and_equals_go_to_the_smaller_k() -> None:
    grid = aggregate(frame([(2, 1, 0, 0, 0.1 + 0.2), (1, 3, 0, 0, 0.3), (1, 2, 0, 0, 0.3), (1, 1, 0, 0, 0.2)]), PAIR, 1)
    assert chosen_pair(grid, select_by="wa", seeds=1) == Pair(1, 2)


def test_no_pair_wins_by_having_fewer_seeds() -> None:
    grid = aggregate(frame([(1, 1, 0, 0, 0.9), (2, 1, 0, 0, 0.5), (2, 1, 1, 0, 0.5)]), PAIR, 1)
    assert chosen_pair(grid, select_by="wa", seeds=2) == Pair(2, 1)
    assert chosen_pair(grid, select_by="wa", seeds=3) is None


def test_it_is_the_validation_split_that_chooses() -> None:
    rows = frame([(1, 1, 0, 0, 0.5), (2, 2, 0, 0, 0.5)])
    rows.loc[0, "val_ua"], rows.loc[1, "test_ua"], rows.loc[1, "val_wa"] = 0.8, 0.9, 0.6
    grid = aggregate(rows, PAIR, 1)
    assert chosen_pair(grid, select_by="ua", seeds=1) == Pair(1, 1)
    assert chosen_pair(grid, select_by="wa", seeds=1) == Pair(2, 2)


def test_the_trials_frame_has_the_contracts_columns(plan: Plan, facts: StudyFacts) -> None:
    trials = plan.design.trials("grid", ANY_PAIR)
    outcomes = {t.signature(facts.fingerprint): invented(t) for t in reversed(trials)}
    failed = trials[3]
    outcomes[failed.signature(facts.fingerprint)] = Outcome(status="failed", seconds=0, device="cpu", reason="x")
    del outcomes[trials[5].signature(facts.fingerprint)]
    made = trials_frame(trials, outcomes, facts)
    assert list(made.columns) == list(columns())
    assert len(made) == len(trials) - 1
    assert made[["k_audio", "k_text", "seed"]].apply(tuple, axis=1).is_monotonic_increasing
    row = made[made["status"] == "failed"].iloc[0]
    assert row["k_audio"] == failed.configuration.pair.k_audio
    assert pd.isna(row["test_wa"])
    assert trials_frame([], {}, facts).empty


def test_columns_that_some_systems_lack_hold_whole_numbers_and_gaps() -> None:
    rows = pd.DataFrame({"k_audio": [1, None], "hidden_dim": [8.0, math.nan], "lr": [1.0, 0.5], "dropout": [0.5, None]})
    made = whole_numbers(rows)
    assert [str(kind) for kind in made.dtypes] == ["Int64", "Int64", "float64", "float64"]
    assert (made["k_audio"].isna() == [False, True]).all()
    assert made.loc[0].tolist() == [1, 8, 1.0, 0.5]

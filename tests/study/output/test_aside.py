"""Reports that are moved aside, and those that must not be touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from predicting import predicting
from simulated import Noise, study

from study import load_results
from study.findings.results import About, Results
from study.output import aside


def report(folder: Path, **changes: Any) -> About:
    """Write what is left of a report of a simulated study: its trials, a table, a page and a figure."""
    made = study(np.random.default_rng(0), Noise(), size=(2, 2), seeds=2)
    about = replace(made.about, settings={"profile": "paper", "epochs": 2}, **changes)
    Results(about=about, trials=made.trials).save(folder / "results")
    (folder / "results" / "table1.csv").write_text("mine")
    (folder / "results" / "report.md").write_text("![](../my%20plots/fusion.png)")
    (folder / "my plots").mkdir(exist_ok=True)
    (folder / "my plots" / "fusion.png").write_text("figure")
    return about


def move(new: About, folder: Path) -> str:
    return aside.set_aside(new, folder / "results", folder / "my plots")


def test_a_report_without_a_pair_does_not_replace_one_that_has_its_tables(tmp_path: Path) -> None:
    old = report(tmp_path)
    more = replace(old, seeds=(0, 1, 2), pair=None)
    assert aside.covers(replace(more, pair=(1, 1)), old)
    assert not aside.covers(more, old)
    assert "is kept" in move(more, tmp_path)
    kept = tmp_path / "results" / aside.label(old)
    assert (kept / "table1.csv").read_text() == "mine"
    assert f"](../../my%20plots/{kept.name}/fusion.png)" in (kept / "report.md").read_text()


def test_a_move_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = report(tmp_path)
    new, moves = replace(old, settings={"epochs": 3}), 0
    really = Path.replace

    def cut_off(path: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == 4:
            raise KeyboardInterrupt
        return really(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", cut_off)
        move(new, tmp_path)
    assert "is kept" in move(new, tmp_path)
    name = aside.label(old)
    assert {path.name for path in (tmp_path / "results" / name).iterdir()} == {
        "trials.csv", "study.json", "table1.csv", "report.md"
    }  # fmt: skip
    assert (tmp_path / "my plots" / name / "fusion.png").read_text() == "figure"


def test_what_was_predicted_goes_with_its_report(tmp_path: Path) -> None:
    made = predicting(study(np.random.default_rng(0), Noise(), size=(2, 2), seeds=2))
    made.save(tmp_path / "results")
    again = replace(made.about, settings={**made.about.settings, "epochs": 3})
    assert "is kept" in move(again, tmp_path)
    assert not list((tmp_path / "results").glob("*.npz"))
    assert not (tmp_path / "results" / "utterances.csv").exists()
    kept = tmp_path / "results" / aside.label(made.about)
    pd.testing.assert_frame_equal(load_results(kept).predictions, made.predictions)
    aside.drop_covered(made.about, tmp_path / "results", tmp_path / "my plots")
    assert not kept.exists()


def test_another_studys_folder_below_is_left_alone(tmp_path: Path) -> None:
    old = report(tmp_path)
    (tmp_path / "other").mkdir()
    report(tmp_path / "other")
    (tmp_path / "other" / "results").rename(tmp_path / "results" / "backup")
    aside.drop_covered(old, tmp_path / "results", tmp_path / "my plots")
    assert (tmp_path / "results" / "backup" / "table1.csv").exists()


def test_a_report_of_another_release_is_kept_by_its_profile(tmp_path: Path) -> None:
    old = report(tmp_path, profile="of/the future")
    assert aside.label(old) == "profile=of_the_future"
    assert "(profile=of_the_future) is kept in" in move(replace(old, profile="paper"), tmp_path)


def test_a_report_with_a_block_more_covers_one_without(tmp_path: Path) -> None:
    old = report(tmp_path)
    grid, confirm, fusion, ablation = old.blocks
    column = old.identity.index("fusion")
    mine = replace(fusion, name="mine", table="mine", drawing="mine", file="mine")
    more = replace(old, blocks=(*old.blocks, mine))
    assert aside.covers(more, old)
    assert not aside.covers(old, more)
    fewer = replace(mine, rows=tuple(row for row in mine.rows if row[column] != "cls"))
    assert aside.covers(more, replace(old, blocks=(*old.blocks, fewer)))
    assert not aside.covers(replace(old, blocks=(*old.blocks, fewer)), more)
    # at another pair that was chosen a block is of the same configurations, but for a pair that was given
    elsewhere = tuple((*row[:2], 1, 1, *row[4:]) for row in fusion.rows)
    moved = replace(old, pair=(1, 1), blocks=(grid, confirm, replace(fusion, rows=elsewhere), ablation))
    assert aside.covers(moved, old)
    assert not aside.covers(replace(moved, pair_from="given"), old)
    for other in ({"system": "gcn"}, {"profile": "released"}, {"settings": {**old.settings, "gat_layers": 2}}):
        assert not aside.covers(replace(more, **other), old)
    assert move(more, tmp_path) == ""
    (tmp_path / "results" / "mine.csv").write_text("of a block of mine")
    Results(about=more, trials=study(np.random.default_rng(0), Noise(), size=(2, 2), seeds=2).trials).save(
        tmp_path / "results"
    )
    name = aside.label(more)
    assert name in move(replace(old, settings={"epochs": 3}), tmp_path)
    assert (tmp_path / "results" / name / "mine.csv").exists()


def test_a_report_of_an_earlier_release_had_the_usual_graph(tmp_path: Path) -> None:
    old = report(tmp_path)
    Results(
        about=replace(old, settings={"gather_from": "chosen"}), trials=load_results(tmp_path / "results").trials
    ).save(tmp_path / "results")
    usual = {
        "gather_from": "chosen",
        "evaluation_graph": "own",
        "evaluation_size": 0,
        "ties": "index",
        "index": "exact",
    }
    assert load_results(tmp_path / "results").about.settings == usual
    assert move(replace(old, settings=usual), tmp_path) == ""
    assert "is kept" in move(replace(old, settings={**usual, "evaluation_graph": "joint"}), tmp_path)

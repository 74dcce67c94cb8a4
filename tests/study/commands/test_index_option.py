"""--set index=hnsw: what a study says about its approximate neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from runs import run_here, trials

from cemobam_core import approximate
from study import load_results

QUICK = ["--seeds", "1", "--epochs", "1", "--hidden-dim", "8", "--workers", "1", "--at", "3,2", "--blocks", "fusion"]
MEASURED = "The neighbours are approximate (index hnsw): it found "


def reports() -> list[str]:
    return [Path(f"results/demo/report.{form}").read_text() for form in ("md", "html")]


def test_the_recall_is_printed_kept_and_reported(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "LEAST", 200)  # the train split of the demo has more utterances
    monkeypatch.setattr(approximate, "_LINKS", 2)
    monkeypatch.setattr(approximate, "_SEARCHED", 1)
    asked = [*QUICK, "--set", "index=hnsw"]
    out, _ = run_here(*asked)
    recall = load_results("results/demo").about.recall
    assert list(recall) == ["audio at K=3", "text at K=3"]
    assert 0.3 < min(recall.values()) < 1
    assert "by audio at K=3 and" in out
    assert all(MEASURED in text for text in (out, *reports()))
    monkeypatch.setattr(approximate, "LEAST", 10**9)  # a measurement would find nothing
    for again in ([], ["--report-only"]):
        out, _ = run_here(*asked, *again)
        assert MEASURED in out
        assert load_results("results/demo").about.recall == recall


def test_a_small_study_says_that_its_neighbours_are_exact(in_folder: Path) -> None:
    run_here(*QUICK)
    exact = trials()["test_loss"].tolist()
    assert "index hnsw" not in reports()[0].lower()
    out, _ = run_here(*QUICK, "--set", "index=hnsw")
    assert trials()["test_loss"].tolist() == exact
    assert all(
        "Index hnsw: no split is large enough for it, so all neighbours are exact" in x for x in (out, *reports())
    )


def test_the_index_is_a_factor_like_any_other(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "LEAST", 200)
    run_here(*QUICK[:-2], "--vary", "index=exact,hnsw")
    made = trials()
    assert made["index"].tolist() == ["exact", "hnsw"]
    assert (made["status"] == "done").all()
    assert MEASURED in reports()[0]


def test_the_package_is_missed_before_anything_is_written(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    _, err = run_here(*QUICK, "--set", "index=hnsw", status=2)
    (line,) = err.splitlines()
    assert "index=hnsw needs faiss, which is not installed; install it with: pip install 'cemobam-study[index]'" in line
    _, err = run_here(*QUICK, "--set", "index=hnsw", "--ties", "all", status=2)
    assert "use index=exact, or ties=index or ties=random" in err
    assert list(in_folder.iterdir()) == []

"""Two questions about systems: every answer that a study can give, and that it says what the table says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from compared import EVERY, GRAPH, PLAIN, compared

from study.findings.analysis import Analysis
from study.findings.results import Results
from study.findings.systems import contenders, measured_block, uses_graph
from study.papers.cemobam.claims import Claim, claims
from study.papers.cemobam.systems import systems_table


def numbers_of(claim: Claim) -> str:
    return " ".join(claim.numbers)


def of(results: Results, name: str) -> Claim:
    return next(claim for claim in claims(Analysis(results)) if claim.id == name)


def others(points: float, *names: str) -> dict[str, float]:
    return dict.fromkeys(names or ("gcn", "memocmt", "svm"), points)


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ({"cemobam": 6.0, **others(-6.0)}, "confirmed"),
        ({"cemobam": 0.0, **others(-12.0), "svm": 12.0}, "contradicted"),
        ({"cemobam": 6.0, **others(-6.0), "svm": 6.0}, "undecided"),
    ],
)
def test_cemobam_is_the_best_of_all_or_not(points: dict[str, float], verdict: str) -> None:
    claim = of(compared(points), "best_system")
    assert claim.verdict == verdict, claim.numbers
    assert "default settings, so the budgets are not equal (block systems)." in numbers_of(claim)
    assert claim.numbers[0].startswith("CemoBAM reaches WA ")


def test_what_is_the_same_for_all_can_be_told_with_utterances_enough() -> None:
    results = compared({"cemobam": 0.0, **others(0.0)}, utterances=40_000)
    assert of(results, "best_system").verdict == "equivalent"
    assert of(results, "graph_helps").verdict == "equivalent"


def test_the_tuned_systems_are_what_is_compared() -> None:
    """With default settings CemoBAM is the best, tuned it is the worst."""
    points = {"cemobam": 6.0, **others(-6.0)}
    tuned = {"cemobam": -6.0, **others(6.0)}
    claim = of(compared(points, tuned=tuned), "best_system")
    assert claim.verdict == "contradicted"
    assert "Every system was tuned with the same budget (block tuned)." in claim.numbers
    none_done = compared(points, tuned=tuned)
    none_done.trials.loc[none_done.trials["profile"] != "paper", "status"] = "failed"
    claim = of(none_done, "best_system")
    assert claim.verdict == "confirmed"
    assert "default settings" in numbers_of(claim)


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ({"cemobam": 0.0, "gcn": 12.0, "memocmt": 0.0, "svm": -6.0}, "confirmed"),
        ({"cemobam": -6.0, "gcn": -8.0, "memocmt": 6.0, "svm": -9.0}, "contradicted"),
        ({"cemobam": 0.0, "gcn": -9.0, "memocmt": 0.0, "svm": -6.0}, "undecided"),
    ],
)
def test_a_graph_helps_or_not(points: dict[str, float], verdict: str) -> None:
    claim = of(compared(points), "graph_helps")
    assert claim.verdict == verdict, claim.numbers
    assert "Validation chooses memocmt among the 2 systems without a graph (WA " in numbers_of(claim)
    assert claim.where == "not a claim of the paper"


def test_cemobam_without_its_graph_counts_as_a_system_without_one() -> None:
    points = {"cemobam": 0.0, "gcn": -6.0, "svm": -6.0}
    assert of(compared(points), "graph_helps").verdict == "confirmed"
    claim = of(compared(points, without_chgat=9.0), "graph_helps")
    assert claim.verdict == "contradicted"
    assert "Validation chooses CemoBAM without CH-GAT" in numbers_of(claim)
    other = compared(points, without_chgat=9.0)
    blocks = tuple(
        replace(block, seeds=(7, 8, 9, 10, 11)) if block.name == "ablation" else block for block in other.about.blocks
    )
    claim = of(replace(other, about=replace(other.about, blocks=blocks)), "graph_helps")
    assert "without CH-GAT" not in numbers_of(claim)  # it has other seeds


def test_a_system_that_validation_did_not_choose_may_be_ahead() -> None:
    """Then a system with a graph that is better than the chosen one is no proof."""
    results = compared({"cemobam": 0.0, "svm": -9.0, "memocmt": 9.0})
    results.trials.loc[results.trials["system"] == "memocmt", "val_wa"] = 0.1
    claim = of(results, "graph_helps")
    assert claim.answer == "CemoBAM, with a graph, scores more than svm, but memocmt scores more on test."
    assert claim.verdict == "undecided"
    assert "memocmt, without a graph, scores most on test" in numbers_of(claim)


def test_without_systems_it_says_what_to_run() -> None:
    results = compared({"cemobam": 0.0, "svm": 0.0})
    bare = replace(results, about=replace(results.about, blocks=()))
    for name in ("best_system", "graph_helps"):
        claim = of(bare, name)
        assert claim.verdict == "not tested"
        assert "--systems all --budget 30" in " ".join((claim.answer, *claim.numbers))
    assert "Khan (MemoCMT) (2025) with WA 81.85" in numbers_of(of(bare, "best_system"))


@pytest.mark.parametrize(
    ("points", "best", "graph"),
    [
        ({"cemobam": 0.0}, "does not compare CemoBAM", "no system without a graph"),
        ({"gcn": 0.0, "svm": 0.0}, "does not compare CemoBAM", ""),
        ({"svm": 0.0, "logistic": 0.0}, "does not compare CemoBAM", "no system with a graph"),
    ],
)
def test_what_is_lacking_is_said(points: dict[str, float], best: str, graph: str) -> None:
    claim = of(compared(points), "best_system")
    assert claim.verdict == "not tested"
    assert best in claim.answer
    claim = of(compared(points), "graph_helps")
    assert (claim.verdict == "not tested") == bool(graph)
    assert graph in claim.answer


def test_one_seed_and_missing_trials_test_nothing() -> None:
    one = compared({"cemobam": 9.0, **others(-9.0)}, seeds=1)
    assert of(one, "best_system").verdict == of(one, "graph_helps").verdict == "not tested"
    holes = compared({"cemobam": 9.0, **others(-9.0)})
    holes.trials.loc[holes.trials["system"] == "svm", "status"] = "failed"
    claim = of(holes, "best_system")
    assert claim.verdict == "not tested"
    assert claim.answer == "Only 2 of 3 other systems are finished."
    claim = of(holes, "graph_helps")
    assert claim.verdict == "not tested"
    assert "Missing: svm." in claim.answer


@pytest.mark.parametrize("rng", range(4))
def test_no_claim_contradicts_the_table(rng: int) -> None:
    points = {name: (3.0 * (i % 4)) - 4.5 for i, name in enumerate(EVERY)}
    results = compared(points, rng=rng, seeds=4)
    table = systems_table(Analysis(results))
    assert table
    rows = table.frame.set_index("runs_as")
    measured = rows[rows["n_seeds"] > 0]
    best = of(results, "best_system")
    marked = {str(name) for name, x in measured.iterrows() if x["p_holm"] < 0.05 and x["difference"] > 0}
    assert (best.verdict == "contradicted") == bool(marked)
    if best.verdict == "confirmed":
        assert measured["wa"].idxmax() == "cemobam"
    graph = of(results, "graph_helps")
    with_graph = measured[measured["graph"].astype(bool)]["wa"].max()
    without = measured[~measured["graph"].astype(bool)]["wa"].max()
    if graph.verdict in ("confirmed", "contradicted"):
        assert (graph.verdict == "confirmed") == (with_graph > without)


def test_whether_a_graph_is_used_is_read_from_the_ledger() -> None:
    results = compared(dict.fromkeys(EVERY, 0.0), without_chgat=0.0, seeds=2, utterances=40)
    block = measured_block(results)
    assert block
    made = {x.name: x.uses_graph for x in contenders(results, block)}
    assert made == {**dict.fromkeys(GRAPH, True), **dict.fromkeys(PLAIN, False)}
    ablation = results.about.block("ablation")
    assert ablation
    assert [uses_graph(results.about, row) for row in ablation.rows] == [True, False]

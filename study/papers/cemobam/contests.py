"""Two questions about systems measured under one protocol: is CemoBAM the best, and does a graph help?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from study.design.tuning import TUNED
from study.findings.analysis import MEASURES, Analysis, Comparison, Contender
from study.findings.results import AboutBlock
from study.findings.statistics import LEVEL
from study.findings.systems import (
    CHOSEN,
    Decision,
    ablated,
    best_on,
    better_than_all,
    complete,
    contenders,
    graph_helps,
    mean_of,
    measured_block,
)
from study.findings.wording import (
    INTERVALS,
    comparison_sentence,
    evidence_of,
    listed,
    more_than,
    points_of,
    probability_sentence,
    size_in_points,
)
from study.papers.cemobam.finding import ONE_SEED, Finding, not_tested
from study.papers.cemobam.published import published_systems

COMMAND = "--systems all --budget 30"
"""The options that measure all systems under one protocol."""

_FEW = 3
"""Systems that an answer names."""

_MANY = 10
"""Systems with a separate sentence. The table has all."""


def best_system(analysis: Analysis) -> Finding:
    """Return whether CemoBAM is better than every other system that was measured beside it."""
    block = measured_block(analysis.results)
    if block is None:
        return _nothing_measured(analysis)
    of = contenders(analysis.results, block)
    ours = next((x for x in of if x.name == "cemobam"), None)
    others = [x for x in of if x is not ours]
    if ours is None or not others:
        return not_tested(f"The block {block.name} does not compare CemoBAM with another system. Run {COMMAND}.")
    made = [one for one in analysis.contest(block, [(ours, x) for x in others]) if one]
    if not made:
        return not_tested("CemoBAM or every other system is not finished.")
    if any(np.isnan(c.difference.p) for c in made):
        return not_tested(ONE_SEED)
    decision = better_than_all(made)
    behind = [c for c in made if c.p < LEVEL and c.difference.mean > 0]
    ahead = sorted((c for c in made if c.verdict == "worse"), key=lambda c: c.difference.mean)
    rest = [c for c in made if c not in ahead and c not in behind]
    numbers = [
        f"CemoBAM reaches {_metric(analysis)} {_mean(analysis, ours, block)} on test.",
        *_sentences(ahead),
        *_sentences(rest),
    ]
    if behind:
        than = "all others" if len(behind) == len(others) else f"{len(behind)} of {len(others)} others"
        numbers.append(f"CemoBAM scores more than {than}, each tested at 5%: {listed([c.second for c in behind])}.")
    numbers.append(_protocol(block))
    if decision != "contradicted" and len(made) < len(others):
        return not_tested(f"Only {len(made)} of {len(others)} other systems are finished.", *numbers)
    if decision == "contradicted":
        answer = f"{_ahead(ahead)} more than CemoBAM."
    elif decision == "confirmed":
        answer = f"CemoBAM scores more than {_every(others)}."
    elif decision == "equivalent":
        answer = f"CemoBAM scores the same as {_every(others)} within {points_of(made[0].rope)}."
    else:
        answer = (
            f"CemoBAM is shown to be better than {len(behind)} of {len(others)} other systems; {len(rest)} "
            f"cannot be distinguished from it with {evidence_of(made[0].difference)}."
        )
    return Finding(verdict=decision, answer=answer, numbers=tuple(numbers), intervals=INTERVALS[made[0].decided_by])


def does_a_graph_help(analysis: Analysis) -> Finding:
    """Return whether a system with a graph is better than the best system without, which validation chooses."""
    results, metric = analysis.results, analysis.metric
    block = measured_block(results)
    if block is None:
        return not_tested(f"No systems were measured side by side. Run {COMMAND}.")
    of = [*contenders(results, block), *ablated(results, block)]
    with_graph, without = [x for x in of if x.uses_graph], [x for x in of if not x.uses_graph]
    if not with_graph or not without:
        lacking = "without a graph" if with_graph else "with a graph"
        return not_tested(f"The block {block.name} has no system {lacking}. Run {COMMAND}.")
    done = [x for x in of if complete(results, x.row, block.seeds[: x.n_seeds])]
    if len(done) < len(of):
        missing = [x.told for x in of if x not in done]
        return not_tested(
            f"Only {len(done)} of {len(of)} systems are finished with every seed. Missing: {listed(missing)}."
        )
    first = best_on(results, with_graph, block, f"val_{metric}")
    second = best_on(results, without, block, f"val_{metric}")
    assert first and second
    made = [one for one in analysis.contest(block, [(x, second) for x in with_graph]) if one]
    if len(made) < len(with_graph):
        return not_tested(f"Not every system has a seed in common with {second.told}.")
    if any(np.isnan(c.difference.p) for c in made):
        return not_tested(ONE_SEED)
    highest = max(mean_of(results, x, block, f"test_{metric}") for x in without)
    leads = [mean_of(results, x, block, f"test_{metric}") > highest for x in with_graph]
    decision = graph_helps(made, leads)
    pair = made[with_graph.index(first)]
    better, worse = ([c for c in made if c.p_holm < CHOSEN and sign * c.difference.mean > 0] for sign in (1, -1))
    best = max(without, key=lambda x: mean_of(results, x, block, f"test_{metric}"))
    numbers = [
        _chosen(analysis, block, first, with_graph),
        _chosen(analysis, block, second, without),
        f"{comparison_sentence(pair, first.told, second.told)} {probability_sentence(pair, first.told)}",
        *_others(better, pair, second, "more"),
        *_others(worse, pair, second, "less"),
    ]
    if decision != "confirmed" and better:
        numbers.append(f"{best.told}, without a graph, scores most on test ({_mean(analysis, best, block)}).")
    if joint := [x.told for x in with_graph if x.transductive]:
        numbers.append(f"{listed(joint)} {'is' if len(joint) == 1 else 'are'} transductive.")
    best_without = f"{second.told}, the {'only' if len(without) == 1 else 'best'} system without one"
    if decision == "confirmed":
        proof = [c for c, ahead in zip(made, leads, strict=True) if c in better and ahead]
        most = max(proof, key=lambda c: c.difference.mean)
        answer = f"{most.first}, with a graph, scores {more_than(most.difference.mean, best_without)}."
    elif decision == "undecided" and better:
        answer = (
            f"{better[0].first}, with a graph, scores more than {second.told}, but {best.told} scores more on test."
        )
    else:
        answer = _none_better(decision, with_graph, best_without, points_of(made[0].rope))
    return Finding(
        verdict=decision,
        answer=answer,
        numbers=(*numbers, _protocol(block)),
        intervals=INTERVALS[made[0].decided_by],
    )


def _others(made: Sequence[Comparison], pair: Comparison, second: Contender, word: str) -> list[str]:
    """Return which systems, other than that of a pair, score more or less than the second. Empty if none does."""
    names = [c.first for c in made if c is not pair]
    score = "scores" if len(names) == 1 else "score"
    than = f"{word} than {second.told} (p < {CHOSEN:g} after Holm's correction)"
    return [f"{listed(names)} {score} {than}."] if names else []


def _none_better(decision: Decision, with_graph: Sequence[Contender], best_without: str, rope: str) -> str:
    """Return the answer if no system with a graph is better than the best one without."""
    every = "Every system with a graph" if len(with_graph) > 1 else f"{with_graph[0].told}, with a graph,"
    if decision == "contradicted":
        return f"{every} scores less than {best_without}."
    if decision == "equivalent":
        return f"{every} scores the same as {best_without} within {rope}."
    return f"No system with a graph is shown to be better than {best_without}."


def _nothing_measured(analysis: Analysis) -> Finding:
    """Return the finding if no systems were measured, with the best published figure."""
    about = analysis.results.about
    _, rows = published_systems(about.in_papers)
    others = rows[rows["system"] != "CemoBAM"]
    run = f"Run {COMMAND} to measure the systems on the same folds and seeds."
    if others.empty:
        return not_tested("No other system was measured here.", run)
    best = others.sort_values("wa", ascending=False).iloc[0]
    return not_tested(
        "No other system was measured here.",
        f"The best published system is {best['system']} ({best['year']}) with WA {best['wa']:.2f}.",
        "Published systems used their own splits, folds and classes, so a difference to them is not a test.",
        run,
    )


def _metric(analysis: Analysis) -> str:
    return MEASURES[analysis.metric]


def _protocol(block: AboutBlock) -> str:
    """Return how the systems were set up."""
    if block.name == TUNED:
        return f"Every system was tuned with the same budget (block {TUNED})."
    return f"Every system has its default settings, so the budgets are not equal (block {block.name})."


def _ahead(made: Sequence[Comparison]) -> str:
    """Return which systems score more, the best first: "svm scores 6.0 points", "svm (6.0 points) and gcn … score"."""
    sizes = [(c.second, size_in_points(c.difference.mean)) for c in made]
    if len(sizes) == 1:
        return f"{sizes[0][0]} scores {sizes[0][1]}"
    names = [f"{name} ({size})" for name, size in sizes[:_FEW]]
    return f"{listed([*names, *([f'{len(sizes) - _FEW} others'] if len(sizes) > _FEW else [])])} score"


def _every(others: Sequence[Contender]) -> str:
    return others[0].told if len(others) == 1 else f"each of the {len(others)} other systems"


def _chosen(analysis: Analysis, block: AboutBlock, best: Contender, of: Sequence[Contender]) -> str:
    """Return which system validation chooses among those with a graph, or without, and its score on test."""
    graph = "with a graph" if best.uses_graph else "without a graph"
    scores = f"{_metric(analysis)} {_mean(analysis, best, block)} on test"
    if len(of) == 1:
        return f"{best.told} is the only system {graph} ({scores})."
    return f"Validation chooses {best.told} among the {len(of)} systems {graph} ({scores})."


def _mean(analysis: Analysis, contender: Contender, block: AboutBlock) -> str:
    return f"{100 * mean_of(analysis.results, contender, block, f'test_{analysis.metric}'):.1f}"


def _sentences(made: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each comparison with CemoBAM, the highest first."""
    ordered = sorted(made, key=lambda c: c.difference.mean)
    sentences = [comparison_sentence(c, c.second, "CemoBAM", turn=True) for c in ordered[:_MANY]]
    return [*sentences, *([f"{len(made) - _MANY} more are in the table."] if len(made) > _MANY else [])]

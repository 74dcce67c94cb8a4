"""Two questions about systems that are measured under one protocol: is CemoBAM the best, and does a graph help?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
    WHOSE,
    chances_told,
    difference_told,
    listed,
    p_value,
    points,
    seeds_in_words,
    turned,
)
from study.papers.cemobam.published import published_systems

Said = tuple[Decision | Literal["not tested"], str]

COMMAND = "--systems all --budget 30"
"""What measures all systems under one protocol."""

_MANY = 10
"""Systems that a sentence names with their differences; the table has all."""


def best_system(analysis: Analysis) -> Said:
    """Return whether CemoBAM is better than every other system that was measured beside it."""
    block = measured_block(analysis.results)
    if block is None:
        return "not tested", _published(analysis)
    of = contenders(analysis.results, block)
    ours = next((x for x in of if x.name == "cemobam"), None)
    others = [x for x in of if x is not ours]
    if ours is None or not others:
        return "not tested", f"The block {block.name} does not compare CemoBAM with another system. Run {COMMAND}."
    made = [one for one in analysis.contest(block, [(ours, x) for x in others]) if one]
    if not made:
        return "not tested", "CemoBAM, or every other system, is not done yet."
    if any(np.isnan(c.difference.p) for c in made):
        return "not tested", _ONE_SEED
    decision, behind = better_than_all(made), [c for c in made if c.p < LEVEL and c.difference.mean > 0]
    ahead = [c for c in made if c.verdict == "worse"]
    rest = [c for c in made if c not in ahead and c not in behind]
    parts = [f"{_how(analysis, block, made)}: CemoBAM {_mean(analysis, ours, block)}."]
    if ahead:
        parts.append(f"Better than CemoBAM, p after Holm's correction over {len(made)}: {_row(ahead)}.")
    if behind:
        than = "all others" if len(behind) == len(others) else f"{len(behind)} of {len(others)} others"
        parts.append(f"CemoBAM is better than {than}, each at 5%: {listed([c.second for c in behind])}.")
    if rest:
        parts.append(f"Not told apart from CemoBAM: {_row(rest)}.")
    parts.append(_unit(made))
    numbers = " ".join(filter(None, parts))
    if decision != "contradicted" and len(made) < len(others):
        return "not tested", f"Only {len(made)} of {len(others)} others are done. {numbers}"
    return decision, numbers


def does_a_graph_help(analysis: Analysis) -> Said:
    """Return whether a system with a graph is better than the best system without, which validation chooses."""
    results, metric = analysis.results, analysis.metric
    block = measured_block(results)
    if block is None:
        return "not tested", f"No systems were measured side by side. Run {COMMAND}."
    of = [*contenders(results, block), *ablated(results, block)]
    with_graph, without = [x for x in of if x.uses_graph], [x for x in of if not x.uses_graph]
    if not with_graph or not without:
        lacking = "without a graph" if with_graph else "with a graph"
        return "not tested", f"The block {block.name} has no system {lacking}. Run {COMMAND}."
    done = [x for x in of if complete(results, x.row, block.seeds[: x.n_seeds])]
    if len(done) < len(of):
        missing = listed([x.told for x in of if x not in done])
        return "not tested", f"Only {len(done)} of {len(of)} systems are done with every seed; not {missing}."
    first = best_on(results, with_graph, block, f"val_{metric}")
    second = best_on(results, without, block, f"val_{metric}")
    assert first and second
    made = [one for one in analysis.contest(block, [(x, second) for x in with_graph]) if one]
    if len(made) < len(with_graph):
        return "not tested", f"Not every system has a seed in common with {second.told}."
    if any(np.isnan(c.difference.p) for c in made):
        return "not tested", _ONE_SEED
    highest = max(mean_of(results, x, block, f"test_{metric}") for x in without)
    leads = [mean_of(results, x, block, f"test_{metric}") > highest for x in with_graph]
    decision = graph_helps(made, leads)
    pair = made[with_graph.index(first)]
    said = difference_told(
        pair.difference,
        first.told,
        second.told,
        whose=WHOSE[pair.decided_by],
        p=pair.p_holm,
        holm=pair.p_holm > pair.p,
        other=pair.other,
    )
    parts = [
        f"{_how(analysis, block, made)}. {_chosen(second, without)} (test {_mean(analysis, second, block)}). "
        f"{_chosen(first, with_graph)} (test {_mean(analysis, first, block)}). {said}. {chances_told(pair)}."
    ]
    better, worse = ([c for c in made if c.p_holm < CHOSEN and sign * c.difference.mean > 0] for sign in (1, -1))
    for of_all, words in ((better, "Better than"), (worse, "Worse than")):
        if several := [c for c in of_all if c is not pair]:
            too = " too" if pair in of_all else ""
            parts.append(f"{words} {second.told}{too}, p < {CHOSEN:g} after Holm's correction: {_names(several)}.")
    if decision != "confirmed" and better:
        best = max(without, key=lambda x: mean_of(results, x, block, f"test_{metric}"))
        parts.append(f"But {best.told}, without a graph, scores higher on test ({_mean(analysis, best, block)}).")
    if joint := [x.told for x in with_graph if x.transductive]:
        parts.append(f"{listed(joint)} {'is' if len(joint) == 1 else 'are'} transductive.")
    return decision, " ".join(parts)


_ONE_SEED = "One seed cannot tell a difference from luck: it takes two at least, five to be of use."


def _published(analysis: Analysis) -> str:
    """Return why nothing is tested where no systems were measured, with the best published figure."""
    about = analysis.results.about
    _, rows = published_systems(about.dataset)
    others = rows[rows["system"] != "CemoBAM"]
    run = f"Run {COMMAND} to measure the systems on the same folds and seeds."
    if others.empty:
        return f"The paper compares with no other system on {about.title}. {run}"
    best = others.sort_values("wa", ascending=False).iloc[0]
    return (
        "The published systems were measured on splits, folds and classes of their own, so a difference to them is no "
        f"test. The best of them is {best['system']} ({best['year']}) with WA {best['wa']:.2f}. {run}"
    )


def _how(analysis: Analysis, block: AboutBlock, made: Sequence[Comparison]) -> str:
    budget = (
        f"each system tuned over an equal budget (block {TUNED})"
        if block.name == TUNED
        else f"each system with its default settings, so not at an equal budget (block {block.name})"
    )
    seeds = max(c.difference.n for c in made)
    return f"{MEASURES[analysis.metric]} on test, {budget}, {seeds_in_words(seeds)}"


def _chosen(best: Contender, of: Sequence[Contender]) -> str:
    """Return which system validation chooses among those with a graph, or without."""
    graph = "with a graph" if best.uses_graph else "without a graph"
    if len(of) == 1:
        return f"{best.told} is the only system {graph}"
    return f"Of {len(of)} systems {graph}, validation chooses {best.told}"


def _mean(analysis: Analysis, contender: Contender, block: AboutBlock) -> str:
    return f"{100 * mean_of(analysis.results, contender, block, f'test_{analysis.metric}'):.1f}"


def _row(made: Sequence[Comparison]) -> str:
    """Return the second of each comparison less the first, the highest first."""
    ordered = sorted(made, key=lambda c: c.difference.mean)
    told = [f"{c.second} {points(turned(c.difference))}, p {p_value(c.p_holm)}" for c in ordered[:_MANY]]
    more = [f"and {len(made) - _MANY} more"] if len(made) > _MANY else []
    return "; ".join([*told, *more])


def _names(made: Sequence[Comparison]) -> str:
    return listed([c.first for c in made])


def _unit(made: Sequence[Comparison]) -> str:
    """Return what the differences of :func:`_row` are."""
    if all(np.isnan(c.difference.low) for c in made):
        return "Differences are points, the system less CemoBAM."
    return f"Differences are points, the system less CemoBAM, with 95% intervals for {WHOSE[made[0].decided_by]}."

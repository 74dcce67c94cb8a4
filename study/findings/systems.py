"""The comparison of systems: its block, its systems, and its answers to two questions.

Is one system better than all others? Does a graph help? docs/simulations.md says how often the answers are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from study.design.tuning import DEFAULTS, TUNED
from study.findings.analysis import Comparison, Contender, Row
from study.findings.results import About, AboutBlock, Results
from study.findings.statistics import LEVEL

Decision = Literal["confirmed", "equivalent", "undecided", "contradicted"]


def measured_block(results: Results) -> AboutBlock | None:
    """Return the block that compares the systems: the tuned one if any of its trials is done.

    `None` if the study has no such block.
    """
    for name, columns in ((TUNED, ("profile",)), (DEFAULTS, ("system",))):
        block = results.about.block(name)
        if block and block.columns == columns and (results.trials_of(name)["status"] == "done").any():
            return block
    return None


def contenders(results: Results, block: AboutBlock) -> list[Contender]:
    """Return the systems of a block, in its order.

    Args:
        results: Results of the study.
        block: Block that compares systems.
    """
    about = results.about
    return [
        Contender(name=system_of(about, row), row=row, n_seeds=n, uses_graph=uses_graph(about, row), transductive=joint)
        for row, n, joint in zip(block.rows, block.n_seeds, block.transductive, strict=True)
    ]


def ablated(results: Results, block: AboutBlock) -> list[Contender]:
    """Return CemoBAM without its graph if the ablation measured it with the seeds of a block, else an empty list."""
    about, ablation = results.about, results.about.block("ablation")
    if about.system != "cemobam" or ablation is None or ablation.seeds != block.seeds:
        return []
    place = about.identity.index("modules")
    return [
        Contender(name="cemobam without CH-GAT", row=row, n_seeds=n, uses_graph=False)
        for row, n in zip(ablation.rows, ablation.n_seeds, strict=True)
        if row[place] == "no_chgat" and row not in block.rows and complete(results, row, block.seeds[:n])
    ]


def system_of(about: About, row: Row) -> str:
    """Return the name of a configuration's system."""
    return str(row[about.identity.index("system")])


def uses_graph(about: About, row: Row) -> bool:
    """Return whether a configuration uses the graph: it has a K and the module that reads the graph."""
    setting = dict(zip(about.identity, row, strict=True))
    return setting["k_audio"] is not None and setting["modules"] != "no_chgat"


def complete(results: Results, row: Row, seeds: Sequence[int]) -> bool:
    """Return whether a configuration is done with all of these seeds, on every fold."""
    return bool(len(seeds)) and set(seeds) <= set(results.of_seeds(row, "test_wa").index)


def reference_of(of: Sequence[Contender], block: AboutBlock) -> Contender:
    """Return the system that the others are compared with: CemoBAM, or the block's reference if it has no CemoBAM."""
    return next((x for x in of if x.name == "cemobam"), of[block.reference])


def mean_of(results: Results, contender: Contender, block: AboutBlock, metric: str) -> float:
    """Return a system's mean of a metric over the seeds of a block. NaN if no seed is done."""
    figures = results.of_seeds(contender.row, metric)
    return float(figures[figures.index.isin(block.seeds[: contender.n_seeds])].mean())


def better_than_all(made: Sequence[Comparison]) -> Decision:
    """Return whether the first system, which all comparisons share, is better than every second one.

    The claim needs every comparison to be significant, so each is tested at the full level (intersection-union test:
    Berger, 1982). One better system is enough to contradict it, so the verdict "worse" has Holm's correction over all.
    """
    if any(c.verdict == "worse" for c in made):
        return "contradicted"
    if all(c.p < LEVEL and c.difference.mean > 0 for c in made):
        return "confirmed"
    return "equivalent" if all(c.p_equivalent < LEVEL for c in made) else "undecided"


CHOSEN = LEVEL / 2
"""Level of tests against a system that validation chose.

Validation may choose a system that is not the best, and then being better than it proves nothing. At the full level,
this caused false claims in up to 7% of cases; at half the level, in 5%."""


def graph_helps(made: Sequence[Comparison], leads: Sequence[bool]) -> Decision:
    """Return whether a graph helps.

    Args:
        made: Comparisons of every system with a graph with the best system without one, which validation chose.
        leads: For each comparison, whether its system is ahead of every system without a graph on test.
    """
    if any(c.p_holm < CHOSEN and c.difference.mean > 0 and ahead for c, ahead in zip(made, leads, strict=True)):
        return "confirmed"
    if all(c.p < CHOSEN and c.difference.mean < 0 for c in made):
        return "contradicted"
    return "equivalent" if all(c.p_equivalent < LEVEL for c in made) else "undecided"


def best_on(results: Results, of: Sequence[Contender], block: AboutBlock, metric: str) -> Contender | None:
    """Return the system with the highest mean of a metric among those with all their seeds, or `None` if none has."""
    done = [x for x in of if complete(results, x.row, block.seeds[: x.n_seeds])]
    if not done:
        return None
    means = np.round([mean_of(results, x, block, metric) for x in done], 12)
    return done[int(means.argmax())]

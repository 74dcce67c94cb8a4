"""The comparison of systems: which block has it, who takes part, and what it says to two questions.

Is one system better than all others? Does a graph help? docs/statistics.md says how often the answers are wrong.
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
    """Return the block that compares the systems: the tuned one if any of its trials is done; None: there is none."""
    for name, columns in ((TUNED, ("profile",)), (DEFAULTS, ("system",))):
        block = results.about.block(name)
        if block and block.columns == columns and (results.trials_of(name)["status"] == "done").any():
            return block
    return None


def contenders(results: Results, block: AboutBlock) -> list[Contender]:
    """Return the systems of a block, in its order.

    Args:
        results: of the study.
        block: that compares systems.
    """
    about = results.about
    return [
        Contender(name=system_of(about, row), row=row, n_seeds=n, uses_graph=uses_graph(about, row), transductive=joint)
        for row, n, joint in zip(block.rows, block.n_seeds, block.transductive, strict=True)
    ]


def ablated(results: Results, block: AboutBlock) -> list[Contender]:
    """Return CemoBAM without its graph, if the ablation has measured it with the seeds of a block; else none."""
    about, ablation = results.about, results.about.block("ablation")
    if about.system != "cemobam" or ablation is None or ablation.seeds != block.seeds:
        return []
    place = about.identity.index("modules")
    of = zip(ablation.rows, ablation.n_seeds, strict=True)
    return [
        Contender(name="cemobam without CH-GAT", row=row, n_seeds=n, uses_graph=False)
        for row, n in of
        if row[place] == "no_chgat" and row not in block.rows and complete(results, row, block.seeds[:n])
    ]


def system_of(about: About, row: Row) -> str:
    """Return the name of a configuration's system."""
    return str(row[about.identity.index("system")])


def uses_graph(about: About, row: Row) -> bool:
    """Return whether a configuration uses the graph: it has a K, and the part that reads the graph."""
    setting = dict(zip(about.identity, row, strict=True))
    return setting["k_audio"] is not None and setting["modules"] != "no_chgat"


def complete(results: Results, row: Row, seeds: Sequence[int]) -> bool:
    """Return whether a configuration is done with all of these seeds, on every fold."""
    return bool(len(seeds)) and set(seeds) <= set(results.of_seeds(row, "test_wa").index)


def reference_of(of: Sequence[Contender], block: AboutBlock) -> Contender:
    """Return the system that the others are compared with: CemoBAM, or the reference of a block without it."""
    return next((x for x in of if x.name == "cemobam"), of[block.reference])


def mean_of(results: Results, contender: Contender, block: AboutBlock, metric: str) -> float:
    """Return a system's mean of a metric over the seeds of a block; NaN: no seed is done."""
    figures = results.of_seeds(contender.row, metric)
    return float(figures[figures.index.isin(block.seeds[: contender.n_seeds])].mean())


def better_than_all(made: Sequence[Comparison]) -> Decision:
    """Return whether the first of all comparisons is better than every second.

    All must show, so each is tested at the whole level (intersection-union test: Berger, 1982). Any of them may be
    better than it, so for that Holm's correction is over all.
    """
    if any(c.verdict == "worse" for c in made):
        return "contradicted"
    if all(c.p < LEVEL and c.difference.mean > 0 for c in made):
        return "confirmed"
    return "equivalent" if all(c.p_equivalent < LEVEL for c in made) else "undecided"


CHOSEN = LEVEL / 2
"""The level of tests against a system that validation chose: it may have chosen one that is not the best, and then
what is better than it proves nothing. At the whole level that gave false claims at up to 7%, at half of it at 5%."""


def graph_helps(made: Sequence[Comparison], leads: Sequence[bool]) -> Decision:
    """Return whether a graph helps.

    Args:
        made: of every system with a graph, with the best system without: the one that validation chose.
        leads: of each, whether it is ahead of every system without a graph on test.
    """
    if any(c.p_holm < CHOSEN and c.difference.mean > 0 and ahead for c, ahead in zip(made, leads, strict=True)):
        return "confirmed"
    if all(c.p < CHOSEN and c.difference.mean < 0 for c in made):
        return "contradicted"
    return "equivalent" if all(c.p_equivalent < LEVEL for c in made) else "undecided"


def best_on(results: Results, of: Sequence[Contender], block: AboutBlock, metric: str) -> Contender | None:
    """Return the system with the highest mean of a metric among those that have all their seeds; None: none has."""
    done = [x for x in of if complete(results, x.row, block.seeds[: x.n_seeds])]
    if not done:
        return None
    means = np.round([mean_of(results, x, block, metric) for x in done], 12)
    return done[int(means.argmax())]

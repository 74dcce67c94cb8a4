"""The analysis of a study: every comparison that a reader of the paper would make, with its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cemobam_core.metrics import METRICS
from study.design.factors import Pair
from study.findings.results import AboutBlock, GridScores, Results
from study.findings.statistics import (
    Array,
    Difference,
    GridVariance,
    Rule,
    Selection,
    compare_pairs,
    grid_variance,
    held_out,
    holm,
    paired,
    pick,
    selection,
    weaker,
)
from study.ledger.outcomes import Metric
from study.papers.cemobam.published import paper_pair

MEASURES: dict[Metric, str] = {name: metric.label for name, metric in METRICS.items()}
"""The metrics by name, and how they are shown."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One configuration against another on the test split, paired by seed.

    Attributes:
        family: ``pairs``, or the name of a block: the comparisons that are corrected together.
        metric: of which the figures are.
        first: what the difference is of.
        second: what it is to.
        raw: the first's mean less the second's, over the seeds that both have: the difference that the tables show.
        difference: what is tested, in fractions: corrected for the choice of K where these seeds chose it, and else
            with ``raw`` as its mean.
        corrected: whether it is corrected.
        p_holm: its p-value after Holm's correction over the family.
    """

    family: str
    metric: Metric
    first: str
    second: str
    raw: float
    difference: Difference
    corrected: bool
    p_holm: float = np.nan


@dataclass(frozen=True, eq=False)
class Analysis:
    """What can be said of a study's results; each part is worked out when first asked for.

    Attributes:
        results: the study's.
    """

    results: Results

    @property
    def metric(self) -> Metric:
        """The metric that decides on claims: the one that chooses the pair, so that nobody picks it afterwards."""
        return self.results.about.select_by

    @property
    def grid(self) -> GridScores | None:
        """The grid without holes."""
        return self.results.scores

    @cached_property
    def variance(self) -> dict[Metric, GridVariance]:
        """By metric, where the grid has pairs and seeds enough to tell K from luck."""
        if self.grid is None:
            return {}
        made = {metric: grid_variance(self.grid.values[f"test_{metric}"]) for metric in self.results.measures}
        return {metric: variance for metric, variance in made.items() if variance}

    @cached_property
    def selections(self) -> dict[tuple[str, Metric], Selection]:
        """By split that chooses (``val``, ``test``) and metric: what is reported, and what holds."""
        grid = self.grid
        if grid is None or grid.values["test_wa"][0].size < 2 or len(grid.seeds) < 2:
            return {}
        return {
            (split, metric): selection(grid.values[f"{split}_{metric}"], grid.values[f"test_{metric}"])
            for split in ("val", "test")
            for metric in self.results.measures
        }

    @property
    def paper_pair(self) -> Pair | None:
        """The pair that the paper reports as best on this data set; None where it names none."""
        return paper_pair(self.results.about.dataset)

    @cached_property
    def chosen_here(self) -> bool:
        """Whether these seeds chose the pair: by the rule, or by a user who gives what their grid shows as best."""
        about, grid = self.results.about, self.grid
        if not about.given:
            return True
        if grid is None:
            return False
        columns = [f"{split}_{metric}" for split in ("val", "test") for metric in self.results.measures]
        best = [int(pick(grid.values[column].mean(axis=0).ravel(), "best")) for column in columns]
        return grid.index(about.at) in best

    @cached_property
    def _rules(self) -> dict[str, Rule]:
        """How each pair that is compared is picked: ``chosen``, ``paper``, ``middle``, as far as the grid has it."""
        grid, about = self.grid, self.results.about
        if grid is None:
            return {}
        chosen: Rule | None = "best" if self.chosen_here else grid.index(about.at)
        rules = {"chosen": chosen, "paper": grid.index(self.paper_pair), "middle": "middle"}
        return {name: rule for name, rule in rules.items() if rule is not None}

    @property
    def _choosing(self) -> Array:
        """(S, A, B): the figures that choose the pair."""
        about = self.results.about
        assert self.grid
        return self.grid.values[f"{about.select_on}_{about.select_by}"]

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where on the grid each pair is that is compared, as all of the grid's seeds together pick it."""
        means: Array = self._choosing.mean(axis=0).ravel()
        return {name: int(pick(means, rule)) for name, rule in self._rules.items()}

    @property
    def compared(self) -> dict[str, Pair]:
        """The pairs that are compared, by name, as all of the grid's seeds together pick them."""
        return {name: self.grid.pair(place) for name, place in self._places.items()} if self.grid else {}

    @cached_property
    def pairs(self) -> dict[Metric, list[Comparison]]:
        """The chosen pair, the paper's and the middle one against each other, corrected for having been picked."""
        grid, rules = self.grid, self._rules
        if grid is None or grid.values["test_wa"][0].size < 2 or len(grid.seeds) < 2:
            return {}
        names = list(rules)
        made: dict[Metric, list[Comparison]] = {}
        for metric in self.results.measures:
            measured = grid.values[f"test_{metric}"]
            means = {name: float(measured.mean(axis=0).ravel()[place]) for name, place in self._places.items()}
            made[metric] = _corrected(
                [
                    Comparison(
                        family="pairs",
                        metric=metric,
                        first=a,
                        second=b,
                        raw=means[a] - means[b],
                        difference=compare_pairs(self._choosing, measured, rules[a], rules[b]),
                        corrected=not (isinstance(rules[a], int) and isinstance(rules[b], int)),
                    )
                    for i, a in enumerate(names)
                    for b in names[i + 1 :]
                    if rules[a] != rules[b]
                ]
            )
        return made

    def of(self, name: str) -> dict[Metric, list[Comparison]]:
        """Return a block's reference against each of its other configurations, by metric; a family by itself.

        The study's own configuration took part in choosing the pair: it was best there, and its seeds' luck helped it
        to be. Beside others that were not picked it looks too good. So its figures are taken once as they are, and
        once at the pair that the other seeds choose, which is a little too low; a difference counts when both show it
        (:func:`weaker`).

        Args:
            name: of the block; none that compares nothing, or that the study has not got, has any.
        """
        if name not in self._families:
            block = self.results.about.block(name)
            compared = block is not None and block.compared and len(block.rows) > 1
            self._families[name] = (
                {m: self._compared(block, m) for m in self.results.measures} if block and compared else {}
            )
        return self._families[name]

    @cached_property
    def _families(self) -> dict[str, dict[Metric, list[Comparison]]]:
        return {}

    def _compared(self, block: AboutBlock, metric: Metric) -> list[Comparison]:
        results, reference = self.results, block.reference
        figures = results.by_seed(block, f"test_{metric}")
        keys = results.keys(block)
        fresh = self._at_others_choice(metric) if block.needs_pair else {}
        picked = block.rows.index(results.about.base) if results.about.base in block.rows else None
        made = []
        for other in range(len(block.rows)):
            if other == reference or figures[[reference, other]].isna().all().any():
                continue
            both = figures[[reference, other]].dropna()
            difference = paired(both[reference].to_numpy(), both[other].to_numpy())
            raw, corrected = difference.mean, bool(fresh) and picked in (reference, other)
            if corrected:
                shared = both[both.index.isin(list(fresh))].copy()
                shared[picked] = [fresh[seed] for seed in shared.index]
                difference = weaker(difference, paired(shared[reference].to_numpy(), shared[other].to_numpy()))
            made.append(
                Comparison(
                    family=block.name,
                    metric=metric,
                    first=block.name_of(keys[reference]),
                    second=block.name_of(keys[other]),
                    raw=raw,
                    difference=difference,
                    corrected=corrected,
                )
            )
        return _corrected(made)

    def _at_others_choice(self, metric: Metric) -> dict[int, float]:
        """Each seed's figure at the pair that the other seeds choose; none where nothing was chosen on these seeds."""
        grid = self.grid
        if not self.chosen_here or grid is None or len(grid.seeds) < 2 or self._choosing[0].size < 2:
            return {}
        figures: Array = held_out(self._choosing, grid.values[f"test_{metric}"], "best")
        return dict(zip(grid.seeds, figures.tolist(), strict=True))


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    corrected = holm([comparison.difference.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, corrected, strict=True)]

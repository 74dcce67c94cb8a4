"""The analysis of a study: every comparison that a reader of the paper would make, with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cemobam_core.metrics import METRICS
from study.design.factors import Pair
from study.design.seeds import LOOKS, MANY_SEEDS, SPENT
from study.findings.luck import (
    Components,
    Level,
    agreement,
    agreement_between,
    cluster_by,
    components,
    contributions,
    crossed,
    equivalence,
    level,
    mcnemar,
    over_looks,
    probabilities,
    seeds_needed,
    utterances_needed,
    vote,
)
from study.findings.results import AboutBlock, GridScores, Results
from study.findings.statistics import (
    LEVEL,
    Array,
    Difference,
    GridVariance,
    Indices,
    Selection,
    grid_variance,
    holm,
    paired,
    selection,
)
from study.ledger.outcomes import Metric
from study.papers.cemobam.published import paper_pair

MEASURES: dict[Metric, str] = {name: metric.label for name, metric in METRICS.items()}
"""Labels of the metrics in tables and figures, by name."""


Row = tuple[Any, ...]
"""A configuration as a row of :attr:`AboutBlock.rows`."""

Verdict = Literal["better", "worse", "equivalent", "undecided", "not tested"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of two configurations on the test split, paired by seed.

    Attributes:
        family: Name of the block whose comparisons are corrected together.
        metric: Metric that is compared.
        first: The reference.
        second: The configuration that the reference is compared with.
        seed: First minus second, with an interval for other seeds on these utterances.
        utterances: First minus second, with an interval for other seeds on other utterances. `None` if predictions are
            not kept.
        decided_by: Which of the two differences decides.
        level: Level of the test. It is lower than 0.05 in a study that looks several times.
        components: Sources of the variance of the difference. `None` if there is only one seed.
        rope: Points within which the two are practically the same.
        p_holm: :attr:`p` after Holm's correction over the family.
        p_same: :attr:`p_equivalent` after Holm's correction over the family.
        verdict: Verdict on the first configuration.
    """

    family: str
    metric: Metric
    first: str
    second: str
    seed: Difference
    utterances: Difference | None
    decided_by: Literal["seed", "utterances"]
    level: float
    components: Components | None
    rope: float
    p_holm: float = np.nan
    p_same: float = np.nan
    verdict: Verdict = "not tested"

    @property
    def difference(self) -> Difference:
        """The difference that decides."""
        return self.utterances if self.utterances and self.decided_by == "utterances" else self.seed

    @property
    def other(self) -> Difference | None:
        """The difference that does not decide. `None` if predictions are not kept."""
        return self.seed if self.utterances and self.decided_by == "utterances" else self.utterances

    @property
    def p(self) -> float:
        """The deciding p-value, corrected for all looks but not for the family."""
        return over_looks(self.difference.p, self.level)

    @property
    def p_equivalent(self) -> float:
        """The p-value of the two one-sided tests for equivalence, corrected for all looks but not for the family."""
        return over_looks(equivalence(self.difference, self.rope / 100), self.level)

    @cached_property
    def chances(self) -> tuple[float, float, float]:
        """The probabilities that the first is better by more than the rope, practically the same, or worse."""
        return probabilities(self.difference, self.rope / 100)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The agreement of two configurations on the labels of the test utterances.

    Attributes:
        family: Name of the block.
        first: The reference.
        second: The configuration that the reference is compared with.
        within_first: Share of utterances that two seeds of the first label alike, as the mean over pairs of seeds.
        within_second: The same share for two seeds of the second.
        between: The same share for a seed of the first and a seed of the second.
        only_first: Number of utterances that only the vote of the first's seeds labels correctly.
        only_second: Number of utterances that only the vote of the second's seeds labels correctly.
        p_mcnemar: P-value of McNemar's test of the two votes. It holds for other utterances with the same trained
            models.
    """

    family: str
    first: str
    second: str
    within_first: float
    within_second: float
    between: float
    only_first: int
    only_second: int
    p_mcnemar: float


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A measured system.

    Attributes:
        name: Name of the system, such as ``memocmt``.
        row: Configuration of the system.
        n_seeds: Number of the block's seeds that the system runs with.
        uses_graph: Whether the system uses the graph.
        transductive: Whether the measured utterances are in the graph of the training utterances.
    """

    name: str
    row: Row
    n_seeds: int
    uses_graph: bool
    transductive: bool = False

    @property
    def told(self) -> str:
        """The name in sentences and tables."""
        return self.name.replace("cemobam", "CemoBAM", 1) if self.name.split(" ")[0] == "cemobam" else self.name


@dataclass(frozen=True, eq=False)
class Sampling:
    """The assumption of how other test utterances would be drawn.

    Attributes:
        by: The unit that is drawn: single utterances, utterances of the same speakers (if there are too few speakers
            to draw others), speakers with all their utterances, or the folds of a cross-validation.
        clusters: (U,), the unit that each utterance belongs to. `None` if each utterance is a unit.
        fold_ratio: For folds, the number of test utterances divided by the number of training utterances.
    """

    by: Literal["utterance", "utterance of these speakers", "speaker", "fold"] = "utterance"
    clusters: Indices | None = None
    fold_ratio: float = 0.0


@dataclass(frozen=True, eq=False)
class Analysis:
    """The analysis of a study's results. Each part is computed when it is first used.

    Attributes:
        results: Results of the study.
    """

    results: Results

    @property
    def metric(self) -> Metric:
        """The metric that decides on claims: the metric that chooses the pair, so it is not picked afterwards."""
        return self.results.about.select_by

    @property
    def grid(self) -> GridScores | None:
        """The complete part of the grid."""
        return self.results.scores

    @cached_property
    def variance(self) -> dict[Metric, GridVariance]:
        """The variance of the grid by metric. Empty if there are too few pairs and seeds to separate K from luck."""
        if self.grid is None:
            return {}
        made = {metric: grid_variance(self.grid.values[f"test_{metric}"]) for metric in self.results.measures}
        return {metric: variance for metric, variance in made.items() if variance}

    @cached_property
    def selections(self) -> dict[tuple[str, Metric], Selection]:
        """The choice of a pair by the split that chooses (``val``, ``test``) and the metric."""
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
        """The pair that the paper reports as best on this data set. `None` if it reports none."""
        return paper_pair(self.results.about.in_papers)

    def of(self, name: str) -> dict[Metric, list[Comparison]]:
        """Return the comparisons of a block's reference with its other configurations, by metric.

        The comparisons of one metric are a family.

        Args:
            name: Name of the block. The result is empty if the study does not have the block or it compares nothing.
        """
        block = self.results.about.block(name)
        if block is None or not block.compared or len(block.rows) < 2:
            return {}
        return {metric: self.family(block, metric) for metric in self.results.measures}

    def family(self, block: AboutBlock, metric: Metric) -> list[Comparison]:
        """Return the comparisons of a block's reference with its other configurations by one metric."""
        if (block.name, metric) not in self._families:
            others = [place for place in range(len(block.rows)) if place != block.reference]
            made = [self._compare(block, block.reference, other, metric) for other in others]
            self._families[block.name, metric] = judged([comparison for comparison in made if comparison])
        return self._families[block.name, metric]

    @cached_property
    def _families(self) -> dict[tuple[str, Metric], list[Comparison]]:
        return {}

    def between(self, block: AboutBlock, first: str, second: str, *, metric: Metric | None = None) -> Comparison | None:
        """Return the comparison of two configurations of a block, as a family by itself.

        Args:
            block: Block of the study.
            first: Name of the first configuration in csv files.
            second: Name of the second configuration in csv files.
            metric: Metric that is compared. `None` means the metric that decides.

        Returns:
            The comparison, or `None` if the block lacks one of them or they have no seed in common.
        """
        names = [block.name_of(key) for key in self.results.keys(block)]
        if not {first, second} <= set(names):
            return None
        made = self._compare(block, names.index(first), names.index(second), metric or self.metric)
        return judged([made])[0] if made else None

    def _compare(self, block: AboutBlock, first: int, second: int, metric: Metric) -> Comparison | None:
        """Return the comparison of two configurations, given their places. `None` if they have no seed in common."""
        keys = self.results.keys(block)
        return self._paired(
            self._by_seed(block, metric)[[first, second]],
            (block.rows[first], block.rows[second]),
            (block.name_of(keys[first]), block.name_of(keys[second])),
            block=block,
            metric=metric,
            seeds=block.seeds[: min(block.n_seeds[first], block.n_seeds[second])],
        )

    def contest(self, block: AboutBlock, pairs: Sequence[tuple[Contender, Contender]]) -> list[Comparison | None]:
        """Return the comparisons of pairs of systems by the metric that decides, as a family by itself.

        Args:
            block: Block whose seeds count, and whose :attr:`AboutBlock.decided_by` applies.
            pairs: Pairs of systems, which may come from other blocks.

        Returns:
            One comparison per pair. `None` if the two systems have no seed in common.
        """
        figures = {x: self.results.of_seeds(x.row, f"test_{self.metric}") for pair in pairs for x in pair}
        made = [
            self._paired(
                pd.concat([figures[first], figures[second]], axis=1),
                (first.row, second.row),
                (first.told, second.told),
                block=block,
                metric=self.metric,
                seeds=block.seeds[: min(first.n_seeds, second.n_seeds)],
            )
            for first, second in pairs
        ]
        known = iter(judged([one for one in made if one]))
        return [next(known) if one else None for one in made]

    def _paired(
        self,
        figures: pd.DataFrame,
        rows: tuple[Row, Row],
        names: tuple[str, str],
        *,
        block: AboutBlock,
        metric: Metric,
        seeds: Sequence[int],
    ) -> Comparison | None:
        """Return the comparison of two configurations, given their metric by seed. `None` if no seed is in common."""
        about = self.results.about
        both = figures[figures.index.isin(seeds)].dropna()
        if both.empty:
            return None
        first, second = both.iloc[:, 0], both.iloc[:, 1]
        level = SPENT[LOOKS.index(len(seeds))] if about.looks and block.compared else LEVEL
        differences = self._differences(rows, metric, both.index)
        utterances = None if differences is None else self._crossed(differences, level)
        return Comparison(
            family=block.name,
            metric=metric,
            first=names[0],
            second=names[1],
            seed=paired(first.to_numpy(), second.to_numpy(), level),
            utterances=utterances,
            decided_by="seed" if utterances is None else block.decided_by,
            level=level,
            components=self._components(differences, first - second),
            rope=about.rope,
        )

    def _by_seed(self, block: AboutBlock, metric: Metric) -> pd.DataFrame:
        if (block.name, metric) not in self._figures:
            self._figures[block.name, metric] = self.results.by_seed(block, f"test_{metric}")
        return self._figures[block.name, metric]

    @cached_property
    def _figures(self) -> dict[tuple[str, Metric], pd.DataFrame]:
        return {}

    def _differences(self, rows: tuple[Row, Row], metric: Metric, seeds: pd.Index[int]) -> Array | None:
        """Return the (S, U) contributions of test utterances to a difference, or `None` if they are not known."""
        first, second = (self._contributions(row, metric) for row in rows)
        if first is None or second is None or not (seeds.isin(first.index) & seeds.isin(second.index)).all():
            return None
        return np.asarray(first.loc[seeds].to_numpy() - second.loc[seeds].to_numpy())

    def _contributions(self, row: Row, metric: Metric) -> pd.DataFrame | None:
        """Return the contributions of test utterances to a metric, one row per seed, or `None` if not known."""
        if (row, metric) not in self._contributed:
            results, kept = self.results, self.results.kept
            made = None
            if kept is not None and len(matrix := kept.matrix(results.of_row(row), results.about.folds)):
                values = contributions(
                    matrix.to_numpy(),
                    kept.labels,
                    metric,
                    kept.num_classes,
                    kept.folds if results.about.folds > 1 else None,
                )
                made = pd.DataFrame(values, index=matrix.index)
            self._contributed[row, metric] = made
        return self._contributed[row, metric]

    @cached_property
    def _contributed(self) -> dict[tuple[Row, Metric], pd.DataFrame | None]:
        return {}

    @cached_property
    def sampling(self) -> Sampling:
        """The assumption of how other utterances would be drawn: by fold, by speaker, or one by one."""
        kept, folds = self.results.kept, self.results.about.folds
        if kept is None:
            return Sampling()
        if folds > 1:
            return Sampling("fold", kept.folds, len(kept.folds) / sum(kept.train_sizes))
        if kept.speakers is None:
            return Sampling()
        speakers = cluster_by(kept.speakers)
        return Sampling("utterance of these speakers") if speakers is None else Sampling("speaker", speakers)

    def _crossed(self, differences: Array, level: float) -> Difference:
        sampling = self.sampling
        return crossed(differences, clusters=sampling.clusters, fold_ratio=sampling.fold_ratio, level=level)

    def _components(self, differences: Array | None, by_seed: pd.Series) -> Components | None:
        """Return the sources of the variance of a difference: only seeds if predictions are not known."""
        if len(by_seed) < 2:
            return None
        if differences is None:
            seed = float(by_seed.var(ddof=1))
            return Components(seed=seed, utterance=0.0, error=0.0, seeds=len(by_seed), utterances=1, clusters=2)
        sampling = self.sampling
        return components(differences, clusters=sampling.clusters, fold_ratio=sampling.fold_ratio)

    @cached_property
    def agreements(self) -> list[Agreement]:
        """The agreements of all compared pairs of configurations whose predictions are kept."""
        kept, made = self.results.kept, list[Agreement]()
        if kept is None:
            return made
        classes = kept.num_classes
        for block in self.results.about.blocks:
            names = [block.name_of(key) for key in self.results.keys(block)]
            for c in self.of(block.name).get(self.metric, []):
                rows = [block.rows[names.index(name)] for name in (c.first, c.second)]
                first, second = (self._predicted(row, block.seeds) for row in rows)
                if not len(first) or not len(second):
                    continue
                votes = [vote(predicted, classes) for predicted in (first, second)]
                p, only_first, only_second = mcnemar(votes[0], votes[1], kept.labels)
                made.append(
                    Agreement(
                        family=block.name,
                        first=c.first,
                        second=c.second,
                        within_first=agreement(first, classes),
                        within_second=agreement(second, classes),
                        between=agreement_between(first, second, classes),
                        only_first=only_first,
                        only_second=only_second,
                        p_mcnemar=p,
                    )
                )
        return made

    def _predicted(self, row: Row, seeds: Sequence[int]) -> npt.NDArray[np.int16]:
        """Return the (S, U) classes that a configuration predicts, without rows if predictions are not kept."""
        kept, results = self.results.kept, self.results
        if kept is None:
            return np.empty((0, 0), dtype=np.int16)
        matrix = kept.matrix(results.of_row(row), results.about.folds)
        return matrix[matrix.index.isin(seeds)].to_numpy()

    def level(self, row: Row, metric: Metric, seeds: Sequence[int]) -> Level | None:
        """Return a configuration's metric with its interval over seeds and utterances.

        Args:
            row: Row of the configuration.
            metric: Name of the metric.
            seeds: Seeds that count.

        Returns:
            The level, or `None` if the configuration's predictions are not kept.
        """
        made = self._contributions(row, metric)
        if made is None or not len(values := made[made.index.isin(seeds)]):
            return None
        return level(values.to_numpy(), clusters=self.sampling.clusters, fold_ratio=self.sampling.fold_ratio)

    def seeds_needed(self, comparison: Comparison) -> int | None:
        """Return the number of seeds at which a difference, if it keeps its size, would be significant.

        Args:
            comparison: An undecided comparison.

        Returns:
            The number of seeds, or `None` if :data:`MANY_SEEDS` are not enough.
        """
        if (parts := comparison.components) is None:
            return None
        parts = parts if comparison.decided_by == "utterances" else parts.over_seeds
        n = seeds_needed(comparison.difference.mean, parts, self._share(comparison))
        return n if n and n <= MANY_SEEDS else None

    def utterances_needed(self, comparison: Comparison) -> int | None:
        """Return the approximate number of test utterances at which a difference would be significant.

        The number of seeds stays as it is.

        Args:
            comparison: An undecided comparison.

        Returns:
            The number of utterances, or `None` if no number is enough or other utterances do not count.
        """
        parts = comparison.components
        if parts is None or comparison.decided_by == "seed":
            return None
        return utterances_needed(comparison.difference.mean, parts, self._share(comparison))

    def _family_of(self, comparison: Comparison) -> list[Comparison]:
        block = self.results.about.block(comparison.family)
        assert block
        return self.family(block, comparison.metric)

    def _share(self, comparison: Comparison) -> float:
        """Return the level that each undecided comparison of a family gets."""
        return LEVEL / max(1, sum(map(_open, self._family_of(comparison))))

    @cached_property
    def more_seeds(self) -> dict[str, int]:
        """The number of seeds by block at which all differences that seeds can decide would be significant."""
        needed = {
            block.name: [self.seeds_needed(c) or 0 for c in self.of(block.name).get(self.metric, []) if _open(c)]
            for block in self.results.about.blocks
        }
        return {name: max(counts) for name, counts in needed.items() if any(counts)}


def judged(family: Sequence[Comparison]) -> list[Comparison]:
    """Return a family of comparisons with their corrected p-values and verdicts."""
    p_values, same = holm([c.p for c in family]), holm([c.p_equivalent for c in family])
    return [
        replace(c, p_holm=p, p_same=p_same, verdict=_verdict(c.difference, p, p_same))
        for c, p, p_same in zip(family, p_values, same, strict=True)
    ]


def _open(comparison: Comparison) -> bool:
    return comparison.verdict == "undecided"


def _verdict(difference: Difference, p: float, p_same: float) -> Verdict:
    if np.isnan(p):
        return "not tested"
    if p < LEVEL:
        return "better" if difference.mean > 0 else "worse"
    return "equivalent" if p_same < LEVEL else "undecided"

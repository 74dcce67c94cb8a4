"""The analysis of a study: every comparison that a reader of the paper would make, with its noise."""

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
"""The metrics by name, and how they are shown."""


Row = tuple[Any, ...]
"""A configuration, as blocks have it."""

Verdict = Literal["better", "worse", "equivalent", "undecided", "not tested"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One configuration against another on the test split, each seed against itself.

    Attributes:
        family: the name of a block: the comparisons that are corrected together.
        metric: of which the figures are.
        first: the reference.
        second: the configuration that it is compared with.
        seed: the first less the second, and what another seed would give on these utterances.
        utterances: the same, and what another seed would give on other utterances; None: predictions are not kept.
        decided_by: which of the two decides.
        level: of the test; lower than 0.05 where a study looks several times.
        components: where the variance of the difference comes from; None: one seed does not say.
        rope: points within which the two are practically the same.
        p_holm: :attr:`p` after Holm's correction over the family.
        p_same: :attr:`p_equivalent` likewise.
        verdict: on the first.
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
        """The same difference with the other kind of interval; None: there is none."""
        return self.seed if self.utterances and self.decided_by == "utterances" else self.utterances

    @property
    def p(self) -> float:
        """The deciding p-value for all looks together, not corrected for the family."""
        return over_looks(self.difference.p, self.level)

    @property
    def p_equivalent(self) -> float:
        """That of the two one-sided tests for practical equivalence, likewise."""
        return over_looks(equivalence(self.difference, self.rope / 100), self.level)

    @cached_property
    def chances(self) -> tuple[float, float, float]:
        """The probabilities that the first is better by more than the rope, practically the same, and worse."""
        return probabilities(self.difference, self.rope / 100)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How alike two configurations label the test utterances.

    Attributes:
        family: the name of a block.
        first: the reference.
        second: the configuration that it is compared with.
        within_first: the share of utterances that two seeds of the first label alike, mean over pairs of seeds.
        within_second: of the second.
        between: of a seed of the first and a seed of the second.
        only_first: utterances that only the vote of the first's seeds has right.
        only_second: only that of the second's.
        p_mcnemar: of McNemar's test of the two votes: over other utterances, with these very trainings.
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
    """A system that was measured.

    Attributes:
        name: by which it is known: ``memocmt``.
        row: its configuration, as blocks have it.
        n_seeds: of the block's seeds, with how many it runs.
        uses_graph: whether it uses the graph.
        transductive: whether the utterances that are measured are in the training utterances' graph.
    """

    name: str
    row: Row
    n_seeds: int
    uses_graph: bool
    transductive: bool = False

    @property
    def told(self) -> str:
        """How sentences and tables name it."""
        return self.name.replace("cemobam", "CemoBAM", 1) if self.name.split(" ")[0] == "cemobam" else self.name


@dataclass(frozen=True, eq=False)
class Sampling:
    """How other utterances would be drawn.

    Attributes:
        by: what is drawn: single utterances, utterances of the same speakers (too few to draw others), speakers with
            all of theirs, or the folds of a cross-validation.
        clusters: (U,), which of them each utterance belongs to; None: to none but itself.
        fold_ratio: of folds, the test utterances over the training utterances.
    """

    by: Literal["utterance", "utterance of these speakers", "speaker", "fold"] = "utterance"
    clusters: Indices | None = None
    fold_ratio: float = 0.0


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

    def of(self, name: str) -> dict[Metric, list[Comparison]]:
        """Return a block's reference against each of its other configurations, by metric; a family by itself.

        Args:
            name: of the block; none that compares nothing, or that the study has not got, has any.
        """
        block = self.results.about.block(name)
        if block is None or not block.compared or len(block.rows) < 2:
            return {}
        return {metric: self.family(block, metric) for metric in self.results.measures}

    def family(self, block: AboutBlock, metric: Metric) -> list[Comparison]:
        """Return a compared block's reference against each of its other configurations, by one metric."""
        if (block.name, metric) not in self._families:
            others = [place for place in range(len(block.rows)) if place != block.reference]
            made = [self._compare(block, block.reference, other, metric) for other in others]
            self._families[block.name, metric] = judged([comparison for comparison in made if comparison])
        return self._families[block.name, metric]

    @cached_property
    def _families(self) -> dict[tuple[str, Metric], list[Comparison]]:
        return {}

    def between(self, block: AboutBlock, first: str, second: str, *, metric: Metric | None = None) -> Comparison | None:
        """Return the comparison of two configurations of a block, as a family by itself; None: they are not there.

        Args:
            block: of the study.
            first: the name of the one, as csv files have it.
            second: of the other.
            metric: of which the figures are; None: the one that decides.
        """
        names = [block.name_of(key) for key in self.results.keys(block)]
        if not {first, second} <= set(names):
            return None
        made = self._compare(block, names.index(first), names.index(second), metric or self.metric)
        return judged([made])[0] if made else None

    def _compare(self, block: AboutBlock, first: int, second: int, metric: Metric) -> Comparison | None:
        """Return the comparison of two configurations, by their places; None: they have no seed in common."""
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
            block: whose seeds count, and whose luck decides.
            pairs: of systems, that may be of other blocks.

        Returns:
            One a pair; None: the two have no seed in common.
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
        """Return the comparison of two configurations, given their figures by seed; None: no seed in common."""
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
        """Return what each test utterance adds to the difference of two configurations, (S, U); None: not known."""
        first, second = (self._contributions(row, metric) for row in rows)
        if first is None or second is None or not (seeds.isin(first.index) & seeds.isin(second.index)).all():
            return None
        return np.asarray(first.loc[seeds].to_numpy() - second.loc[seeds].to_numpy())

    def _contributions(self, row: Row, metric: Metric) -> pd.DataFrame | None:
        """Return what each test utterance contributes to a configuration's metric, a row a seed; None: not known."""
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
        """How other utterances would be drawn: by fold, by speaker, or each for itself."""
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
        """Return where the variance of a difference comes from: of seeds alone where predictions are not known."""
        if len(by_seed) < 2:
            return None
        if differences is None:
            seed = float(by_seed.var(ddof=1))
            return Components(seed=seed, utterance=0.0, error=0.0, seeds=len(by_seed), utterances=1, clusters=2)
        sampling = self.sampling
        return components(differences, clusters=sampling.clusters, fold_ratio=sampling.fold_ratio)

    @cached_property
    def agreements(self) -> list[Agreement]:
        """Every compared pair of configurations whose predictions are kept: how alike they label."""
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
        """Return the classes that a configuration predicts, (S, U); no row where they are not kept."""
        kept, results = self.results.kept, self.results
        if kept is None:
            return np.empty((0, 0), dtype=np.int16)
        matrix = kept.matrix(results.of_row(row), results.about.folds)
        return matrix[matrix.index.isin(seeds)].to_numpy()

    def level(self, row: Row, metric: Metric, seeds: Sequence[int]) -> Level | None:
        """Return a configuration's metric with both kinds of luck; None: its predictions are not kept.

        Args:
            row: of the configuration, as blocks have it.
            metric: of which.
            seeds: that count.
        """
        made = self._contributions(row, metric)
        if made is None or not len(values := made[made.index.isin(seeds)]):
            return None
        return level(values.to_numpy(), clusters=self.sampling.clusters, fold_ratio=self.sampling.fold_ratio)

    def seeds_needed(self, comparison: Comparison) -> int | None:
        """Return with how many seeds a difference, if it stays as it is, would be told from 0.

        Args:
            comparison: that is undecided.

        Returns:
            None where :data:`MANY_SEEDS` would not do.
        """
        if (of := comparison.components) is None:
            return None
        of = of if comparison.decided_by == "utterances" else of.over_seeds
        n = seeds_needed(comparison.difference.mean, of, self._share(comparison))
        return n if n and n <= MANY_SEEDS else None

    def utterances_needed(self, comparison: Comparison) -> int | None:
        """Return with about how many test utterances a difference would be told from 0 with the seeds that there are.

        Args:
            comparison: that is undecided.

        Returns:
            None where no number would do, or other utterances do not count.
        """
        of = comparison.components
        if of is None or comparison.decided_by == "seed":
            return None
        return utterances_needed(comparison.difference.mean, of, self._share(comparison))

    def _family_of(self, comparison: Comparison) -> list[Comparison]:
        block = self.results.about.block(comparison.family)
        assert block
        return self.family(block, comparison.metric)

    def _share(self, comparison: Comparison) -> float:
        """Return the level of each undecided comparison of a family."""
        return LEVEL / max(1, sum(map(_open, self._family_of(comparison))))

    @cached_property
    def more_seeds(self) -> dict[str, int]:
        """By block, with how many seeds all of its differences that seeds can tell would be told."""
        needed = {
            block.name: [self.seeds_needed(c) or 0 for c in self.of(block.name).get(self.metric, []) if _open(c)]
            for block in self.results.about.blocks
        }
        return {name: max(counts) for name, counts in needed.items() if any(counts)}


def judged(made: Sequence[Comparison]) -> list[Comparison]:
    """Return a family of comparisons with their corrected p-values and verdicts."""
    p_values, same = holm([c.p for c in made]), holm([c.p_equivalent for c in made])
    return [
        replace(c, p_holm=p, p_same=p_same, verdict=_verdict(c.difference, p, p_same))
        for c, p, p_same in zip(made, p_values, same, strict=True)
    ]


def _open(comparison: Comparison) -> bool:
    return comparison.verdict == "undecided"


def _verdict(difference: Difference, p: float, p_same: float) -> Verdict:
    if np.isnan(p):
        return "not tested"
    if p < LEVEL:
        return "better" if difference.mean > 0 else "worse"
    return "equivalent" if p_same < LEVEL else "undecided"
